"""A controller that imitates the earlier agent on what a new V and M make of its episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny_world
from wm.core import episodes
from wm.models.mdnrnn import MDNRNN, MDNConfig
from wm.play import agent as agents
from wm.search.imitation import BATCH, NEWEST, average, imitate

Z, H, A = 4, 8, 2


@pytest.fixture
def memory() -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(MDNConfig(hidden=H, mixtures=2), Z, A, False).eval()


def features(memory: MDNRNN, mu: np.ndarray, act: np.ndarray) -> np.ndarray:
    """[T, Z + H], step by step, one episode at a time."""
    agent = agents.Agent(vae=None, mdnrnn=memory, world=tiny_world.Tiny(), layout=None, inputs=("z", "h"))
    (h, c), rows = agent.initial_state(1), []
    for step, (z, a) in enumerate(zip(mu.astype(np.float32), act, strict=True)):
        rows.append(np.concatenate([z, h[0]]))
        h, c = agent.remember(z[None], a[None], h, c, np.float32([step == 0]))
    return np.stack(rows)


def write(folder, memory: MDNRNN, weights: np.ndarray, bias: np.ndarray) -> None:
    """Episodes of an agent "me", whose outputs are linear in what C would see, and of others."""
    rng, shard = np.random.default_rng(0), episodes.Shard(episodes.latent_columns(Z, A))
    for number in range(BATCH + 5):
        steps = int(rng.integers(20, 40))
        mu, act = rng.standard_normal((steps, Z)).astype(np.float16), rng.uniform(-1, 1, (steps, A)).astype(np.float32)
        mine = number % 3 > 0
        out = features(memory, mu, act) @ weights.T + bias if mine else np.full((steps, A), np.nan)
        columns = {"mu": mu, "logvar": mu, "act": act, "out": out.astype(np.float32)}
        nothing = {"rew": np.zeros(steps, np.float32), "end": np.zeros(steps, bool)}
        shard.add(columns | nothing, **({"actor": "me"} if mine else {"actor": "somebody"} if number % 2 else {}))
    entry = episodes.store_shard(folder, 0, *shard.finish())
    episodes.write_manifest(folder, "tiny", episodes.latent_columns(Z, A), [entry])


def test_a_map_that_is_linear_in_what_c_sees_is_found(tmp_path, memory):
    rng = np.random.default_rng(1)
    weights, bias = rng.standard_normal((A, Z + H)), rng.standard_normal(A)
    write(tmp_path, memory, weights, bias)
    spec = agents.controller_spec(tiny_world.Tiny(), memory, ("z", "h"))
    found = imitate(tmp_path, "me", memory, spec)
    mu, act = rng.standard_normal((30, Z)), rng.uniform(-1, 1, (30, A)).astype(np.float32)
    seen = features(memory, mu, act).astype(np.float32)
    expected = seen @ weights.T + bias
    outputs = spec.layout.apply(np.repeat(found[None], 30, 0), seen)
    assert found.dtype == np.float32
    assert np.abs(outputs - expected).mean() < 0.02 * np.abs(expected - expected.mean(0)).mean()


def test_who_drove_in_no_episode_cannot_be_imitated_nor_can_a_hidden_layer_imitate(tmp_path, memory):
    write(tmp_path, memory, np.ones((A, Z + H)), np.ones(A))
    linear, deep = (agents.controller_spec(tiny_world.Tiny(), memory, ("z",), hidden) for hidden in (0, 3))
    assert imitate(tmp_path, "nobody", memory, linear) is None
    assert imitate(tmp_path, "me", memory, deep) is None


def test_the_average_is_over_what_c_would_read_in_the_newest_episodes(tmp_path, memory, monkeypatch):
    write(tmp_path, memory, np.ones((A, Z + H)), np.ones(A))
    data = episodes.EpisodeSet(tmp_path)
    for newest in (7, NEWEST):
        monkeypatch.setattr("wm.search.imitation.NEWEST", newest)
        seen = [features(memory, *data.read(number, ["mu", "act"]).values()) for number in range(len(data))][-newest:]
        expected = np.concatenate(seen).astype(np.float64).mean(0)
        assert np.allclose(average(tmp_path, memory, ("z", "h")), expected, atol=1e-6)
