"""The worlds as Gymnasium environments: its own checker, several at once, and the drop-in for `CarRacing-v3`."""

from __future__ import annotations

import os
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

import wm.gym  # noqa: F401  registers them
from wm.gym import vector

IDS = [name for name in gymnasium.registry if name.startswith("wm/") and name != "wm/Dream-v0"]  # that needs a model
MOST_APART = 2.0
"""Levels of 255 by which a frame of the drop-in may differ from Gymnasium's on average."""


def test_all_ids_are_looked_at():
    assert set(IDS) == {"wm/CarRacing-v0", "wm/CarRacing96-v3", "wm/TakeCover-v0"}


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_passes(name):
    for options in ({"continuous": False}, {}) if name == "wm/CarRacing96-v3" else ({},):
        env = gymnasium.make(name, **options)
        with warnings.catch_warnings(record=True):
            check_env(env.unwrapped, skip_render_check=True)
        env.close()


@pytest.mark.parametrize("continuous", [True, False])
def test_the_drop_in_is_gymnasiums_car_racing_with_the_same_frames(continuous):
    ours, theirs = (gymnasium.make(name, continuous=continuous) for name in ("wm/CarRacing96-v3", "CarRacing-v3"))
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    mine, seen = ours.reset(seed=4)[0], theirs.reset(seed=4)[0]
    apart, dashboards = [], []
    for _ in range(70):
        act = np.array([rng.uniform(-0.6, 0.6), 0.4, 0.0], np.float32) if continuous else int(rng.integers(5))
        (mine, *told, _), (seen, *expected, _) = ours.step(act), theirs.step(act)
        assert told == expected and mine.shape == seen.shape and mine.dtype == seen.dtype
        difference = np.abs(mine.astype(int) - seen)
        apart.append(difference[:84].mean())
        dashboards.append(difference[84:].max())
    assert max(apart) < MOST_APART and max(dashboards) <= 2
    ours.close(), theirs.close()


def test_colours_drawn_by_lot_are_left_to_gymnasium():
    ours, theirs = (gymnasium.make(name, domain_randomize=True) for name in ("wm/CarRacing96-v3", "CarRacing-v3"))
    assert np.array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    ours.close(), theirs.close()


@pytest.mark.parametrize("name", ["wm/CarRacing-v0", "wm/TakeCover-v0"])
def test_several_at_once_are_each_the_same_as_one_alone(name):
    several = gymnasium.make_vec(name, num_envs=2)
    alone = [gymnasium.make(name) for _ in range(2)]
    frames, _ = several.reset(seed=[5, 6])
    assert all(
        np.array_equal(frame, env.reset(seed=5 + i)[0])
        for i, (frame, env) in enumerate(zip(frames, alone, strict=True))
    )
    rng = np.random.default_rng(1)
    for _ in range(12):
        acts = rng.uniform(-1, 1, several.action_space.shape).astype(np.float32).clip(several.action_space.low)
        frames, rews, ends, truncs, _ = several.step(acts)
        for place, env in enumerate(alone):
            frame, rew, end, trunc, _ = env.step(acts[place])
            assert np.array_equal(frames[place], frame) and rews[place] == rew
            assert (ends[place], truncs[place]) == (end, trunc)
    several.close()
    [env.close() for env in alone]


def test_one_core_plays_them_one_after_another(monkeypatch):
    monkeypatch.setenv("WM_WORKERS", "1")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS has none
    several = vector.car_racing(num_envs=2)
    assert isinstance(several, SyncVectorEnv)
    several.close()


def test_ppo_of_stable_baselines3_takes_make_vec():
    pytest.importorskip("stable_baselines3")
    from bench.ppo import learn

    found = learn(steps=256, places=2, seed=0)
    assert found["steps"] == 256
