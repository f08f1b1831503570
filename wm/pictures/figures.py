"""Curves and histograms: journal lines or scores in, a PNG out, the same bytes every time.

Pictures made of frames: `wm.pictures.mosaics`. Moving pictures: `wm.pictures.videos`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm.pictures.style import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    RED,
    SKY,
    finish,
    reference_line,
    save,
    styled,
    subplots,
)


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


def reliability(said: np.ndarray, true: np.ndarray, steps: np.ndarray, path: Path) -> None:
    """Shares of ends over the probabilities that M gave them, bin by bin (NaN or no end: no point), with the standard
    errors of the shares; on the diagonal both agree."""
    with styled():
        figure, (ax,) = subplots(1, "Ends of held-out episodes")
        there = np.nan_to_num(true) > 0
        said, true, steps = said[there], true[there], steps[there]
        ax.plot([1e-4, 1.0], [1e-4, 1.0], color=PURPLE, linewidth=0.8, label="as often as said")
        ax.errorbar(said, true, np.sqrt(true * (1 - true) / steps), color=RED, marker="o", markersize=5, label="M")
        ax.set_yscale("log")
        finish(ax, "Share of steps that ended", "p(end) that M gave", "log", legend=True)
        save(figure, path)


def gauge(dream: np.ndarray, world: np.ndarray, correlation: float, path: Path) -> None:
    """Scores of controllers in the world over their scores in the dream, [P] each."""
    with styled():
        figure, (ax,) = subplots(1, f"Dream and world: rank correlation {correlation:.2f}")
        ax.plot(dream, world, "o", color=PURPLE, markersize=5)
        ax.set_ylabel("score in the world")
        finish(ax, "Controllers, weights disturbed", "score in the dream", "linear", legend=False)
        save(figure, path)


def bars(values: np.ndarray, path: Path, title: str, xlabel: str, reference: tuple[str, float]) -> None:
    """Positive values in their order on a logarithmic axis, and one to compare with."""
    with styled():
        figure, (ax,) = subplots(1, title)
        ax.bar(np.arange(1, len(values) + 1), np.maximum(values, 1e-6), color=SKY)
        ax.set_yscale("log")
        reference_line(ax, *reference)
        finish(ax, "Variance of the mean over all frames", xlabel, "linear", legend=True)
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
    values = numbers = np.asarray(values, dtype=np.float64)
    mean, std = float(numbers.mean()), float(numbers.std())
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
