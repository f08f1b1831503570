"""The dream: its fused step against a plain reading of the paper, and what its scores may not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm import dream as engine
from wm.controller import Layout
from wm.dream import Dream, EpisodeNoise, draw
from wm.mdnrnn import MDNRNN, MDNConfig

Z, H, STEPS = 6, 20, 40
INPUTS = {"z": Z, "h": H, "c": H}


class Squashing:
    """All that the engine asks of a world."""

    def squash(self, out: np.ndarray) -> np.ndarray:
        return np.tanh(out, dtype=np.float32)


def make(seed: int = 0, *, inputs=("z", "h"), actions: int = 2, bias: bool = True, hidden: int = 0,
         restart: bool = False, reward: str = "head", done_bias: float = -0.8, mixtures: int = 5, **options
         ) -> tuple[Dream, MDNRNN]:
    torch.manual_seed(seed)
    mdnrnn = MDNRNN(MDNConfig(hidden=H, mixtures=mixtures, reward_head=reward == "head"), Z, actions, restart)
    torch.nn.init.normal_(mdnrnn.mixture.weight, 0, 0.7)
    torch.nn.init.normal_(mdnrnn.done.weight, 0, 1.0)
    torch.nn.init.constant_(mdnrnn.done.bias, done_bias)
    mdnrnn.eval().requires_grad_(False)
    layout = Layout(inputs=sum(INPUTS[name] for name in inputs), actions=actions, bias=bias, hidden=hidden)
    starts = torch.randn(9, Z), torch.randn(9, Z) - 2
    options = {"tau": 1.1, "max_steps": STEPS, **options}
    return Dream(mdnrnn, starts, Squashing(), layout, inputs, reward=reward, **options), mdnrnn


def candidates(dream: Dream, count: int, scale: float = 0.5) -> np.ndarray:
    return np.random.default_rng(3).normal(0, scale, (count, dream.layout.size)).astype(np.float32)


def plain(dream: Dream, mdnrnn: MDNRNN, params: np.ndarray, seed: int) -> tuple[float, int]:
    """One episode of one candidate, line by line as the paper's pseudo-code."""
    noise = EpisodeNoise(seed, Z)
    z, (h, c), score = noise.start(dream.mu, dream.logvar)[None], mdnrnn.initial_state(1), 0.0
    for step in range(dream.max_steps):
        states = {"z": z, "h": h, "c": c}
        features = torch.cat([states[name] for name in dream.inputs], dim=1).numpy()
        act = torch.from_numpy(dream.world.squash(dream.layout.apply(params[None], features)))
        h, c = mdnrnn.step(z, act, (h, c), torch.tensor([float(step == 0)]))
        mixture, reward, done = mdnrnn.heads(h)
        uniform, eps = torch.from_numpy(noise.block(step // engine.NOISE_STEPS)[step % engine.NOISE_STEPS])
        z = draw(mixture, dream.tau, uniform[None], eps[None])
        score += 1.0 if dream.reward == "survival" else float(reward)
        if done > 0:
            break
    return score, step + 1


@pytest.mark.parametrize("options", [
    {},
    {"inputs": ("z", "c", "h"), "actions": 1, "bias": False, "restart": True, "reward": "survival"},
    {"inputs": ("z",), "hidden": 7, "mixtures": 1},
    {"inputs": ("h", "z"), "tau": 0.1, "max_steps": 70, "done_bias": -0.3},
], ids=["car_racing", "take_cover", "hidden_layer", "cold"])
def test_fused_step_agrees_with_the_plain_one(options):
    dream, mdnrnn = make(**options)
    params, seeds = candidates(dream, 5), [11, 12, 13]
    scores, lengths = dream.scores(params, seeds)
    for p, e in np.ndindex(scores.shape):
        score, length = plain(dream, mdnrnn, params[p], seeds[e])
        assert length == lengths[p, e]
        assert scores[p, e] == pytest.approx(score, abs=1e-4)
    assert len(np.unique(lengths)) > 3
