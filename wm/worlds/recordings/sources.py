"""Where recordings come from: a folder of .npz episodes, or a data set of Minari's. One episode is in memory at a time.

An episode of T steps is a file NAME.npz with these arrays, and no others are read:

    obs   uint8 [T, H, W, 3], or [T, H, W] for grey; one more frame, the last, may follow and is left out
    act   what was done: whole numbers [T] (one of some choices) or [T, k] (k choices); bool [T, k] (switches);
          floating-point [T] or [T, k] (numbers)
    rew   numbers [T]
    end   bool [T] or a single one: whether a step, or the last one, ended the episode for good; False if missing

H height, W width, T steps.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
from gymnasium import spaces

from wm.core.errors import UserError

MOST_CHOICES = 256
"""A larger whole number as an action is taken for a mistake."""
NEEDED = ("obs", "act", "rew")


@dataclass(frozen=True)
class Recorded:
    """An episode as its makers kept it.

    Attributes:
        obs: [T, H, W, 3] uint8.
        act: [T, …], as an environment would take it.
        rew: [T] float64.
        end: whether its last step ended it for good.
    """

    obs: np.ndarray
    act: np.ndarray
    rew: np.ndarray
    end: bool


class Source(Protocol):
    """Episodes by number."""

    def names(self) -> list[str]:
        """What each is called in a sentence."""

    def read(self, index: int) -> Recorded:
        """Raises UserError, which names it, where it is not whole or not what it has to be."""

    def actions(self) -> spaces.Space | None:
        """The action space, where the source says it; None where it has to be seen from the actions."""


def open_source(source: str, frames: str | None = None) -> Source:
    """A folder, or the id of a data set of Minari's.

    Args:
        frames: key of the pictures among a Minari data set's observations, where these are a dict.
    Raises:
        UserError: it is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        return Folder(folder)
    if folder.exists():
        raise UserError(f"{source} is a file: name the folder of .npz episodes that it is in, or a Minari data set")
    return Minari(source, frames)


class Folder:
    """A folder of .npz files, an episode each, in the order of their names."""

    def __init__(self, folder: Path):
        self.paths = sorted(folder.glob("*.npz"))
        if not self.paths:
            raise UserError(f"{folder} holds no .npz file: an episode is a file NAME.npz with {', '.join(NEEDED)}")

    def names(self) -> list[str]:
        return [str(path) for path in self.paths]

    def actions(self) -> None:
        return None

    def read(self, index: int) -> Recorded:
        path = self.paths[index]
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in (*NEEDED, "end") if name in file.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} is no whole .npz file ({error}): copy it again, or take it out") from None
        if missing := [name for name in NEEDED if name not in arrays]:
            raise UserError(f"{path} has no array {missing[0]}: an episode has {', '.join(NEEDED)}, and may have end")
        end = np.asarray(arrays.get("end", False))
        return checked(str(path), arrays["obs"], arrays["act"], arrays["rew"], end)


class Minari:
    """A data set of Minari's, that is on this machine or can be downloaded."""

    def __init__(self, name: str, frames: str | None):
        try:
            import minari
        except ModuleNotFoundError:
            raise UserError(
                f"{name} is no folder here, and for a data set of Minari's the package is missing: run "
                "`pip install -e '.[minari]'`"
            ) from None
        try:
            self.data = minari.load_dataset(name, download=name not in minari.list_local_datasets())
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            raise UserError(f"{name} is no folder here, and Minari does not load it: {words}") from None
        self.name, self.frames = name, frames
        self.ids = [int(index) for index in self.data.episode_indices]

    def names(self) -> list[str]:
        return [f"episode {index} of {self.name}" for index in self.ids]

    def actions(self) -> spaces.Space | None:
        space = self.data.action_space
        unbounded = isinstance(space, spaces.Box) and not space.is_bounded()
        return None if unbounded else space  # what was done says how far: an infinite bound would count as 1

    def read(self, index: int) -> Recorded:
        name = self.names()[index]
        try:
            (episode,) = self.data.iterate_episodes([self.ids[index]])
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            raise UserError(f"{name} cannot be read ({words}): download the data set again") from None
        obs = episode.observations
        if isinstance(obs, dict):
            if self.frames not in obs:
                raise UserError(f"{name} has several observations: say which are pictures, --frames {' or '.join(obs)}")
            obs = obs[self.frames]
        end = np.asarray(episode.terminations)
        return checked(name, np.asarray(obs), np.asarray(episode.actions), np.asarray(episode.rewards), end)


def checked(name: str, obs: np.ndarray, act: np.ndarray, rew: np.ndarray, end: np.ndarray) -> Recorded:
    """An episode whose arrays are what they have to be.

    Raises:
        UserError: an array has another type or shape, lengths differ, or a number is not finite; names the episode.
    """

    def refuse(what: str, rule: str) -> NoReturn:
        raise UserError(f"{name}: {what}, and {rule}")

    if rew.ndim != 1 or not len(rew) or rew.dtype.kind not in "fiub":
        refuse(f"rew is {rew.dtype} {rew.shape}", "has to be numbers [T], one a step")
    steps = len(rew)
    if obs.dtype != np.uint8 or obs.ndim not in (3, 4) or (obs.ndim == 4 and obs.shape[3] not in (1, 3)):
        refuse(
            f"obs is {obs.dtype} {obs.shape}", "has to be uint8 [T, height, width, 3], red, green, blue from 0 to 255"
        )
    if len(obs) not in (steps, steps + 1):
        refuse(
            f"obs has {len(obs)} frames and rew {steps} steps",
            "there has to be a frame a step (or one more, at the end)",
        )
    if act.ndim not in (1, 2) or act.dtype.kind not in "fiub":
        refuse(f"act is {act.dtype} {act.shape}", "has to be numbers [T] or [T, k]")
    if len(act) != steps:
        refuse(f"act has {len(act)} steps and rew {steps}", "both have to be as long")
    for what, array in (("act", act), ("rew", rew)):
        if array.dtype.kind == "f" and not (sound := np.isfinite(array.reshape(steps, -1)).all(1)).all():
            step = int(np.flatnonzero(~sound)[0])
            refuse(f"{what} at step {step} is {array[step]}", "has to be finite")
    if end.ndim > 1 or end.dtype.kind not in "biu" or (end.ndim == 1 and len(end) != steps):
        refuse(f"end is {end.dtype} {end.shape}", f"has to be a bool, or one a step ({steps})")
    if end.ndim == 1 and end[:-1].any():
        refuse(f"end is true at step {int(np.flatnonzero(end)[0])}", f"an episode of {steps} steps ends with its last")
    frames = obs[:steps].reshape(steps, *obs.shape[1:3], -1)
    return Recorded(np.broadcast_to(frames, (*frames.shape[:3], 3)), act, rew.astype(np.float64), bool(end.ravel()[-1]))


class CommonActions:
    """What the actions of all episodes have in common, looked at one episode after the other."""

    def __init__(self) -> None:
        self.kind, self.width, self.low, self.high = "", 0, np.zeros(0), np.zeros(0)

    def add(self, name: str, act: np.ndarray) -> None:
        """Raises UserError where an episode's actions are of another kind or size than those before."""
        kind = {"f": "floating-point", "b": "bool"}.get(act.dtype.kind, "whole")
        width = 0 if act.ndim == 1 else act.shape[1]
        flat = act.reshape(len(act), -1).astype(np.float64)
        low, high = flat.min(0), flat.max(0)
        if not self.kind:
            self.kind, self.width, self.low, self.high = kind, width, low, high
        if (kind, width) != (self.kind, self.width):
            raise UserError(
                f"{name}: its actions are {kind} numbers {_shape(width)}, and those before are {self.kind} numbers "
                f"{_shape(self.width)}: all have to be alike"
            )
        if kind == "whole" and (low.min() < 0 or high.max() >= MOST_CHOICES):
            wrong = int(low.min() if low.min() < 0 else high.max())
            raise UserError(f"{name}: an action is {wrong}: choices are numbered from 0 to {MOST_CHOICES - 1} at most")
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def space(self) -> spaces.Space:
        """The smallest action space of its kind that holds all of them; of numbers one that holds -1 and 1 too."""
        if self.kind == "bool":
            return spaces.MultiBinary(max(self.width, 1))
        if self.kind == "whole":
            counts = (self.high + 1).astype(int).tolist()
            return spaces.MultiDiscrete(counts) if self.width else spaces.Discrete(max(counts[0], 2))
        low, high = np.minimum(self.low, -1.0), np.maximum(self.high, 1.0)
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _shape(width: int) -> str:
    return f"[T, {width}]" if width else "[T]"


def iterate(source: Source) -> Iterator[tuple[str, Recorded]]:
    """Every episode with its name, one after the other."""
    for index, name in enumerate(source.names()):
        yield name, source.read(index)
