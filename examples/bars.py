"""A world of your own, as small as one can be: a bar that the action moves. docs/world.md goes through it.

In params.yaml it is `own: examples/bars:BarsWorld`, with `code: examples/bars.py`.
"""

import wm  # noqa: F401  # isort: skip  before NumPy, whose kernels it chooses

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from wm.worlds import Spec, World


class Bars(gymnasium.Env):
    """A bar that the action moves; the reward is how near to the middle it is."""

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(8, 56)
        return self.render(), {}

    def step(self, act):
        self.at = float(np.clip(self.at + 4 * act[0] + self.np_random.normal(), 0, 63))
        return self.render(), 1 - abs(self.at - 32) / 32, self.at in (0.0, 63.0), False, {}

    def render(self):
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[:, int(self.at)] = 255
        return frame


class BarsWorld(World):
    """The same, with what V, M and C have to know of it."""

    spec = Spec(
        name="bars",
        action_size=1,
        max_steps=50,
        drawings=("plain",),
        controller_inputs=("z", "h"),
        controller_bias=True,
        predicts_restart=False,
        solved=40.0,
        fps=10,
    )

    def make(self, drawing=None):
        if drawing not in (None, "plain"):
            raise ValueError(f"unknown drawing {drawing!r}")
        return TimeLimit(Bars(), self.spec.max_steps)

    def squash(self, out):
        return np.tanh(out) if isinstance(out, np.ndarray) else out.tanh()

    def explorer(self, rng, **options):
        return lambda obs: rng.uniform(-1, 1, 1).astype(np.float32)
