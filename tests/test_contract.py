"""The contract of a world: one that keeps it passes, and each broken promise is found and said in a sentence."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from tiny_world import SPEC, Tiny, TinyEnv

from wm.worlds.contract import check_world


class AnyDrawing(Tiny):
    def make(self, drawing=None):
        return TimeLimit(TinyEnv(), SPEC.max_steps)


class Shorter(Tiny):
    def make(self, drawing=None):
        super().make(drawing)
        return TimeLimit(TinyEnv(), 3)


class Stubborn(Tiny):
    def explorer(self, rng, **options):
        own = np.random.default_rng(0)
        return lambda obs: own.uniform(-1, 1, 2).astype(np.float32)


class Careless(Tiny):
    def squash(self, out):
        return np.tanh(out, out=out) if isinstance(out, np.ndarray) else out.tanh()


class Wide(Tiny):
    def squash(self, out):
        return 2 * super().squash(out)


class SameEpisode(TinyEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=0)


class Remembering(TinyEnv):
    at = 0.0

    def reset(self, *, seed=None, options=None):
        before = self.at
        super().reset(seed=seed)
        self.at += 0.1 * before
        return self._frame(), {}


class NumpyEnd(TinyEnv):
    def step(self, act):
        obs, rew, end, trunc, info = super().step(act)
        return obs, rew, np.bool_(end), trunc, info


class Paid(gymnasium.Wrapper):
    def step(self, act):
        obs, rew, end, trunc, info = super().step(act)
        return obs, rew + 1, end, trunc, info


class DrawingPays(Tiny):
    def make(self, drawing=None):
        env = super().make(drawing)
        return Paid(env) if drawing == "slow" else env


def world_of(env: type[TinyEnv]) -> Tiny:
    class Other(Tiny):
        def make(self, drawing=None):
            super().make(drawing)
            return TimeLimit(env(), SPEC.max_steps)

    return Other()


BROKEN = {
    "an unknown drawing is made": (AnyDrawing(), "expected a ValueError"),
    "an episode ends too early": (Shorter(), "trunc is True at step 3"),
    "exploration is always the same": (Stubborn(), "explorer ignores rng"),
    "squash writes into its argument": (Careless(), "squash changes its argument"),
    "actions leave their space": (Wide(), "is outside"),
    "all seeds are one": (world_of(SameEpisode), "the seed changes nothing"),
    "an episode depends on the one before": (world_of(Remembering), "a second episode of the same seed differs"),
    "an end is no bool": (world_of(NumpyEnd), "no bools"),
    "a drawing pays more": (DrawingPays(), "changes rewards or ends"),
}


def test_a_world_that_keeps_it_passes():
    check_world(Tiny())


def test_where_python_leaves_assertions_out_nothing_passes_for_checked():
    script = "from wm.worlds import contract; contract.check_world(None)"
    done = subprocess.run([sys.executable, "-O", "-c", script], text=True, capture_output=True)
    assert "UserError: Python leaves the checks of a world out here: unset PYTHONOPTIMIZE" in done.stderr


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_a_sentence(promise):
    world, sentence = BROKEN[promise]
    with pytest.raises(AssertionError, match=sentence):
        check_world(world)
