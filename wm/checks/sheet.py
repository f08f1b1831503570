"""A picture of what the checks of a set found: a row a check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wm.core.episodes import EpisodeSet
from wm.core.verdicts import Check
from wm.pictures import mosaics

FRAMES = 8


def draw(checks: Sequence[Check], data: EpisodeSet, path: Path) -> None:
    """Eight frames in a row from just before where each check found most, whether that is a fault or not."""
    rows = [_row(data, *(check.where or (0, 0))) for check in checks]
    labels = [f"{check.name}\n{check.verdict}" for check in checks]
    mosaics.traversal(np.stack(rows), path, labels, title="Where each check found most: the frames around it")


def _row(data: EpisodeSet, episode: int, at: int) -> np.ndarray:
    obs = data.read(episode, ["obs"])["obs"]
    first = max(0, min(at - 2, len(obs) - FRAMES))
    return obs[np.minimum(np.arange(first, first + FRAMES), len(obs) - 1)]
