"""Which controllers a search may keep, and which training episodes it should come back to.

The best of many noisy scores is a lucky one, so a search remembers the best few and plays them off at its end. Both
memories go through a checkpoint as arrays and JSON. Shapes: K contenders, N parameters, P candidates, E episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.core.checkpoints import Tensors


@dataclass(frozen=True)
class Contender:
    """A controller and what it is known to be worth.

    Attributes:
        params: [N] float32.
        score: mean over the selection episodes, or over those of the final selection; -inf before the first.
        generation: after which it was found; 0 for what the search started from.
        source: "start", "mean" of the distribution, "best" candidate, or "average" of the means.
    """

    params: np.ndarray
    score: float
    generation: int
    source: str


class Contenders:
    """The best few by selection score, best first; of equals the earlier one."""

    MOST = 3

    def __init__(self, found: list[Contender]):
        self.found = found

    def add(self, contender: Contender) -> None:
        """Takes it in if its score is finite and among the best `MOST`."""
        if math.isfinite(contender.score):
            ranked = sorted([*self.found, contender], key=lambda one: -one.score)
            self.found = [one for one in ranked if math.isfinite(one.score)][: self.MOST]

    @property
    def best(self) -> Contender:
        """The best so far."""
        return self.found[0]

    def state(self) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """For a checkpoint: controllers [K, N], and what is known of each."""
        words = [
            {
                "score": one.score if math.isfinite(one.score) else None,
                "generation": one.generation,
                "source": one.source,
            }
            for one in self.found
        ]
        return np.stack([one.params for one in self.found]), words

    @classmethod
    def restored(cls, controllers: np.ndarray, words: list[dict[str, Any]]) -> Contenders:
        """What `state` gave."""
        return cls(
            [
                Contender(params, **(known | {"score": -np.inf if known["score"] is None else known["score"]}))
                for params, known in zip(controllers, words, strict=True)
            ]
        )


class PlayedEpisodes:
    """Training episodes that have been played, and how they went when they last were (prioritised level replay,
    Jiang et al. 2021, with the score itself as the priority)."""

    def __init__(self) -> None:
        self._scores: dict[int, float] = {}

    def hardest(self, count: int) -> list[int]:
        """The `count` episodes that went worst; fewer where fewer have been played."""
        return sorted(self._scores, key=self._scores.__getitem__)[:count]

    def note(self, numbers: list[int], scores: np.ndarray) -> None:
        """Scores [P, E] of a generation on the episodes `numbers` [E]; what is not finite says nothing."""
        for number, column in zip(numbers, scores.T, strict=True):
            if np.isfinite(column).any():
                self._scores[number] = float(column[np.isfinite(column)].mean())

    def state(self) -> Tensors:
        """For a checkpoint."""
        return {
            "episodes": np.array(list(self._scores), np.int64),
            "episode_scores": np.array(list(self._scores.values()), np.float64),
        }

    def restore(self, tensors: Tensors) -> None:
        """What `state` gave."""
        self._scores = dict(zip(tensors["episodes"].tolist(), tensors["episode_scores"].tolist(), strict=True))
