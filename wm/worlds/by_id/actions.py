"""How C's outputs become an environment's actions, and what M reads of them, for every kind of action space.

An action is a vector [A] float32, the same in the world and in the dream. Box: its numbers, flattened. Discrete and
MultiDiscrete: a one-hot vector for each choice, the largest of C's outputs. MultiBinary: 1 where C's output is above 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from wm.core.errors import UserError
from wm.worlds.base import Array, Policy, World, tanh

HOLDS = (1, 2, 4, 8, 16, 32)
"""Steps for which a random choice is held at most; one of them is drawn for each episode."""
SMOOTHNESS = 0.9
"""Correlation of a random Box action with itself one step later, before squashing."""


class Actions(ABC):
    """An action space as C and M see it.

    Attributes:
        size: A.
        low, high: the bounds of an action, each [A] float32.
    """

    size: int
    low: np.ndarray
    high: np.ndarray

    @abstractmethod
    def squash(self, out: Array) -> Array:
        """C's outputs [..., A] -> actions [..., A]; NaN where an output of the same vector is not finite."""

    @abstractmethod
    def decode(self, act: np.ndarray) -> Any:
        """An action [A] -> what the environment's `step` takes."""

    @abstractmethod
    def encode(self, values: np.ndarray) -> np.ndarray:
        """What the environment took, [T, …] -> actions [T, A] float32: undoes `decode`.

        Raises:
            ValueError: some are not in the action space.
        """

    @abstractmethod
    def explorer(self, rng: np.random.Generator) -> Policy:
        """A smooth random policy of one episode."""

    @abstractmethod
    def disturb(self, act: np.ndarray, drift: np.ndarray, noise: float) -> np.ndarray:
        """As `wm.worlds.base.World.disturb`; of a choice, `noise` is the share of steps at which another is taken."""


class ActionsWorld(World):
    """A world whose actions are those of a space of Gymnasium's: `actions` says all that a world has to say of them."""

    actions: Actions

    def squash(self, out: Array) -> Array:
        return self.actions.squash(out)

    def explorer(self, rng: np.random.Generator, **options: float) -> Policy:
        return self.actions.explorer(rng)

    def disturb(self, act: np.ndarray, drift: np.ndarray, noise: float) -> np.ndarray:
        return self.actions.disturb(act, drift, noise)

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return self.actions.low, self.actions.high


def actions_of(space: spaces.Space, world: str) -> Actions:
    """The actions of an environment's space.

    Raises:
        UserError: it is of a kind that C cannot write.
    """
    if isinstance(space, spaces.Box):
        return BoxActions(space)
    if isinstance(space, spaces.Discrete):
        return ChoiceActions(space, [int(space.n)], alone=True)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return ChoiceActions(space, [int(n) for n in space.nvec], alone=False)
    if isinstance(space, spaces.MultiBinary):
        return BinaryActions(space)
    raise UserError(
        f"the actions of the world {world} are {space}: expected Box, Discrete, MultiDiscrete or MultiBinary; put a "
        "wrapper around the environment that flattens them"
    )


def _rare(share: float) -> float:
    """What a normal number exceeds in this share of draws."""
    return NormalDist().inv_cdf(1 - min(share, 0.99))


class BoxActions(Actions):
    """Numbers between bounds, through tanh; a bound that is infinite counts as -1 or 1."""

    def __init__(self, space: spaces.Box):
        self.shape, self.dtype, self.size = space.shape, space.dtype, int(np.prod(space.shape))
        low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
        self.low = np.where(np.isfinite(low), low, np.minimum(-1.0, high - 1)).astype(np.float32)
        self.high = np.where(np.isfinite(high), high, np.maximum(1.0, self.low + 1)).astype(np.float32)

    def squash(self, out: Array) -> Array:
        low, high = self.low, self.high
        if not isinstance(out, np.ndarray):
            low, high = (torch.as_tensor(bound, device=out.device) for bound in (low, high))
        return low + (tanh(out) + 1) / 2 * (high - low)

    def disturb(self, act: np.ndarray, drift: np.ndarray, noise: float) -> np.ndarray:
        return np.clip(act + drift * (self.high - self.low) / 2, self.low, self.high)

    def decode(self, act: np.ndarray) -> np.ndarray:
        return np.clip(act, self.low, self.high).reshape(self.shape).astype(self.dtype)

    def encode(self, values: np.ndarray) -> np.ndarray:
        return np.clip(np.asarray(values, np.float32).reshape(len(values), self.size), self.low, self.high)

    def explorer(self, rng: np.random.Generator) -> Policy:
        """An Ornstein-Uhlenbeck process through `squash`, its mean drawn once an episode."""
        mean = rng.uniform(-0.75, 0.75, self.size)
        state = mean + rng.standard_normal(self.size)

        def act(obs: np.ndarray) -> np.ndarray:
            nonlocal state
            fresh = rng.standard_normal(self.size)
            state = mean + SMOOTHNESS * (state - mean) + np.sqrt(1 - SMOOTHNESS**2) * fresh
            return self.squash(state.astype(np.float32))

        return act


class ChoiceActions(Actions):
    """One or more choices, each a one-hot vector.

    Args:
        space: of the environment; where choices begin to count.
        counts: how many there are to choose from, for each choice.
        alone: the environment takes a number rather than an array of them.
    """

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete, counts: list[int], alone: bool):
        self.counts, self.alone, self.dtype, self.size = counts, alone, space.dtype, sum(counts)
        self.first = np.atleast_1d(np.asarray(space.start))
        self.low, self.high = np.zeros(self.size, np.float32), np.ones(self.size, np.float32)
        self.starts = np.cumsum([0, *counts[:-1]])

    def squash(self, out: Array) -> Array:
        if isinstance(out, np.ndarray):
            act = np.zeros_like(out)
            for start, count in zip(self.starts, self.counts, strict=True):
                part = out[..., start : start + count]
                np.put_along_axis(act[..., start : start + count], part.argmax(-1)[..., None], 1.0, axis=-1)
            act[~np.isfinite(out).all(-1)] = np.nan
            return act
        act = torch.zeros_like(out)
        for start, count in zip(self.starts, self.counts, strict=True):
            part = out[..., start : start + count]
            act[..., start : start + count].scatter_(-1, part.argmax(-1, keepdim=True), 1.0)
        return torch.where(torch.isfinite(out).all(-1, keepdim=True), act, torch.nan)

    def disturb(self, act: np.ndarray, drift: np.ndarray, noise: float) -> np.ndarray:
        act = act.copy()
        for start, count in self._parts():
            part, luck = act[:, start : start + count], drift[:, start : start + count] / noise
            rare = luck.max(1) > _rare(1 - (1 - min(noise, 0.99)) ** (1 / count))  # the largest of `count` numbers
            part[rare] = np.eye(count, dtype=act.dtype)[luck.argmax(1)[rare]]
        return act

    def decode(self, act: np.ndarray) -> Any:
        picks = self.first + np.array([act[start : start + count].argmax() for start, count in self._parts()])
        return int(picks[0]) if self.alone else picks.astype(self.dtype)

    def encode(self, values: np.ndarray) -> np.ndarray:
        picks = np.asarray(values, np.int64).reshape(len(values), len(self.counts)) - self.first
        if ((picks < 0) | (picks >= self.counts)).any():
            raise ValueError(f"an action is not among {' x '.join(map(str, self.counts))} choices")
        act = np.zeros((len(picks), self.size), np.float32)
        np.put_along_axis(act, picks + self.starts, 1.0, axis=1)
        return act

    def _parts(self) -> list[tuple[int, int]]:
        return list(zip(self.starts, self.counts, strict=True))

    def explorer(self, rng: np.random.Generator) -> Policy:
        """Random choices, each held for a random number of steps."""
        most = int(rng.choice(HOLDS))
        act, left = np.zeros(self.size, np.float32), np.zeros(len(self.counts), np.int64)

        def policy(obs: np.ndarray) -> np.ndarray:
            for index, (start, count) in enumerate(self._parts()):
                if left[index] == 0:
                    act[start : start + count] = 0.0
                    act[start + rng.integers(count)] = 1.0
                    left[index] = rng.integers(1, most + 1)
            left[:] -= 1
            return act.copy()

        return policy


class BinaryActions(Actions):
    """Switches: 1 where C's output is above 0."""

    def __init__(self, space: spaces.MultiBinary):
        self.shape, self.size = space.shape, int(np.prod(space.shape))
        self.low, self.high = np.zeros(self.size, np.float32), np.ones(self.size, np.float32)

    def squash(self, out: Array) -> Array:
        if isinstance(out, np.ndarray):
            act = (out > 0).astype(out.dtype)
            act[~np.isfinite(out).all(-1)] = np.nan
            return act
        return torch.where(torch.isfinite(out).all(-1, keepdim=True), (out > 0).to(out), torch.nan)

    def disturb(self, act: np.ndarray, drift: np.ndarray, noise: float) -> np.ndarray:
        return np.where(drift / noise > _rare(noise), 1 - act, act)

    def decode(self, act: np.ndarray) -> np.ndarray:
        return (act > 0.5).astype(np.int8).reshape(self.shape)

    def encode(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values).reshape(len(values), self.size).astype(bool).astype(np.float32)

    def explorer(self, rng: np.random.Generator) -> Policy:
        """Each switch is turned anew after a random number of steps."""
        most = int(rng.choice(HOLDS))
        act, left = np.zeros(self.size, np.float32), np.zeros(self.size, np.int64)

        def policy(obs: np.ndarray) -> np.ndarray:
            due = left == 0
            act[due] = rng.integers(2, size=int(due.sum()))
            left[due] = rng.integers(1, most + 1, size=int(due.sum()))
            left[:] -= 1
            return act.copy()

        return policy
