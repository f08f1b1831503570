"""Play by hand, in a model's dream or in the world that it was learned from; or film C in the dream.

What a person plays can be kept as a data set (`wm.core.episodes`), whose episodes any tool of the line reads: the
frames that V would see, actions, rewards. There is no C behind it, so `out` is NaN, as for a random policy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from wm.core import episodes
from wm.core.episodes import MANIFEST, EpisodeSet, Shard, frame_columns
from wm.core.errors import UserError
from wm.gym.dream import Dreams, DreamWorld, rules_of
from wm.play.agent import Agent
from wm.views import watch
from wm.worlds.base import World
from wm.worlds.by_id.actions import ChoiceActions

RECORDINGS = Path("recordings")
FULL = 0.8
"""How far a key pushes a number that has one direction only, after the first such: a full brake locks the wheels."""
PAIRS = (("LEFT", "RIGHT"), ("DOWN", "UP"), ("a", "d"), ("s", "w"))
SINGLES = ("UP", "DOWN", "w", "s")


class Hands:
    """Keys as an action [A] of any world: a number that can be negative has a pair of keys, another has one; of a
    choice the first is taken where no key is down."""

    def __init__(self, world: World):
        self.actions = getattr(getattr(world, "real", world), "actions", None)  # of the world that is dreamed of
        self.keys: list[tuple[int, float, str]] = []  # which number, towards what, by which key
        self.low, self.high = world.action_bounds
        taken: set[str] = set()
        for index, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if low < 0 < high:
                pair = next((pair for pair in PAIRS if not taken & set(pair)), ())
                found = list(zip((low, high), pair, strict=False))
            else:
                free = [key for key in SINGLES if key not in taken][:1]
                found = [(high * (FULL if taken & set(SINGLES) else 1.0), key) for key in free]
            self.keys += [(index, float(towards), key) for towards, key in found]
            taken |= {key for _, key in found}

    def act(self, pressed: Callable[[str], bool] | None = None) -> np.ndarray:
        """The action of the keys that are down now; `pressed` says it of a key, pygame where it is None."""
        rest = np.clip(0.0, self.low, self.high).astype(np.float32)
        act = rest.copy()
        for index, towards, key in self.keys:
            if (pressed or _pressed)(key):
                act[index] += towards - rest[index]
        act = np.clip(act, self.low, self.high)
        if isinstance(self.actions, ChoiceActions):  # what M has learned from has exactly one 1 in each choice
            return self.actions.encode(np.asarray(self.actions.decode(act))[None])[0]
        return act


def _pressed(key: str) -> bool:
    import pygame

    return bool(pygame.key.get_pressed()[getattr(pygame, f"K_{key}")])


class Recorder:
    """Episodes as they are played, added to a data set when `close` is called.

    Args:
        folder: of the data set; made if it is not there.
        world: whose episodes these are.
    Raises:
        UserError: the folder holds episodes of another world, or other things.
        DamagedData: its manifest is not whole.
    """

    def __init__(self, folder: Path, world: World):
        self.folder, self.world = folder, world.spec.name
        self.columns = frame_columns(world.spec.action_size)
        self.shards = EpisodeSet(folder).shards if (folder / MANIFEST).exists() else []
        if self.shards and (there := EpisodeSet(folder).world) != self.world:
            raise UserError(f"{folder} holds episodes of {there}: record those of {self.world} under another name")
        if not self.shards and folder.exists() and any(folder.glob("*")):
            raise UserError(f"{folder} is there and holds no data set: record under another name")
        self.shard, self.seed = Shard(self.columns), 0
        self.steps: list[Any] = []

    def begin(self, seed: int) -> None:
        """A new episode; what was played of the last one is kept."""
        self._keep()
        self.seed = seed

    def add(self, obs: np.ndarray, act: np.ndarray, rew: float, end: bool) -> None:
        """One step: the frame that was seen, the action, and what the world gave for it."""
        self.steps.append((obs.copy(), act.copy(), float(rew), bool(end)))

    def close(self) -> str:
        """Writes what was played; returns a sentence."""
        self._keep()
        count = len(self.shard.episodes)
        if not count:
            return "nothing was recorded"
        self.folder.mkdir(parents=True, exist_ok=True)
        data, told = self.shard.finish()
        self.shards = [*self.shards, episodes.store_shard(self.folder, len(self.shards), data, told)]
        episodes.write_manifest(self.folder, self.world, self.columns, self.shards)
        return f"recorded {count} episodes, {sum(one['length'] for one in told)} steps, in {self.folder}"

    def _keep(self) -> None:
        if not self.steps:
            return
        obs, act, rew, end = (np.array(column) for column in zip(*self.steps, strict=True))
        episode = {"obs": obs, "act": act, "out": np.full_like(act, np.nan), "rew": rew, "end": end}
        self.shard.add(episode, seed=self.seed, score=round(float(rew.sum()), 6), actor="a person")
        self.steps = []


def by_hand(
    world: World, title: str, seed: int, steps: int | None, recorder: Recorder | None, act: Callable[[], np.ndarray]
) -> Generator[np.ndarray, None, None]:
    """Episodes one after the other, `seed` first, as pictures to show; `act` is asked at each step.

    Args:
        steps: of an episode, the most; None for the whole.
        recorder: keeps what is played, or None.
    """
    env = world.checked()
    try:
        for number in itertools.count(seed):
            if recorder:
                recorder.begin(number)
            yield from _episode(env, title, number, steps or world.spec.max_steps, recorder, act)
    finally:
        env.close()


def _episode(
    env: gymnasium.Env, title: str, seed: int, steps: int, recorder: Recorder | None, act: Callable[[], np.ndarray]
) -> Generator[np.ndarray, None, None]:
    obs, _ = env.reset(seed=seed)
    score = 0.0
    for step in range(steps):
        doing = act()
        yield watch.screen([(title, env.render())], doing, f"step {step}   score {score:.1f}", scale=2)
        seen = obs
        obs, rew, end, trunc, _ = env.step(doing)
        score += float(rew)
        if recorder:
            recorder.add(seen, doing, rew, end)
        if end or trunc:
            return


def window(agent_folder: Path, model: Path, real: bool, seed: int, steps: int | None, tau: float, record: str) -> str:
    """A person plays in a window until it is closed.

    Args:
        agent_folder, model: of the agent, and of the model that dreams.
        real: the world rather than the dream.
        record: the name of a data set in recordings/, or "".
    Returns:
        what became of it.
    """
    agent, _, _ = watch.load(agent_folder)
    world = agent.world if real else DreamWorld(model, tau)
    recorder = Recorder(RECORDINGS / record, world) if record else None
    title = world.spec.name if real else f"a dream, tau {tau:g}"
    frames = by_hand(world, title, seed, steps, recorder, Hands(world).act)
    try:
        watch.show(frames, world.spec.fps)
    finally:
        frames.close()
        said = recorder.close() if recorder else "played"
    return said


def film(agent_folder: Path, model: Path, seed: int, out: Path, steps: int | None, tau: float) -> str:
    """C plays an episode of the dream, by the rules that it was evolved with, written as an mp4 or gif; arguments as
    `window`. Returns a sentence."""
    agent, params, about = watch.load(agent_folder)
    dreams, score = Dreams(model, tau, 1, "frame", None, steps, None, **rules_of(about)), [0.0]
    frames = _dreamed(agent, params, dreams, seed, score)
    where = watch.show_or_write(frames, dreams.max_steps, agent.world.spec.fps, out)
    return f"{where}; score in the dream {score[0]:.1f}"


@torch.inference_mode()
def _dreamed(agent: Agent, params: np.ndarray, dreams: Dreams, seed: int, score: list[float]) -> Iterator[np.ndarray]:
    dreams.begin(0, seed)
    (h, c), restart, over, step = agent.initial_state(1), np.ones(1, np.float32), False, 0
    while not over:
        act = agent.act(params[None], dreams.seen.numpy(), h, c)
        picture = (f"a dream, tau {dreams.tau:g}", agent.vae.decode(dreams.z)[0].numpy())
        yield watch.screen([picture], act[0], f"step {step}   score {score[0]:.1f}", scale=2)
        # What C remembers with need not be the M that dreams.
        h, c = agent.remember(dreams.z.numpy(), act, h, c, restart)
        rew, end, trunc = dreams.step(act)
        restart, over, step = np.zeros(1, np.float32), end[0] or trunc[0], step + 1
        score[0] += float(rew[0])
