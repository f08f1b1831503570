"""What a controller is worth: its scores over episodes of the world or of M's dream (paper, section 2.3).

Shapes: P candidates, N parameters, E episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wm import worlds
from wm.core import seeds, weights
from wm.models.controller import Layout
from wm.models.mdnrnn import MDNRNN
from wm.play import agent as agents
from wm.play import rollout
from wm.play.cluster import Cluster, ClusterConfig

if TYPE_CHECKING:
    from wm.stages.evolve import EvolveConfig

VIRTUAL_EPISODES = 100
"""Dreamed episodes on which the kept controller's virtual score is measured (paper, section 4.4)."""


@dataclass(frozen=True)
class _Job:
    world: str
    params: np.ndarray  # [P, N], of the candidates that play in it
    pairs: list[rollout.Pair]
    layout: Layout
    inputs: tuple[str, ...]
    sampled: bool
    slots: int
    stall: int


class Scorer:
    """Plays candidates where fitness comes from, and where they are looked at again.

    Args:
        tau: temperature of the dream.
        memory: the M that C remembers with; mdnrnn: the folder of the M that dreams.
        layout: of the candidates.
        inputs: the states that they read.
        agent: folder with V and M, for the workers of `cluster`.
        selection: the episodes of every look.
    Raises:
        DamagedData: the dream's model is not whole.
    """

    def __init__(
        self,
        config: EvolveConfig,
        world: str,
        tau: float,
        memory: MDNRNN,
        mdnrnn: Path,
        layout: Layout,
        inputs: tuple[str, ...],
        cluster: Cluster,
        agent: Path,
        selection: list[int],
    ):
        self.config, self.world, self.layout, self.inputs = config, world, layout, inputs
        self.cluster, self.shared, self.selection = cluster, agents.AgentFiles.read(agent), selection
        self.dream = None
        if config.dream:
            from wm.dream.engine import Dream

            weights.load(mdnrnn, weights.STARTS_KIND)  # whole, or a sentence that says what is not
            options = {"threads": cluster.workers, "device": config.device}
            self.dream = Dream.from_folder(mdnrnn, memory, worlds.get(world), layout, inputs, tau, **options)

    def fitness(self, params: np.ndarray, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Candidates [P, N] on the episodes `numbers` [E] -> scores, lengths, each [P, E]."""
        if self.dream:
            return self.dream.scores(params, numbers)
        return self._real(self.config, params, numbers, self.config.stall)

    def looks(self, params: np.ndarray) -> dict[str, np.ndarray]:
        """Scores [P, E] on whole selection episodes: {"world": …, "dream": … where fitness comes from there}."""
        found = {"world": self._whole(params, self.selection)}
        return found | ({"dream": self.dream.scores(params, self.selection)[0]} if self.dream else {})

    def chosen(self, looks: dict[str, np.ndarray]) -> np.ndarray:
        """Those of the looks that decide which controller is kept."""
        return looks["dream" if self.config.dream_decides else "world"]

    def deciding(self, params: np.ndarray, numbers: list[int]) -> np.ndarray:
        """Scores [P, E] on the whole episodes `numbers` [E], only where it is decided which controller is kept."""
        return self.dream.scores(params, numbers)[0] if self.config.dream_decides else self._whole(params, numbers)

    def virtual(self, params: np.ndarray) -> dict[str, float]:
        """The score in the dream, on episodes of its own; only where fitness comes from a dream."""
        numbers = seeds.episodes(0, seeds.Purpose.TEST, count=VIRTUAL_EPISODES)
        scores, _ = self.dream.scores(params[None], numbers)
        return {"virtual_score": float(scores.mean()), "virtual_std": float(scores.std())}

    def _whole(self, params: np.ndarray, numbers: list[int]) -> np.ndarray:
        full = self.config.model_copy(update={"episodes_per_job": self.config.slots})  # they last about equally long
        return self._real(full, params, numbers, stall=0)[0]

    def _real(self, config: EvolveConfig, params: np.ndarray, numbers: list[int], stall: int):
        return real_scores(
            config, self.world, self.layout, self.inputs, self.cluster, self.shared, params, numbers, stall
        )


def real_scores(
    config: ClusterConfig,
    world: str,
    layout: Layout,
    inputs: tuple[str, ...],
    cluster: Cluster,
    shared: agents.AgentFiles,
    params: np.ndarray,
    numbers: list[int],
    stall: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and lengths, each [P, E], of params [P, N] on the episodes `numbers` [E] of the real world.

    Args:
        shared: V and M.
    """
    pairs = [(candidate, number) for number in numbers for candidate in range(len(params))]
    jobs = []
    for first in range(0, len(pairs), config.episodes_per_job):
        part = pairs[first : first + config.episodes_per_job]
        used = sorted({candidate for candidate, _ in part})
        local = {candidate: index for index, candidate in enumerate(used)}
        jobs.append(
            _Job(
                world,
                params[used],
                [(local[candidate], number) for candidate, number in part],
                layout,
                inputs,
                config.sampled,
                config.slots,
                stall,
            )
        )
    played = list(cluster.map(_play, jobs, shared))
    shape = (len(numbers), len(params))
    return (
        np.concatenate([part.scores for part in played]).reshape(shape).T,
        np.concatenate([part.lengths for part in played]).reshape(shape).T,
    )


def _play(job: _Job, shared: agents.AgentFiles) -> rollout.Played:
    vae, mdnrnn = shared.models()
    world = worlds.get(job.world)
    agent = agents.Agent(vae=vae, mdnrnn=mdnrnn, world=world, layout=job.layout, inputs=job.inputs)
    driver = rollout.AgentDriver(agent, job.params, job.slots, job.sampled)
    return rollout.play(world, driver, job.pairs, job.slots, stall=job.stall)
