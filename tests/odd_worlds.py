"""Environments of other people's, each with one thing wrong. `gymnasium.make("Odd-v0", fault=…)`."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

SHAPE = (48, 40, 3)


class Odd(gymnasium.Env):
    """A bar that moves where it is told; what `fault` names happens at the second step, if nothing else is said."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Box(0, 255, SHAPE, np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, fault: str = "", render_mode: str | None = None):
        self.fault, self.render_mode, self.steps = fault, render_mode, 0
        if fault == "display":
            import pygame

            pygame.display.quit()
            before, os.environ["SDL_VIDEODRIVER"] = os.environ.get("SDL_VIDEODRIVER", "dummy"), "x11"
            try:
                pygame.display.init()
            finally:
                os.environ["SDL_VIDEODRIVER"] = before
        if fault == "thread":
            threading.Thread(target=threading.Event().wait, name="left behind").start()
        if fault == "process":
            subprocess.Popen(["sleep", "60"])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.at = 0, int(self.np_random.integers(4, 36))
        if self.fault == "reset" or (self.fault == "broken" and Path(f"broken-{seed}").exists()):
            raise RuntimeError("out of tracks")
        return self._frame(), {}

    def step(self, action):
        self.steps += 1
        self.at = int(np.clip(self.at + 2 * (action - 1), 2, 37))
        if self.fault == "print":
            print("chatter")
        if self.fault == "unseeded":
            self.at = int(np.random.randint(4, 36))
        if self.fault == "step" and self.steps > 1:
            raise ValueError("a wheel fell off")
        rew = {"nan": float("nan"), "inf": float("inf")}.get(self.fault, 0.1) if self.steps > 1 else 0.1
        if self.fault == "":
            rew = 0.01 * self.at
        return self._frame(), rew, self.fault == "once", self.steps == 20 and self.fault != "endless", {}

    def render(self):
        return self._frame() / 255.0 if self.fault == "picture" else self._frame()

    def _frame(self) -> np.ndarray:
        frame = np.zeros(SHAPE, np.uint8)
        frame[:, self.at - 2 : self.at + 2] = 255
        if self.steps <= 1:
            return frame
        return {
            "float": frame / 255.0, "rgba": np.repeat(frame[..., :1], 4, 2), "changing": frame[:30],
            "grey": frame[..., 0],
        }.get(self.fault, frame)  # fmt: skip


gymnasium.register("Odd-v0", Odd, max_episode_steps=20)
gymnasium.register("Endless-v0", Odd)
