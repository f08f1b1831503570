"""A world that is any Gymnasium environment: an entry of `worlds` in params.yaml names its id, and no code is needed.

    worlds:
      lander: {gym: LunarLander-v3, kwargs: {continuous: true}, solved: 200}
      pong:   {gym: ALE/Pong-v5, import: ale_py, crop: [34, 194, 0, 160], frame_skip: 4, max_steps: 2000}

Frames are the environment's image observations, or what it renders where its observations are no images; cropped, then
resized by area to what V sees. What its actions become is `wm.worlds.by_id.actions`'s to say.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
if "DISPLAY" not in os.environ and "WAYLAND_DISPLAY" not in os.environ:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before an environment imports pygame

import cv2
import gymnasium
import numpy as np
from gymnasium import spaces

from wm.core.errors import UserError, WorldError
from wm.worlds.base import FRAME_SHAPE, Spec, error_text
from wm.worlds.by_id.actions import ActionsWorld, actions_of

DISPLAYS = ("display", "x11", "glx", "egl", "opengl", "gladload", "video system")
"""Words of those who look for a display in vain."""
SMALLEST = 32
"""Height and width, in pixels, from which an observation counts as a picture of the world."""


class GymnasiumWorld(ActionsWorld):
    """The world `name`, played by a Gymnasium environment.

    Args:
        name: of the entry in `worlds`.
        gym: the environment's id.
        module: what is imported first, because it registers the id.
        kwargs: of `gymnasium.make`.
        crop: rows and columns of the picture that are kept: top, bottom, left, right.
        frame_skip: steps of the environment that one action lasts.
        max_steps: actions after which an episode is truncated, if the environment does not do so before; None for its
            own limit alone.
        solved: mean score from which it counts as solved; None for none.
    Raises:
        UserError: there is no such environment here, it cannot be made, or it has no pictures, no limit, or actions
            that C cannot write.
    """

    def __init__(
        self,
        *,
        name: str,
        gym: str,
        module: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        crop: list[int] | None = None,
        frame_skip: int = 1,
        max_steps: int | None = None,
        solved: float | None = None,
    ):
        self.name, self.gym, self.module, self.kwargs = name, gym, module, dict(kwargs or {})
        self.crop, self.frame_skip = crop, frame_skip
        env = self._make()
        self.actions = actions_of(env.action_space, name)
        self.pictures = is_picture(env.observation_space)
        limits = [steps for steps in (max_steps, _own_limit(env, frame_skip)) if steps]
        if not limits:
            raise UserError(f"{gym} never ends an episode by itself: set worlds.{name}.max_steps")
        self.spec = Spec(
            name=name,
            action_size=self.actions.size,
            max_steps=min(limits),
            drawings=("own",),
            controller_inputs=("z", "h", "c"),
            controller_bias=True,
            predicts_restart=False,
            solved=solved,
            fps=max(1, round((env.metadata.get("render_fps") or 30) / frame_skip)),
            symlog_rewards=True,
        )
        env.close()

    def _make(self) -> gymnasium.Env:
        where = f"worlds.{self.name}"
        try:
            if self.module:
                importlib.import_module(self.module)
            with contextlib.redirect_stdout(io.StringIO()):  # some greet
                return gymnasium.make(self.gym, render_mode="rgb_array", disable_env_checker=True, **self.kwargs)
        except ModuleNotFoundError as error:
            raise UserError(f"{where}: {error.name} is not installed: run `pip install {error.name}`") from None
        except gymnasium.error.Error as error:
            raise UserError(f"{where}.gym is {self.gym!r}, which Gymnasium does not make: {_line(error)}") from None
        except Exception as error:
            raise UserError(f"{where}: {self.gym} cannot be made: {error_text(error)}{_display(error)}") from None

    def make(self, drawing: str | None = None) -> gymnasium.Env:
        if drawing not in (None, *self.spec.drawings):
            raise ValueError(f"unknown drawing {drawing!r} of {self.name}: expected {self.spec.drawings[0]}")
        return Played(self._make(), self)


class Played(gymnasium.Wrapper):
    """An environment as rollouts play it: frames for V, actions of C, an action a few steps long, a limit.

    Raises:
        UserError: of `reset` and `step`: the environment raised, or its pictures are none that V can see.
    """

    def __init__(self, env: gymnasium.Env, world: GymnasiumWorld):
        super().__init__(env)
        self.world, self.steps = world, 0
        self.seed: int | None = None
        self.shape: Any = None
        self.observation_space = spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        self.action_space = spaces.Box(world.actions.low, world.actions.high, dtype=np.float32)
        self.last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self.seed, self.steps = seed, 0
        obs, info = self._ask("reset", seed=seed, options=options)
        return self._frame(obs), info

    def step(self, act: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        action, total = self.world.actions.decode(act), 0.0
        for _ in range(self.world.frame_skip):
            obs, rew, end, trunc, info = self._ask("step", action)
            total += float(rew)
            if end or trunc:
                break
        return self._frame(obs), total, bool(end), bool(trunc) or self.steps >= self.world.spec.max_steps, info

    def render(self) -> np.ndarray:
        """The environment's own picture; where it has none, the last observation."""
        picture = self.env.render()
        return self.last if picture is None else picture

    def _ask(self, what: str, *arguments: Any, **options: Any) -> tuple:
        try:
            return getattr(self.env, what)(*arguments, **options)
        except MemoryError:
            raise
        except Exception as error:
            raise WorldError(f"{self._where()} its {what} raised {error_text(error)}{_display(error)}") from error

    def _where(self) -> str:
        return f"the world {self.world.name}, at step {self.steps} of the episode with seed {self.seed}:"

    def _frame(self, obs: Any) -> np.ndarray:
        picture = obs if self.world.pictures else self._ask("render")
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim not in (2, 3):
            kind = f"{picture.shape} {picture.dtype}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise UserError(f"{self._where()} its picture is {kind}: expected [height, width, 3] uint8, from 0 to 255")
        if picture.ndim == 2 or picture.shape[2] == 1:
            picture = np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
        if picture.shape[2] != 3:
            raise UserError(
                f"{self._where()} its picture has {picture.shape[2]} channels: expected 3, red, green, blue"
            )
        if self.shape not in (None, picture.shape):
            raise UserError(f"{self._where()} its picture is {picture.shape}, and was {self.shape}: it has to stay")
        self.shape, self.last = picture.shape, picture
        if self.world.crop:
            picture = self._cropped(picture, self.world.crop)
        return cv2.resize(picture, FRAME_SHAPE[:2], interpolation=cv2.INTER_AREA)

    def _cropped(self, picture: np.ndarray, crop: list[int]) -> np.ndarray:
        top, bottom, left, right = crop
        if not (0 <= top < bottom <= picture.shape[0] and 0 <= left < right <= picture.shape[1]):
            raise UserError(
                f"worlds.{self.world.name}.crop is {self.world.crop} (top, bottom, left, right), and the picture is "
                f"{picture.shape[0]} high and {picture.shape[1]} wide"
            )
        return picture[top:bottom, left:right]


def is_picture(space: spaces.Space) -> bool:
    """Whether observations of this space are pictures of the world, rather than numbers or a code of tiles."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    return min(space.shape[:2]) >= SMALLEST and (len(space.shape) == 2 or space.shape[2] in (1, 3, 4))


def _own_limit(env: gymnasium.Env, frame_skip: int) -> int | None:
    """Actions after which the environment truncates by itself; None if it does not."""
    steps = env.spec.max_episode_steps if env.spec else None
    return math.ceil(steps / frame_skip) if steps else None


def _display(error: Exception) -> str:
    """What to do, where it is a display that an environment misses."""
    if not any(word in str(error).lower() for word in DISPLAYS):
        return ""
    return "; it needs a display: run the command under `xvfb-run -a`, or with MUJOCO_GL=egl where MuJoCo draws"


def _line(error: Exception) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split())[:300] or "without a word"
