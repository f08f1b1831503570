"""What an agent has to be better than: the random policy, and the best constant action.

A constant action looks at nothing. Of choices all are tried; of numbers CMA-ES looks for one among C's outputs, as if C
were a bias alone. It is found on episodes of its own, and told on the test episodes that agents are told on.

E episodes, N constants, A action.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from wm import worlds
from wm.core import seeds
from wm.play import jobs as playing
from wm.play import rollout
from wm.play.cluster import Cluster
from wm.search.cmaes import CMAES, CMAConfig
from wm.stages.evaluate import interval
from wm.worlds.base import World

MOST_CHOICES = 64
"""Constants of which all are tried."""
POPULATION, EPISODES = 8, 4
"""Of the search among numbers: candidates, and episodes that each plays; one episode where there are few."""
FINAL = 16
"""Episodes on which the search's last three candidates are compared, at most."""
PER_JOB = 4
KEY = 3
"""Where in a round its seeds are, beside those of the searches."""


@dataclass(frozen=True)
class Constant:
    """A constant action.

    Attributes:
        act: [A].
        tried: how many constants were tried for it.
        episodes: that were played for it.
    """

    act: np.ndarray
    tried: int
    episodes: int


@dataclass(frozen=True)
class _Job:
    world: str
    pairs: list[rollout.Pair]
    acts: np.ndarray


class _Holder:
    """Drives with one of some constant actions [N, A]."""

    def __init__(self, acts: np.ndarray, slots: int):
        self.acts, self.which = acts, np.zeros(slots, np.int64)

    def begin(self, slot: int, pair: rollout.Pair) -> None:
        self.which[slot] = pair[0]

    def act(self, obs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        acts = self.acts[self.which[slots]]
        self.out = np.full_like(acts, np.nan)
        return acts


def _hold(job: _Job, shared: None) -> rollout.Played:
    slots = min(PER_JOB, len(job.pairs))
    return rollout.play(worlds.get(job.world), _Holder(job.acts, slots), job.pairs, slots)


def scores_of(world: str, acts: np.ndarray, numbers: list[int], cluster: Cluster) -> np.ndarray:
    """Scores [N, E] of constant actions [N, A] on the episodes `numbers` [E]."""
    pairs = [(index, number) for number in numbers for index in range(len(acts))]
    jobs = [_Job(world, part, acts) for part in playing.parts(pairs, PER_JOB)]
    played = [part.scores for part in cluster.map(_hold, jobs)]
    return np.concatenate(played).reshape(len(numbers), len(acts)).T


def random_scores(world: str, numbers: list[int], cluster: Cluster) -> tuple[np.ndarray, np.ndarray]:
    """Scores [E] and lengths [E] of the random policy on the episodes `numbers`."""
    jobs = [
        playing.Job(world=world, pairs=part, slots=PER_JOB, random=True)
        for part in playing.parts([(0, number) for number in numbers], PER_JOB)
    ]
    played = list(cluster.map(playing.play, jobs))
    return np.concatenate([part.scores for part in played]), np.concatenate([part.lengths for part in played])


def best_constant(world: str, episodes: int, cluster: Cluster) -> Constant:
    """The best constant action that about so many episodes find."""
    known = worlds.get(world)
    choices = choices_of(known)
    if choices is not None:
        each = max(1, episodes // len(choices))
        numbers = seeds.episodes(0, seeds.Purpose.SELECTION, 0, KEY, count=each)
        found = scores_of(world, choices, numbers, cluster).mean(1)
        return Constant(choices[int(found.argmax())], len(choices), each * len(choices))
    size = known.spec.action_size
    final, each = min(FINAL, max(2, episodes // 8)), EPISODES if episodes >= 80 else 1
    generations = max(1, (episodes - 3 * final) // (POPULATION * each))
    search = CMAES(CMAConfig(population=POPULATION, sigma0=1.0, diagonal=False), np.zeros(size), 0, KEY)
    best = np.zeros(size, np.float32)
    for generation in range(generations):
        outs = search.ask()
        numbers = seeds.episodes(0, seeds.Purpose.TRAINING, 0, KEY, generation, count=each)
        found = scores_of(world, known.squash(outs), numbers, cluster).mean(1)
        search.tell(found)
        best = outs[int(np.nanargmax(found))]
    acts = known.squash(np.stack([search.mean, best, np.zeros(size, np.float32)]))
    numbers = seeds.episodes(0, seeds.Purpose.SELECTION, 0, KEY, count=final)
    found = scores_of(world, acts, numbers, cluster).mean(1)
    tried = generations * POPULATION
    return Constant(acts[int(found.argmax())], tried, tried * each + len(acts) * final)


def choices_of(world: World) -> np.ndarray | None:
    """All constant actions [N, A] of a world whose actions are a few choices; None where they are numbers, or many."""
    counts = getattr(getattr(world, "actions", None), "counts", None)
    if counts is None or np.prod(counts, dtype=float) > MOST_CHOICES:
        return None
    rows = [
        np.concatenate([np.eye(count, dtype=np.float32)[pick] for count, pick in zip(counts, picks, strict=True)])
        for picks in itertools.product(*map(range, counts))
    ]
    return np.stack(rows)


def mean_and_interval(scores: np.ndarray) -> str:
    """The mean of scores [E] with its 95% interval, in columns."""
    low, high = interval(scores).values()
    return f"{scores.mean():9.2f}   {low:9.2f} to {high:9.2f}"


def table(world: str, agent: np.ndarray | None, episodes: int, search: int) -> str:
    """The agent's test scores [E] beside those of the random policy and of the best constant action.

    Args:
        agent: None where there is none, or its scores are others.
        episodes: test episodes, the first ones.
        search: episodes that are played to find the constant action.
    """
    numbers = seeds.episodes(0, seeds.Purpose.TEST, count=episodes)
    with Cluster() as cluster:
        random, _ = random_scores(world, numbers, cluster)
        constant = best_constant(world, search, cluster)
        held = scores_of(world, constant.act[None], numbers, cluster)[0]
    act = ", ".join(f"{number:g}" for number in np.round(constant.act, 3))
    lines = [f"{world}: {episodes} test episodes each{'' if agent is None else ', the same ones'}"]
    lines.append(f"  {'':22}{'mean':>9}   {'95% interval':^22}   {'' if agent is None else 'the agent is better by'}")
    if agent is not None:
        lines.append(f"  {'the agent':22}{mean_and_interval(agent)}")
    for label, scores in (("the random policy", random), ("the best constant", held)):
        apart = "" if agent is None else f"   {mean_and_interval(agent - scores)}"
        lines.append(f"  {label:22}{mean_and_interval(scores)}{apart}")
    lines.append(f"  the constant is [{act}], of {constant.tried} that were tried in {constant.episodes} episodes")
    return "\n".join(lines)
