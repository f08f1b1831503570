"""The one light style of all pictures, with the Okabe-Ito colours (told apart by colour-blind readers).

A picture is written to a temporary name and renamed. No pyplot: nothing here keeps state.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
DPI = 110


@contextmanager
def styled() -> Iterator[None]:
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
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
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
    try:
        figure.savefig(temporary, format="png", metadata={"Software": None})
        os.replace(temporary, path)
    finally:  # of a picture that failed, nothing stays among a stage's outputs
        temporary.unlink(missing_ok=True)
