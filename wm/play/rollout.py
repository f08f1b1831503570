"""Batches of episodes in one process, on one thread: the hot path of collect, evolve and evaluate.

A job is a list of (controller, seed) pairs. It steps a batch of environments in lockstep: V, M and C run once a step
for the whole batch, and when an episode ends its slot takes the next pair, so that the batch stays full to the end. A
job's result is a function of the job alone: not of the process that ran it, nor of how many there are.

Shapes: S slots, N controllers, P parameters, A action.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import gymnasium
import numpy as np
import torch

from wm.core.episodes import Shard, frame_columns
from wm.play.agent import Agent, PosteriorNoise
from wm.worlds.base import FRAME_SHAPE, Policy, World

Pair = tuple[int, int]
"""(index of the controller, seed of the episode)."""


@dataclass
class Played:
    """What became of a job's pairs, in their order.

    Attributes:
        scores: [pairs] float64 sums of rewards; NaN where the controller's output was not finite.
        lengths: [pairs] steps.
        acts: actions [length, A] of each episode, where they were asked for.
        batch_steps: steps of the whole batch; `lengths.sum() / (slots * batch_steps)` is the occupancy.
        slots: environments in the batch.
    """

    scores: np.ndarray
    lengths: np.ndarray
    acts: list[np.ndarray] = field(default_factory=list)
    batch_steps: int = 0
    slots: int = 0


class Driver(Protocol):
    """Who drives the slots."""

    def begin(self, slot: int, pair: Pair) -> None:
        """A new episode starts in `slot`."""

    def act(self, obs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """obs [n, 64, 64, 3] of the named slots -> actions [n, A] float32, NaN where a controller failed."""

    @property
    def out(self) -> np.ndarray:
        """Raw outputs [n, A] of C that led to the last actions; NaN where there is no C."""


class AgentDriver:
    """V, M and C, with one controller a slot.

    Args:
        agent: the models.
        params: [N, P] float32, the job's controllers.
        slots: S.
        sampled: z is a sample of V's posterior (paper) rather than its mean.
        noise: standard deviation of a slowly changing disturbance of the actions that are not at one of their bounds,
            for exploration; 0 for none.
    """

    NOISE_MEMORY = 0.9

    def __init__(self, agent: Agent, params: np.ndarray, slots: int, sampled: bool, noise: float = 0.0):
        self.agent, self.params, self.sampled, self.noise = (
            agent,
            np.ascontiguousarray(params, np.float32),
            sampled,
            noise,
        )
        self.h, self.c = agent.initial_state(slots)
        self.restart = np.ones(slots, np.float32)
        self.which = np.zeros(slots, np.int64)
        self.eps: list[PosteriorNoise | None] = [None] * slots
        self.disturb: list[np.random.Generator | None] = [None] * slots
        self.drift = np.zeros((slots, agent.world.spec.action_size), np.float32)

    def begin(self, slot: int, pair: Pair) -> None:
        self.which[slot], seed = pair
        self.h[slot], self.c[slot], self.restart[slot], self.drift[slot] = 0.0, 0.0, 1.0, 0.0
        self.eps[slot] = PosteriorNoise(seed, self.agent.mdnrnn.z_size)
        self.disturb[slot] = np.random.Generator(np.random.Philox(key=[seed, 0xA5]))

    def act(self, obs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        eps = np.stack([self.eps[slot].draw() for slot in slots]) if self.sampled else None
        z = self.agent.see(obs, eps)
        h, c = self.h[slots], self.c[slots]
        self.out = self.agent.decide(self.params[self.which[slots]], z, h, c)
        act = self.agent.world.squash(self.out)
        if self.noise:
            act = self._disturbed(act, slots)
        if self.agent.needs_memory:
            self.h[slots], self.c[slots] = self.agent.remember(z, act, h, c, self.restart[slots])
        self.restart[slots] = 0.0
        return act

    def _disturbed(self, act: np.ndarray, slots: np.ndarray) -> np.ndarray:
        fresh = np.stack([self.disturb[slot].standard_normal(act.shape[1], np.float32) for slot in slots])
        spread = np.sqrt(1.0 - self.NOISE_MEMORY**2).astype(np.float32) * self.noise
        self.drift[slots] = self.NOISE_MEMORY * self.drift[slots] + spread * fresh
        return self.agent.world.disturb(act, self.drift[slots], self.noise)


class ExplorerDriver:
    """A fresh random policy for every episode."""

    def __init__(self, world: World, slots: int):
        self.world = world
        self.policies: list[Policy | None] = [None] * slots

    def begin(self, slot: int, pair: Pair) -> None:
        rng = np.random.Generator(np.random.Philox(key=[pair[1], 0xE7]))
        self.policies[slot] = self.world.explorer(rng)

    def act(self, obs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        act = np.stack([self.policies[slot](frame) for slot, frame in zip(slots, obs, strict=True)]).astype(np.float32)
        self.out = np.full_like(act, np.nan)
        return act


_ENVIRONMENTS: dict[tuple[str, str], list[gymnasium.Env]] = {}
_PLAYED: dict[str, World] = {}
"""The world of each name that they are of: a worker of a cluster that stays may be given another one later."""


def environments(world: World, drawing: str | None, count: int) -> list[gymnasium.Env]:
    """`count` environments of this process, made once and used again by its next job; those of an earlier world of the
    same name, which had other options, are closed."""
    if _PLAYED.setdefault(world.spec.name, world) is not world:
        close_environments()
        _PLAYED[world.spec.name] = world
    drawing = drawing or world.spec.drawings[0]
    made = _ENVIRONMENTS.setdefault((world.spec.name, drawing), [])
    while len(made) < count:
        made.append(world.checked(drawing))
    return made[:count]


def close_environments() -> None:
    """Closes what `environments` made, e.g. game processes."""
    for made in _ENVIRONMENTS.values():
        for env in made:
            env.close()
    _ENVIRONMENTS.clear()
    _PLAYED.clear()


def play(
    world: World,
    driver: Driver,
    pairs: list[Pair],
    slots: int,
    *,
    drawing: str | None = None,
    stall: int = 0,
    limit: int = 0,
    keep_acts: bool = False,
    shard: Shard | None = None,
) -> Played:
    """Plays every pair to its end.

    Args:
        slots: S, environments stepped side by side; `driver` has as many places.
        drawing: which of the world's drawings; None is its default.
        stall: an episode also ends after this many steps without a positive reward; 0 for never.
        limit: an episode also ends after this many steps; 0 for never.
        keep_acts: return every episode's actions.
        shard: where episodes with their frames are written as they end, or None.
    """
    envs = environments(world, drawing, min(slots, len(pairs)))
    slots = len(envs)
    played = Played(np.full(len(pairs), np.nan), np.zeros(len(pairs), np.int64), [np.empty(0)] * len(pairs), 0, slots)
    waiting: Iterator[int] = iter(range(len(pairs)))
    obs = np.empty((slots, *FRAME_SHAPE), np.uint8)
    episodes = [_Running(-1)] * slots

    def begin(slot: int) -> bool:
        index = next(waiting, None)
        if index is None:
            return False
        driver.begin(slot, pairs[index])
        obs[slot] = envs[slot].reset(seed=pairs[index][1])[0]
        episodes[slot] = _Running(index)
        return True

    active = np.array([slot for slot in range(slots) if begin(slot)])
    with _one_thread():
        while len(active):
            acts = driver.act(obs[active], active)
            played.batch_steps += 1
            if shard is not None:
                for slot, out in zip(active, driver.out, strict=True):
                    episodes[slot].outs.append(out)
            finite = np.isfinite(acts).all(1)
            ended = [
                slot
                for slot, act, sound in zip(active, acts, finite, strict=True)
                if not sound or _step(envs[slot], episodes[slot], act, obs, slot, stall, limit, keep_acts, shard)
            ]
            for slot in active[~finite]:
                episodes[slot].score = float("nan")
            for slot in ended:
                _finish(episodes[slot], pairs, played, keep_acts, shard)
                if not begin(slot):
                    active = active[active != slot]
    return played


@dataclass
class _Running:
    """An episode under way in a slot."""

    index: int
    score: float = 0.0
    length: int = 0
    idle: int = 0
    frames: list[np.ndarray] = field(default_factory=list)
    acts: list[np.ndarray] = field(default_factory=list)
    outs: list[np.ndarray] = field(default_factory=list)
    rews: list[float] = field(default_factory=list)
    end: bool = False


def _step(
    env: gymnasium.Env,
    episode: _Running,
    act: np.ndarray,
    obs: np.ndarray,
    slot: int,
    stall: int,
    limit: int,
    keep_acts: bool,
    shard: Shard | None,
) -> bool:
    """Steps one environment; whether its episode is over."""
    if shard is not None:
        episode.frames.append(obs[slot].copy())
    frame, rew, end, trunc, _ = env.step(act)
    episode.score += float(rew)
    episode.length += 1
    episode.idle = 0 if rew > 0 else episode.idle + 1
    episode.end = bool(end)
    if keep_acts or shard is not None:
        episode.acts.append(act.copy())
    if shard is not None:
        episode.rews.append(float(rew))
    obs[slot] = frame
    return end or trunc or (0 < stall <= episode.idle) or (0 < limit <= episode.length)


def _finish(episode: _Running, pairs: list[Pair], played: Played, keep_acts: bool, shard: Shard | None) -> None:
    played.scores[episode.index] = episode.score
    played.lengths[episode.index] = episode.length
    if keep_acts:
        played.acts[episode.index] = np.array(episode.acts, np.float32)
    if shard is not None and episode.length:
        end = np.zeros(episode.length, bool)
        end[-1] = episode.end
        shard.add(
            {
                "obs": np.stack(episode.frames),
                "act": np.stack(episode.acts),
                "out": np.stack(episode.outs[: episode.length]),
                "rew": np.array(episode.rews),
                "end": end,
            },
            seed=pairs[episode.index][1],
            score=round(episode.score, 6),
        )


class _one_thread:
    """One thread of torch and OpenCV inside: the cores belong to the workers, and bits to the job."""

    def __enter__(self) -> None:
        self.before = torch.get_num_threads(), cv2.getNumThreads()
        torch.set_num_threads(1)
        cv2.setNumThreads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before[0])
        cv2.setNumThreads(self.before[1])


def record(
    world: World,
    driver: Driver,
    pairs: list[Pair],
    slots: int,
    *,
    drawing: str | None = None,
    stall: int = 0,
    shard: Shard | None = None,
) -> tuple[bytes, list[dict]]:
    """Plays the pairs and returns them as one shard's bytes (`shard`'s, where an empty one is given) and the
    manifest's lines."""
    shard = Shard(frame_columns(world.spec.action_size)) if shard is None else shard
    play(world, driver, pairs, slots, drawing=drawing, stall=stall, shard=shard)
    return shard.finish()
