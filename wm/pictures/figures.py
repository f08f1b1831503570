"""Pictures that people look at: arrays or journal lines in, a PNG out, the same bytes every time.

One light style for all of them, with the Okabe-Ito colours (told apart by colour-blind readers). A picture is
written to a temporary name and renamed. No pyplot: nothing here keeps state. Moving pictures: `wm.pictures.videos`.

T time, N frames, Z latent, K mixtures.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from wm.pictures import plain

BLUE, RED, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, PAPER = "#22272e", "#8a939e", "#ffffff"
CYCLE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.edgecolor": "#c4cad1",
    "axes.labelcolor": INK,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.8,
    "xtick.color": "#59636e",
    "ytick.color": "#59636e",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "svg.hashsalt": "wm",
}
_DPI = 110
_SCALE = 2  # a 64-pixel frame is drawn at 128 pixels


# ---------------------------------------------------------------- pictures made of frames


def contact_sheet(frames: np.ndarray, path: Path, columns: int = 8, title: str = "") -> None:
    """Frames in reading order.

    Args:
        frames: [N, 64, 64, 3] uint8 (any one size).
        columns: frames a row.
    """
    frames = _frames(frames)
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    grid = np.full((rows * columns, *frames.shape[1:]), 255, np.uint8)
    grid[: len(frames)] = frames
    _mosaic(grid.reshape(rows, columns, *frames.shape[1:]), path, title)


def reconstructions(
    frames: np.ndarray, decoded: np.ndarray, path: Path, columns: int = 8, title: str = "What V sees, and what it keeps"
) -> None:
    """Pairs of rows: frames above, what V makes of them below.

    Args:
        frames, decoded: [N, 64, 64, 3] uint8, the same N.
    """
    frames, decoded = _frames(frames), _frames(decoded)
    columns = min(columns, len(frames))
    count = len(frames) - len(frames) % columns
    pairs = np.stack(
        [
            frames[:count].reshape(-1, columns, *frames.shape[1:]),
            decoded[:count].reshape(-1, columns, *frames.shape[1:]),
        ],
        axis=1,
    )
    _mosaic(pairs.reshape(-1, columns, *frames.shape[1:]), path, title, rows=["real", "decoded"] * len(pairs), group=2)


def traversal(
    decoded: np.ndarray,
    path: Path,
    labels: Sequence[str],
    values: Sequence[float] | None = None,
    title: str = "One latent at a time, the others held still",
) -> None:
    """A row a latent dimension, from low to high.

    Args:
        decoded: [Z or fewer, steps, 64, 64, 3] uint8.
        labels: a label a row, for example "z3".
        values: what the latent was set to, a number a column, in standard deviations of the prior.
    """
    heads = None if values is None else [f"{value:+.1f}" for value in values]
    _mosaic(np.asarray(decoded), path, title, rows=list(labels), columns=heads)


def strip(
    real: np.ndarray,
    dream: np.ndarray,
    path: Path,
    every: int = 1,
    fps: float | None = None,
    title: str = "The same actions in the world and in M's dream",
) -> None:
    """The world above and M's dream below, from left to right in time.

    Args:
        real, dream: [T, 64, 64, 3] uint8, the same T.
        every: steps from one frame shown to the next.
        fps: steps a second: columns are then labelled in seconds, else in steps.
    """
    real, dream = _frames(real)[::every], _frames(dream)[::every]
    count = min(len(real), len(dream))
    heads = [f"{i * every / fps:.1f} s" if fps else f"{i * every}" for i in range(count)]
    _mosaic(np.stack([real[:count], dream[:count]]), path, title, rows=["real", "dream"], columns=heads)


def _frames(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames are {frames.shape} {frames.dtype}, not [N, height, width, 3] uint8, N > 0")
    return frames


def _mosaic(
    grid: np.ndarray,
    path: Path,
    title: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    group: int = 1,
) -> None:
    """grid [rows, columns, height, width, 3] uint8, pixel for pixel at twice the size; `group` rows touch."""
    scale = _SCALE if grid.shape[3] <= 128 else 1
    grid = grid.repeat(scale, axis=2).repeat(scale, axis=3)
    n_rows, n_columns, height, width, _ = grid.shape
    gap, edge, left = 6, 14, 14 + (62 if rows else 0)
    top = edge + (30 if title else 0) + (20 if columns else 0)
    tops = [top + row * height + (row // group) * gap + row - row // group for row in range(n_rows)]
    total_width, total_height = left + n_columns * (width + gap) - gap + edge, tops[-1] + height + edge
    canvas = np.full((total_height, total_width, 3), 255, np.uint8)
    for row in range(n_rows):
        for column in range(n_columns):
            x = left + column * (width + gap)
            canvas[tops[row] : tops[row] + height, x : x + width] = grid[row, column]
    with styled():
        figure = Figure(figsize=(total_width / _DPI, total_height / _DPI), dpi=_DPI)
        figure.figimage(canvas)

        def write(x: float, y: float, text: str, **options: Any) -> None:
            figure.text(x / total_width, 1 - y / total_height, text, **options)

        if title:
            write(edge, edge + 2, title, va="top", weight="bold", size=11)
        for row, label in enumerate(rows or ()):
            write(left - 8, tops[row] + height / 2, label, ha="right", va="center", size=9)
        for column, label in enumerate(columns or ()):
            write(
                left + column * (width + gap) + width / 2,
                top - 5,
                label,
                ha="center",
                va="bottom",
                size=8,
                color="#59636e",
            )
        save(figure, path)


# ---------------------------------------------------------------- curves


def curves(
    lines: Sequence[Mapping[str, Any]],
    path: Path,
    panels: Mapping[str, Sequence[str]],
    xlabel: str = "step",
    logy: Sequence[str] = (),
    title: str = "",
) -> None:
    """Learning curves from a journal, a panel a group of metrics.

    Args:
        lines: the lines of a `metrics.jsonl` (`wm.core.journal.read`), each with `step`.
        panels: title -> metric names. `train/x` and `held_out/x` have the same colour in every panel.
        logy: titles of panels with a logarithmic axis.
    """
    with styled():
        figure, axes = subplots(len(panels), title)
        for ax, (name, metrics) in zip(axes, panels.items(), strict=True):
            for index, metric in enumerate(metrics):
                steps, values = series(lines, metric)
                colour = {"train": BLUE, "held_out": RED}.get(metric.split("/")[0], CYCLE[index % len(CYCLE)])
                _line(ax, steps, values, colour, _label(metric, alone=len(metrics) == 1))
            finish(ax, name, xlabel, "log" if name in logy else "linear", legend=len(metrics) > 1)
        save(figure, path)


def evolution(
    lines: Sequence[Mapping[str, Any]],
    path: Path,
    best: str = "best",
    mean: str = "mean",
    worst: str = "worst",
    rescored: str = "rescored",
    sigma: str = "sigma",
    reference: tuple[str, float] | None = None,
    title: str = "",
    xlabel: str = "generation",
) -> None:
    """An evolution: the population's scores as a band, the distribution's mean re-scored, and its step size.

    Args:
        lines: the journal, a line a generation.
        best, mean, worst, rescored, sigma: metric names; one that no line has is left out.
        reference: (label, score) drawn as a dashed line, for example what counts as solved.
    """
    with styled():
        figure, (ax, right) = subplots(2, title, widths=(2.2, 1))
        low, high = series(lines, worst), series(lines, best)
        if len(low[0]) and len(low[0]) == len(high[0]):
            ax.fill_between(low[0], low[1], high[1], color=SKY, alpha=0.22, linewidth=0, label="worst to best")
        ax.plot(*high, color=SKY, linewidth=1.2, label="best candidate")
        ax.plot(*series(lines, mean), color=BLUE, label="population mean")
        steps, values = series(lines, rescored)
        if len(steps):
            ax.plot(steps, values, color=RED, marker="o", markersize=4, label="distribution's mean, in the world")
        steps, values = series(lines, f"{rescored}_dream")
        if len(steps):
            ax.plot(steps, values, color=PURPLE, marker="s", markersize=4, label="distribution's mean, in the dream")
        if reference:
            reference_line(ax, *reference)
        finish(ax, "Score", xlabel, "linear", legend=True)
        right.plot(*series(lines, sigma), color=PURPLE)
        finish(right, "Step size (sigma)", xlabel, "log", legend=False)
        save(figure, path)


def temperatures(
    taus: Sequence[float], virtual: Sequence[tuple[float, float]], actual: Sequence[tuple[float, float]], path: Path
) -> None:
    """Scores in the dream and in the world over the dream's temperature, each (mean, standard deviation)."""
    with styled():
        figure, (ax,) = subplots(1, "Temperature of the dream")
        for scores, colour, marker, label in (
            (virtual, PURPLE, "s", "in the dream"),
            (actual, RED, "o", "in the world"),
        ):
            mean, std = np.array(scores, np.float64).T
            ax.fill_between(taus, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
            ax.plot(taus, mean, color=colour, marker=marker, markersize=5, label=label)
        finish(ax, "Score (band: standard deviation)", "tau", "linear", legend=True)
        save(figure, path)


def series(lines: Sequence[Mapping[str, Any]], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of the lines that have a finite number for `metric`, float64, the same length."""
    found = [(line["step"], line[metric]) for line in lines if line.get(metric) is not None]
    pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
    return tuple(pairs[np.isfinite(pairs[:, 1])].T)


def _line(ax: Any, steps: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    """A line; a noisy long one is drawn faintly beneath its running mean."""
    if len(steps) < 100:
        marker = "o" if len(steps) < 15 else ""
        ax.plot(steps, values, color=colour, label=label, marker=marker, markersize=3.5)
        return
    window = max(5, len(steps) // 50)
    padded = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    ax.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
    ax.plot(steps, (padded[ends] - padded[starts]) / (ends - starts), color=colour, label=label)


def _label(metric: str, alone: bool) -> str:
    group, _, name = metric.rpartition("/")
    group = {"held_out": "held-out"}.get(group, group)
    return metric if alone or not group else f"{group} {name}".replace("_", " ")


# ---------------------------------------------------------------- scores and the mixture's example


def scores(
    values: Sequence[float],
    path: Path,
    title: str = "Scores on held-out tracks",
    references: Mapping[str, float] | None = None,
    interval: tuple[float, float] | None = None,
    xlabel: str = "score of an episode",
) -> None:
    """A histogram of episode scores with their mean, its interval, and lines to compare with.

    Args:
        values: a score an episode.
        references: label -> score, dashed.
        interval: (low, high) of the mean, shaded.
    """
    values = np.asarray(values, dtype=np.float64)
    mean, std = float(values.mean()), float(values.std())
    with styled():
        figure, (ax,) = subplots(1, "", size=(6.8, 3.9))
        bins = np.histogram_bin_edges(values, bins=int(np.clip(2 * np.sqrt(len(values)), 5, 40)))
        ax.hist(values, bins=bins, color=SKY, edgecolor=PAPER, linewidth=0.8)
        ax.plot(
            values,
            np.full(len(values), -0.035),
            "|",
            color=BLUE,
            markersize=7,
            clip_on=False,
            transform=ax.get_xaxis_transform(),
        )
        if interval:
            ax.axvspan(
                *interval,
                color=RED,
                alpha=0.18,
                linewidth=0,
                zorder=0.6,
                label=f"95% interval of the mean {interval[0]:.0f} … {interval[1]:.0f}",
            )
        ax.axvline(mean, color=RED, label=f"mean {mean:.0f} ± {std:.0f} ({len(values)} episodes)")
        for index, (label, value) in enumerate((references or {}).items()):
            reference_line(ax, label, value, (INK, GREEN, PURPLE, ORANGE)[index % 4], vertical=True)
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.tick_params(axis="x", pad=8)
        finish(ax, title, xlabel, "linear", legend=False)
        ax.set_ylabel("episodes")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        save(figure, path)


def mdn_regression(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    grid: np.ndarray,
    plain: np.ndarray,
    pi: np.ndarray,
    mu: np.ndarray,
    samples: tuple[np.ndarray, np.ndarray],
    title: str = "A sinusoid turned on its side: one x, several y",
) -> None:
    """Why M answers with a mixture: a plain regression beside a mixture density network (paper, A.2).

    Args:
        x, y: [N] data.
        grid: [G] where the networks were asked.
        plain: [G] the plain regression's answer.
        pi, mu: [G, K] the mixture's weights and means.
        samples: (x, y) drawn from the mixture, [S] each.
    """
    with styled():
        figure, axes = subplots(3, title, size=(11, 3.9), share=True)
        for ax in axes[:2]:
            ax.plot(x, y, ".", color=GREY, alpha=0.5, markersize=3.5, markeredgewidth=0, label="data")
        axes[0].plot(grid, plain, color=RED, linewidth=2.4, label="prediction")
        finish(axes[0], "Plain regression: the average", "x", "linear", legend=True)
        for k in range(mu.shape[1]):
            colour = CYCLE[k % len(CYCLE)]
            faded = [(*matplotlib.colors.to_rgb(colour), float(weight)) for weight in pi[:, k].clip(0, 1)]
            axes[1].scatter(grid, mu[:, k], c=faded, s=9, linewidths=0)
        finish(axes[1], "Mixture: means, by weight", "x", "linear", legend=False)
        axes[2].plot(*samples, ".", color=GREEN, alpha=0.5, markersize=3.5, markeredgewidth=0)
        finish(axes[2], "Mixture: samples", "x", "linear", legend=False)
        axes[0].set_ylabel("y")
        spread = 0.15 * float(np.ptp(y))
        axes[0].set_ylim(float(y.min()) - spread, float(y.max()) + spread)
        axes[0].set_xlim(float(grid.min()), float(grid.max()))
        save(figure, path)


# ---------------------------------------------------------------- what they share


@contextmanager
def styled():
    """Inside `with`, matplotlib draws as all pictures here are drawn."""
    with plain(**_STYLE):
        yield


def subplots(
    count: int,
    title: str,
    widths: Sequence[float] | None = None,
    size: tuple[float, float] | None = None,
    share: bool = False,
) -> tuple[Figure, list[Any]]:
    """A figure with `count` axes, up to three side by side.

    Args:
        widths: of the columns, relative.
        size: inches.
        share: one scale for all axes.
    """
    columns = min(count, 3)
    rows = -(-count // columns)
    size = size or ({1: 6.4, 2: 9.0, 3: 11.0}[columns], 3.3 * rows + (0.4 if title else 0))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1, wspace=0.04, hspace=0.06)
    axes = (
        figure.subplots(
            rows,
            columns,
            squeeze=False,
            sharex=share,
            sharey=share,
            gridspec_kw={"width_ratios": widths} if widths else None,
        )
        .ravel()
        .tolist()
    )
    for ax in axes[count:]:
        ax.set_axis_off()
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold", size=12.5)
    return figure, axes[:count]


def finish(ax: Any, title: str, xlabel: str, scale: str, legend: bool) -> None:
    """Title, label, scale ("linear" or "log", which needs positive values) and legend of axes that have been drawn."""
    ax.set_title(title)
    ax.set_xlabel(xlabel)
    ax.margins(x=0.02)
    if scale == "log" and all((np.asarray(line.get_ydata()) > 0).all() for line in ax.lines):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(_Plain(minor_thresholds=(2, 0.5)))
        ax.yaxis.set_minor_formatter(_Plain(minor_thresholds=(2, 0.5)))
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best", borderaxespad=0.2)


class _Plain(LogFormatter):
    """Ticks of a logarithmic axis as 0.05, not 5e-02."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def reference_line(ax: Any, label: str, value: float, colour: str = INK, vertical: bool = False) -> None:
    """A dashed line at a value that others are compared with."""
    draw = ax.axvline if vertical else ax.axhline
    draw(value, color=colour, linestyle=(0, (4, 3)), linewidth=1.2, label=f"{label} {value:g}")


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all, the same bytes for the same figure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    FigureCanvasAgg(figure)
    figure.savefig(temporary, format="png", metadata={"Software": None})
    os.replace(temporary, path)
