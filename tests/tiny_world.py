"""A world so small that the whole line runs in seconds: a square on a line, to be held on a mark.

Run as a program, it is `python -m wm` with this world known, in worker processes too:
`python tests/tiny_world.py train_vae tiny`; several commands are separated by `--`.
"""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from wm import worlds
from wm.worlds.base import FRAME_SHAPE, Array, Policy, Spec, World, tanh

SPEC = Spec(
    name="tiny",
    action_size=2,
    max_steps=30,
    drawings=("fast", "slow"),
    controller_inputs=("z", "h"),
    controller_bias=True,
    predicts_restart=False,
    solved=20.0,
    fps=10,
)


class TinyEnv(gymnasium.Env):
    """act[0] pushes the square, act[1] does nothing; +1 on the mark, -0.1 off it; the end is where it falls off."""

    observation_space = gymnasium.spaces.Box(0, 255, FRAME_SHAPE, np.uint8)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.wind = self.np_random.uniform(-0.6, 0.6), self.np_random.uniform(-0.05, 0.05)
        return self._frame(), {}

    def step(self, act):
        self.at += 0.1 * float(act[0]) + self.wind
        rew = 1.0 if abs(self.at) < 0.2 else -0.1
        return self._frame(), rew, abs(self.at) > 1.0, False, {}

    def render(self):
        return self._frame()

    def _frame(self) -> np.ndarray:
        frame = np.zeros(FRAME_SHAPE, np.uint8)
        frame[30:34, 26:38, 1] = 80
        column = int(np.clip(28 + 28 * self.at, 0, 56))
        frame[28:36, column : column + 8, 0] = 255
        return frame


class Tiny(World):
    spec = SPEC

    def make(self, drawing: str | None = None) -> gymnasium.Env:
        if drawing not in (None, *SPEC.drawings):
            raise ValueError(f"unknown drawing {drawing!r}")
        return TimeLimit(TinyEnv(), SPEC.max_steps)

    def squash(self, out: Array) -> Array:
        return tanh(out)

    def explorer(self, rng: np.random.Generator, **options: float) -> Policy:
        return lambda obs: rng.uniform(-1, 1, 2).astype(np.float32)


worlds.register("tiny", "tiny_world:Tiny")

PARAMS = """\
worlds:
  tiny:
    own: tiny_world:Tiny
experiments:
  tiny:
    collect: {episodes: 12, episodes_per_job: 4, slots: 3}
    train_vae: {steps: 12, batch: 4, learning_rate: 1.0e-3, report_every: 2, held_out_every: 4,
                pool_episodes: 2, threads: 1, model: {z_size: 4}}
    encode: {batch: 16, threads: 1}
    train_mdn: {steps: 30, batch: 4, length: 8, report_every: 5, held_out_every: 10, threads: 1,
                model: {hidden: 8, mixtures: 2}}
    evolve: {population: 4, generations: 5, episodes: 2, rescore_every: 2, rescore_episodes: 2, episodes_per_job: 4,
             slots: 2, centre: true, hard_episodes: 1, final_episodes: 3}
    evaluate: {episodes: 3, episodes_per_job: 2, slots: 2}
models:
  tiny: {experiment: tiny, world: tiny, code: tiny_world.py, after: zero, actor: zero, seed: 3}
  tiny-2: {experiment: tiny, world: tiny, code: tiny_world.py, after: tiny, actor: tiny, seed: 3}
agents:
  tiny: {experiment: tiny, world: tiny, code: tiny_world.py, model: tiny, after: zero, tau: 1.0, seed: 3}
  tiny-2: {experiment: tiny, world: tiny, code: tiny_world.py, model: tiny-2, after: tiny, tau: 1.0, seed: 3}
"""

if __name__ == "__main__":
    from wm.cli import main

    words = " ".join(sys.argv[1:]).split(" -- ")
    sys.exit(next(filter(None, (main(command.split()) for command in words)), 0))
