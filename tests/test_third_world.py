"""A world of somebody else's: one file of theirs, one line to register it, and the contract holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tiny_world

from wm import worlds
from wm.core.episodes import EpisodeSet
from wm.worlds.contract import check_world

ROOT = Path(__file__).parent.parent

THIRD = '''
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


class Third(World):
    spec = Spec(name="third", action_size=1, max_steps=50, drawings=("plain",), controller_inputs=("z", "h"),
                controller_bias=True, predicts_restart=False, solved=40.0, fps=10)

    def make(self, drawing=None):
        if drawing not in (None, "plain"):
            raise ValueError(f"unknown drawing {drawing!r}")
        return TimeLimit(Bars(), self.spec.max_steps)

    def squash(self, out):
        return np.tanh(out) if isinstance(out, np.ndarray) else out.tanh()

    def explorer(self, rng, **options):
        return lambda obs: rng.uniform(-1, 1, 1).astype(np.float32)
'''


def test_a_third_world_is_one_file_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "third_world.py").write_text(THIRD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(worlds, "_REGISTRY", dict(worlds._REGISTRY))
    worlds.register("third", "third_world:Third")  # the one line
    try:
        assert "third" in worlds.names()
        check_world(worlds.get("third"))
    finally:
        worlds.get.cache_clear()
        sys.modules.pop("third_world", None)


def test_a_world_is_an_entry_of_params_yaml_and_workers_know_it_too(project):
    """Nothing else is written: the stage's processes and those that play learn it from there."""
    Path("mine").mkdir()
    Path("mine/third.py").write_text(THIRD)
    text = tiny_world.PARAMS.replace("tiny_world:Tiny", "mine/third:Third").replace("code: tiny_world.py", "code: mine")
    Path("params.yaml").write_text(
        text.replace("tiny:\n    own", "third:\n    own").replace("world: tiny", "world: third")
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WM_WORKERS": "2"}
    words = [sys.executable, "-m", "wm", "collect", "tiny"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    data = EpisodeSet(project / "runs/tiny/collect")
    assert data.world == "third" and len(data) == 12
