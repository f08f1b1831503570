"""What a world is: the one interface that real worlds share, and that rollouts, stages and tests rely on.

B batch, A action.
"""

from __future__ import annotations

import contextlib
import io
import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import gymnasium
import numpy as np

from wm.core.errors import UserError, WorldError

if TYPE_CHECKING:
    from torch import Tensor

FRAME_SHAPE = (64, 64, 3)
"""Height, width, channels of what V sees, uint8 (paper, A.1)."""

Array: TypeAlias = "np.ndarray | Tensor"
"""What C writes: NumPy's in a rollout, torch's in a dream."""

Policy = Callable[[np.ndarray], np.ndarray]
"""obs [64, 64, 3] uint8 -> act [A] float32: an exploration policy of one episode; it may keep state."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What never changes about a world.

    Attributes:
        name: key in the registry, and in `worlds` of params.yaml.
        action_size: A, the length of an action as M reads it and C writes it.
        max_steps: steps after which an episode is truncated.
        drawings: names of the ways in which frames can be drawn; the first is the default,
            the last is the one on which final scores are measured.
        controller_inputs: which of the states "z", "h" and "c" C reads, in C's order.
        controller_bias: whether C has a bias.
        predicts_restart: whether M reads a restart flag and episodes are concatenated (paper's DoomRNN).
        solved: mean score over 100 episodes from which the world counts as solved; None where nobody says.
        fps: steps a second, for videos.
        symlog_rewards: M predicts sign(r) log(1 + |r|) of a reward r (DreamerV3, equation 1), so that its squared error
            is of one size whatever a world pays; dreams turn it back.
        rewards: lowest and highest reward of a step, for the checks of data; None where nobody says.
        scores: lowest and highest sum of an episode's rewards; None where nobody says.
        still: most steps in a row for which its picture can stand still; None where nobody says.
        steady: its episodes are all drawn alike, without a blank frame or a cut: what stands out among them is a fault.
    """

    name: str
    action_size: int
    max_steps: int
    drawings: tuple[str, ...]
    controller_inputs: tuple[str, ...]
    controller_bias: bool
    predicts_restart: bool
    solved: float | None
    fps: int
    symlog_rewards: bool = False
    rewards: tuple[float, float] | None = None
    scores: tuple[float, float] | None = None
    still: int | None = None
    steady: bool = False

    @property
    def references(self) -> dict[str, float]:
        """Scores to draw beside those of an agent, by name."""
        return {} if self.solved is None else {"solved": self.solved}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What people are told of a world: by an exported agent, and on its page.

    Attributes:
        title: as people call it.
        picture: what becomes of its picture before V sees it: "environment", and where a part of it is resized "rows"
            and "columns" of that part and how ("resize").
        actions: what each number of an action is called.
        press: how far a key pushes each of these, as a share of what is possible.
        licence: whose the pictures are, {"what", "licence"}.
    """

    title: str
    picture: Mapping[str, Any]
    actions: tuple[str, ...]
    press: tuple[float, ...]
    licence: Mapping[str, str]


def symlog(rew: Tensor) -> Tensor:
    """sign(r) log(1 + |r|): rewards of any size as numbers of one size (DreamerV3, equation 1)."""
    return rew.sign() * rew.abs().log1p()


def symexp(rew: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return rew.sign() * rew.abs().expm1()


def tanh(out: Array) -> Array:
    """tanh of C's outputs, an array or a tensor of any shape; a new one of the same kind."""
    return np.tanh(out) if isinstance(out, np.ndarray) else out.tanh()


class World(ABC):
    """A world: makes environments, turns C's outputs into actions, and explores at random.

    Environments are Gymnasium environments with observation space Box(0, 255, (64, 64, 3), uint8) and action
    space Box((A,), float32). `reset(seed=s)` makes an episode a function of `s` and the actions alone.
    An environment never truncates before `spec.max_steps` and always does then.
    """

    spec: Spec
    recordings: Path | None = None
    """Folder of recorded episodes that are played instead of an environment, which is then missing; None for none."""

    @abstractmethod
    def make(self, drawing: str | None = None) -> gymnasium.Env:
        """An environment with 64x64 frames, whose `render()` gives a picture of any size [H, W, 3] uint8 for films.

        Args:
            drawing: one of `spec.drawings`; None is the first.
        Raises:
            ValueError: drawing is unknown.
        """

    @abstractmethod
    def squash(self, out: Array) -> Array:
        """C's raw linear outputs [..., A] float32 -> actions [..., A] float32 in the action space (paper, A.3).

        Written so that it takes a NumPy array (rollouts) and a torch tensor (dreams) alike.
        """

    @abstractmethod
    def explorer(self, rng: np.random.Generator, **options: Any) -> Policy:
        """A fresh random policy for one episode, a function of `rng` alone."""

    def disturb(self, act: np.ndarray, drift: np.ndarray, noise: float) -> np.ndarray:
        """An agent's actions [n, A], disturbed to explore.

        Args:
            drift: [n, A] slowly changing normal numbers of standard deviation `noise`.
            noise: more than 0.
        """
        low, high = self.action_bounds
        undecided = (low < act) & (act < high)  # a foot off the brake stays off: noise would only ever press it
        return np.where(undecided, np.clip(act + drift, low, high), act)

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest action, each [A] float32."""
        return -np.ones(self.spec.action_size, np.float32), np.ones(self.spec.action_size, np.float32)

    @property
    def description(self) -> Description:
        """What people are told of it."""
        name, size = self.spec.name, self.spec.action_size
        return Description(
            title=name,
            picture={"environment": f"of the world {name}, whose frames these are"},
            actions=tuple(f"action {index + 1}" for index in range(size)),
            press=(1.0,) * size,
            licence={"what": f"Pictures of {name}", "licence": "its makers'; ask them before you publish this page"},
        )

    def checked(self, drawing: str | None = None) -> Checked:
        """What `make` makes, with every mistake of the environment told as a sentence."""
        return Checked(self.make(drawing), self.spec.name, self.spec.max_steps)


class Checked(gymnasium.Wrapper):
    """An environment of a world whose every frame and reward is looked at before anything is made of it.

    What the environment prints is dropped: it would stand between the lines of whoever plays.

    Args:
        world: its name, for the sentence.
        max_steps: after which an episode has to be truncated; None for any length.
    Raises:
        WorldError: of `reset`, `step` and `render`: the environment raised.
        UserError: of the first two: a frame is not FRAME_SHAPE
            uint8, a reward is no finite number, or an episode goes on after `max_steps`.
    """

    def __init__(self, env: gymnasium.Env, world: str, max_steps: int | None = None):
        super().__init__(env)
        self._world, self._steps, self._max_steps = world, 0, max_steps
        self._seed: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._seed, self._steps = seed, 0
        frame, info = self._ask("reset", seed=seed, options=options)
        self._look(frame, 0.0)
        return frame, info

    def step(self, act: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self._steps += 1
        frame, rew, end, trunc, info = self._ask("step", act)
        self._look(frame, rew)
        if self._max_steps and self._steps >= self._max_steps and not (end or trunc):
            self._refuse("no end", f"an episode has to be truncated after {self._max_steps} steps, its world's limit")
        return frame, rew, end, trunc, info

    def render(self) -> Any:
        return self._ask("render")

    def _ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        try:
            with contextlib.redirect_stdout(_Nowhere()):
                return getattr(self.env, what)(*arguments, **options)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise WorldError(
                f"the world {self._world}, at step {self._steps} of the episode with seed {self._seed}: its {what} "
                f"raised {error_text(error)}"
            ) from error

    def _look(self, frame: Any, rew: Any) -> None:
        if not isinstance(frame, np.ndarray) or frame.shape != FRAME_SHAPE or frame.dtype != np.uint8:
            shape, kind = getattr(frame, "shape", "no shape"), getattr(frame, "dtype", type(frame).__name__)
            self._refuse(f"a frame of {shape} {kind}", f"frames have to be {FRAME_SHAPE} uint8, from 0 to 255")
        try:
            sound = math.isfinite(rew)
        except TypeError:
            sound = False
        if not sound:
            self._refuse(f"the reward {rew!r}", "a reward has to be a finite number")

    def _refuse(self, what: str, rule: str) -> NoReturn:
        raise UserError(
            f"the world {self._world} gave {what} at step {self._steps} of the episode with seed {self._seed}: {rule}; "
            "mend its environment, or put a wrapper around it in `make`"
        )


class _Nowhere(io.TextIOBase):
    """Takes what is printed, and keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def error_text(error: Exception) -> str:
    """An exception on one line: its kind, its words, and the line of code that raised it."""
    words = " ".join(str(error).split())[:300] or "without a word"
    trace = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(trace[-1].filename).name}, line {trace[-1].lineno})" if trace else ""
    return f"{type(error).__name__}: {words}{where}"


def check_picture(picture: Any, world: str) -> None:
    """Raises UserError where what an environment's `render()` gave is no picture [H, W, 3] uint8 that can be filmed."""
    shape: Any = getattr(picture, "shape", ())
    kind = getattr(picture, "dtype", None)
    if len(shape) != 3 or shape[2] != 3 or kind != np.uint8:
        given = f"{shape} {kind}" if shape else type(picture).__name__
        raise UserError(
            f"render() of the world {world} gave {given}, which is no picture: it has to be [height, width, 3] uint8: "
            "mend it, or set evaluate.videos to false"
        )
