"""Pictures made of frames, pixel for pixel: frames in, a PNG out, the same bytes every time.

T time, N frames, Z latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from wm.pictures import style

_SCALE = 2  # a 64-pixel frame is drawn at 128 pixels


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


def moments(grid: np.ndarray, path: Path, labels: Sequence[str], heads: Sequence[str]) -> None:
    """A row a step that was surprising.

    Args:
        grid: [rows, columns, 64, 64, 3] uint8.
        labels: a label a row: who was surprised, and when.
        heads: a label a column.
    """
    _mosaic(grid, path, "The most surprising steps", rows=list(labels), columns=list(heads))


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
    with style.styled():
        figure = Figure(figsize=(total_width / style.DPI, total_height / style.DPI), dpi=style.DPI)
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
        style.save(figure, path)
