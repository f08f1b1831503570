"""What a controller is worth: its scores over episodes of the world or of M's dream (paper, section 2.3).

Shapes: P candidates, N parameters, E episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm.core import seeds
from wm.dream.engine import Dream
from wm.models.controller import ControllerSpec
from wm.play import jobs as playing
from wm.play.agent import AgentFiles
from wm.play.cluster import Cluster, ClusterConfig
from wm.search.config import EvolveConfig

VIRTUAL_EPISODES = 100
"""Dreamed episodes on which the kept controller's virtual score is measured (paper, section 4.4)."""

Scores = dict[str, np.ndarray]
"""Scores [P, E] on the same episodes: of the "world", where it can be played, and of the "dream", where fitness comes
from there."""


@dataclass(frozen=True)
class WorldPlayer:
    """Plays controllers in the real world.

    Attributes:
        config: how many episodes a job has, and how many of them are stepped side by side.
        world: its name.
        spec: of the controllers.
        sampled: they read a sample of z rather than V's mean.
        cluster: where jobs run.
        models: V and M.
    """

    config: ClusterConfig
    world: str
    spec: ControllerSpec
    sampled: bool
    cluster: Cluster
    models: AgentFiles

    def scores(
        self, params: np.ndarray, numbers: list[int], *, stall: int = 0, episodes_per_job: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Controllers [P, N] on the episodes `numbers` [E] -> scores, lengths, each [P, E].

        Args:
            stall: an episode also ends after this many steps without a positive reward; 0 for never.
            episodes_per_job: None is the configuration's.
        """
        pairs = [(candidate, number) for number in numbers for candidate in range(len(params))]
        jobs = [self._job(params, part, stall) for part in playing.parts(pairs, self._per_job(episodes_per_job))]
        played = list(self.cluster.map(playing.play, jobs, self.models))
        shape = (len(numbers), len(params))
        return (
            np.concatenate([part.scores for part in played]).reshape(shape).T,
            np.concatenate([part.lengths for part in played]).reshape(shape).T,
        )

    def _per_job(self, episodes: int | None) -> int:
        return self.config.episodes_per_job if episodes is None else episodes

    def _job(self, params: np.ndarray, pairs: list[tuple[int, int]], stall: int) -> playing.Job:
        """Only with the controllers that play in it, so that a job is small."""
        used = sorted({candidate for candidate, _ in pairs})
        place = {candidate: index for index, candidate in enumerate(used)}
        return playing.Job(
            world=self.world,
            pairs=[(place[candidate], number) for candidate, number in pairs],
            slots=self.config.slots,
            controllers=playing.Controllers(params[used], self.spec, self.sampled),
            stall=stall,
        )


class Scorer:
    """Scores controllers where fitness comes from, and wherever else they can play.

    Args:
        config: of the search.
        world: plays in the real world; None where there are only recordings of it, so that the dream decides all.
        dream: where fitness comes from instead, or None.
        selection: seeds of the episodes on which controllers are scored again.
    """

    def __init__(self, config: EvolveConfig, world: WorldPlayer | None, dream: Dream | None, selection: list[int]):
        self.config, self.world, self.dream, self.selection = config, world, dream, selection

    @property
    def places(self) -> list[str]:
        """Where controllers are scored again: "world", "dream"."""
        return [place for place, there in (("world", self.world), ("dream", self.dream)) if there]

    def fitness(self, params: np.ndarray, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Candidates [P, N] on the training episodes `numbers` [E] -> scores, lengths, each [P, E]."""
        if self.dream:
            return self.dream.scores(params, numbers)
        return self.world.scores(params, numbers, stall=self.config.stall)

    def rescore(self, params: np.ndarray) -> Scores:
        """Controllers [P, N] on whole selection episodes."""
        scores = {"world": self._whole(params, self.selection)} if self.world else {}
        return scores | ({"dream": self.dream.scores(params, self.selection)[0]} if self.dream else {})

    def final(self, params: np.ndarray, numbers: list[int], where: str) -> np.ndarray:
        """Scores [P, E] on the whole episodes `numbers` [E] of the "world" or the "dream"."""
        return self.dream.scores(params, numbers)[0] if where == "dream" else self._whole(params, numbers)

    def virtual(self, params: np.ndarray) -> dict[str, float]:
        """The score of one controller [N] in the dream, on episodes of its own; nothing without a dream."""
        if not self.dream:
            return {}
        _, scores, _ = self.dreamed(params)
        return {"virtual_score": float(scores.mean()), "virtual_std": float(scores.std())}

    def dreamed(self, params: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Seeds, scores and lengths, each [VIRTUAL_EPISODES], of one controller [N] in the dream.

        Where fitness is an expectation over ends these are drawn here, that the scores spread as the world's do.
        """
        numbers = seeds.episodes(0, seeds.Purpose.TEST, count=VIRTUAL_EPISODES)
        dream = self.dream.ending("drawn") if self.config.ends == "expected" else self.dream
        scores, lengths = dream.scores(params[None], numbers)
        return numbers, scores[0], lengths[0]

    def _whole(self, params: np.ndarray, numbers: list[int]) -> np.ndarray:
        """To their natural end; these last about equally long, so a job has one for each slot."""
        return self.world.scores(params, numbers, episodes_per_job=self.config.slots)[0]
