"""CarRacing: Gymnasium's own physics, track, reward and termination, with frames drawn straight to 64x64."""

from __future__ import annotations

import os
from functools import cache

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
if "DISPLAY" not in os.environ and "WAYLAND_DISPLAY" not in os.environ:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before Gymnasium imports pygame

import cv2
import gymnasium
import numpy as np
from Box2D.b2 import polygonShape
from gymnasium.envs.box2d import car_dynamics
from gymnasium.envs.box2d.car_racing import FPS
from gymnasium.envs.box2d.car_racing import CarRacing as GymnasiumCarRacing
from gymnasium.wrappers import TimeLimit

from wm.worlds.base import FRAME_SHAPE, Array, Description, Policy, Spec, World, tanh
from wm.worlds.car_racing.drawing import HEIGHT, Drawing

# Each new car hands new shapes to Box2D, which copies them, and pybox2d never frees them: 2.5 KB a reset.
# The same shapes, made once, serve every car.
_shape = cache(lambda vertices: polygonShape(vertices=vertices))
car_dynamics.polygonShape = lambda vertices: _shape(tuple(vertices))

SPEC = Spec(
    name="car_racing",
    action_size=3,
    max_steps=1000,
    drawings=("fast", "gymnasium"),
    controller_inputs=("z", "h"),
    controller_bias=True,
    predicts_restart=False,
    solved=900.0,
    fps=FPS,
    rewards=(-100.1, 20.0),  # off the field; four tiles of a short track in a step, where the car starts on three
    scores=(-200.0, 1000.0),  # 1,000 for all tiles, -0.1 a step, -100 off the field
    steady=True,
)


class FastCarRacing(GymnasiumCarRacing):
    """Gymnasium's `CarRacing-v3`, continuous, with frames [64, 64, 3] uint8; registered as `wm/CarRacing-v0`.

    An action is float32 [steer in [-1, 1], gas in [0, 1], brake in [0, 1]]. `render()` is Gymnasium's own.

    Args:
        drawing: "fast", or "gymnasium" for Gymnasium's own frame, cropped to rows 0..83 and resized by area.
        render_mode: as Gymnasium's; with "rgb_array", `render()` returns its picture [400, 600, 3] uint8.
        lap_complete_percent: share of tiles that makes a lap, as in Gymnasium.
    Raises:
        ValueError: drawing is unknown.
    """

    def __init__(self, render_mode: str | None = None, drawing: str = "fast", lap_complete_percent: float = 0.95):
        if drawing not in SPEC.drawings:
            expected = ", ".join(SPEC.drawings)
            raise ValueError(f"unknown drawing {drawing!r} of car_racing: expected one of {expected}")
        super().__init__(render_mode, lap_complete_percent=lap_complete_percent)
        self.observation_space = gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
        self._drawing = Drawing() if drawing == "fast" else None

    def _create_track(self) -> bool:
        done = super()._create_track()
        if done and self._drawing:
            self._drawing.lay(self.road_poly)
        return done

    def _render(self, mode: str) -> np.ndarray:
        if mode != "state_pixels":
            return super()._render(mode)
        if self._drawing:
            return self._drawing.draw(self.car, self.t)
        return cv2.resize(super()._render(mode)[:HEIGHT], FRAME_SHAPE[:2], interpolation=cv2.INTER_AREA)


class CarRacing(World):
    """The paper's CarRacing experiment (section 2)."""

    spec = SPEC

    def make(self, drawing: str | None = None) -> gymnasium.Env:
        """See `World.make`; `render()` of the environment is Gymnasium's 600x400 picture."""
        env = FastCarRacing(render_mode="rgb_array", drawing=drawing or self.spec.drawings[0])
        return TimeLimit(env, self.spec.max_steps)

    @property
    def description(self) -> Description:
        """A full brake locks the wheels, so that a key brakes with a part."""
        return Description(
            title="CarRacing",
            picture={"environment": "CarRacing-v3", "rows": [0, 84], "columns": [0, 96], "resize": "area"},
            actions=("steer", "gas", "brake"),
            press=(1.0, 1.0, 0.8),
            licence={
                "what": "Pictures of CarRacing",
                "licence": "Gymnasium, © Farama Foundation and OpenAI, MIT licence",
            },
        )

    @property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Steer, gas, brake: the lowest and the highest."""
        return np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)

    def squash(self, out: Array) -> Array:
        """[..., 3] -> steer = tanh, gas = (tanh + 1) / 2, brake = clip(tanh, 0, 1) (paper, A.3)."""
        act = tanh(out)
        act[..., 1] = (act[..., 1] + 1) / 2
        act[..., 2] = act[..., 2].clip(0, 1)
        return act

    def explorer(  # type: ignore[override]  # its options by name: those of params.yaml
        self,
        rng: np.random.Generator,
        *,
        smoothness: float = 0.9,
        gas_bias: float = -0.25,
        variety: float = 1.0,
    ) -> Policy:
        """A smooth random policy: an Ornstein-Uhlenbeck process through `squash`, its temper drawn once.

        One temper for all gives one kind of episode: strong steering slow circles, weak steering fast runs
        over the grass. With these defaults road was in 75% of the frames, the car on it in 20%, and the first
        and last tenths of its speeds lay below 9 and above 39 units a second.

        Args:
            rng: all its randomness.
            smoothness: correlation of the process with itself one step later, in [0, 1).
            gas_bias: mean of the process in gas, before squashing: 0 is half throttle.
            variety: how much the mean of gas and the strength of steering differ between episodes.
        """
        mean = np.array([0.0, gas_bias + 0.75 * variety * rng.uniform(-1, 1), -0.5])
        spread = np.array([0.7 + 0.5 * variety * rng.uniform(-1, 1), 0.7, 0.5])
        state = mean + spread * rng.standard_normal(3)

        def act(obs: np.ndarray) -> np.ndarray:
            nonlocal state
            noise = np.sqrt(1 - smoothness**2) * rng.standard_normal(3)
            state = mean + smoothness * (state - mean) + spread * noise
            return self.squash(state.astype(np.float32))

        return act
