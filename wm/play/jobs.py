"""Jobs: the episodes of the real world that one worker plays.

A job is plain data, and goes to a worker with the files of an agent, which all jobs of a stage share. What comes back
is a function of these two alone (`wm.play.rollout`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm import worlds
from wm.core.episodes import Shard
from wm.models.controller import ControllerSpec
from wm.play import rollout
from wm.play.agent import Agent, AgentFiles
from wm.worlds.base import World


@dataclass(frozen=True)
class Controllers:
    """Controllers that drive with the V and M of an agent, in the place of that agent's own.

    Attributes:
        params: [P, N] float32.
        spec: how they are read.
        sampled: they read a sample of z (paper) rather than V's mean.
    """

    params: np.ndarray
    spec: ControllerSpec
    sampled: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """Some episodes, and who drives in them.

    Attributes:
        world: its name.
        pairs: (controller, seed) of every episode; 0 is the only controller of an agent.
        slots: environments that are stepped side by side.
        random: a random policy drives, and no agent is needed.
        controllers: who drives instead of the shared agent's controller.
        drawing: which of the world's drawings; None is its default.
        stall: an episode also ends after this many steps without a positive reward; 0 for never.
        noise: standard deviation of the disturbance of the actions (`wm.play.rollout.AgentDriver`).
        keep_acts: return every episode's actions.
    """

    world: str
    pairs: list[rollout.Pair]
    slots: int
    random: bool = False
    controllers: Controllers | None = None
    drawing: str | None = None
    stall: int = 0
    noise: float = 0.0
    keep_acts: bool = False


def parts(pairs: list[rollout.Pair], episodes_per_job: int) -> Iterator[list[rollout.Pair]]:
    """The pairs of each job, in order."""
    for first in range(0, len(pairs), episodes_per_job):
        yield pairs[first : first + episodes_per_job]


def play(job: Job, agent: AgentFiles | None) -> rollout.Played:
    """Plays the job's episodes."""
    world = worlds.get(job.world)
    driver = _driver(job, world, agent)
    options: dict[str, Any] = {"drawing": job.drawing, "stall": job.stall, "keep_acts": job.keep_acts}
    return rollout.play(world, driver, job.pairs, job.slots, **options)


def record(job: Job, agent: AgentFiles | None, shard: Shard | None = None) -> tuple[bytes, list[dict]]:
    """Plays the job's episodes -> one shard's bytes and the manifest's lines, which name the agent that drove.

    Args:
        shard: an empty one to write to; None for a plain one.
    """
    world = worlds.get(job.world)
    driver = _driver(job, world, agent)
    data, lines = rollout.record(world, driver, job.pairs, job.slots, drawing=job.drawing, stall=job.stall, shard=shard)
    return data, lines if job.random else [{**line, "actor": agent.digest} for line in lines]


def _driver(job: Job, world: World, files: AgentFiles | None) -> rollout.Driver:
    if job.random:
        return rollout.ExplorerDriver(world, job.slots)
    if job.controllers is None:
        agent, params, about = files.agent()
        return rollout.AgentDriver(agent, params[None], job.slots, about["sampled"], job.noise)
    vae, mdnrnn = files.models()
    spec = job.controllers.spec
    agent = Agent(vae=vae, mdnrnn=mdnrnn, world=world, layout=spec.layout, inputs=spec.inputs)
    return rollout.AgentDriver(agent, job.controllers.params, job.slots, job.controllers.sampled, job.noise)
