"""How surprising frames are to V and to M: against plain PyTorch, and what is kept as the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import distributions

from wm.core import episodes, weights
from wm.core.errors import DamagedData
from wm.models import surprise
from wm.models.mdnrnn import MDNRNN, MDNConfig
from wm.models.surprise import Reference
from wm.models.vae import VAE, VAEConfig

Z, A = 4, 2


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("focus", [0.0, 100.0])
def test_to_v_it_is_the_error_of_plain_layers_whatever_the_neighbours(focus):
    torch.manual_seed(1)
    vae = VAE(VAEConfig(z_size=Z, focus=focus)).eval()
    obs = frames(7)
    errors, means = surprise.to_v(vae, obs, 3)
    unit = torch.from_numpy(obs).permute(0, 3, 1, 2) / 255.0
    with torch.no_grad():
        mu = vae.mu(vae.encoder(unit).flatten(1))
        e = torch.sigmoid(vae.decoder(vae.decoder_in(mu)[:, :, None, None])).double() - unit
    np.testing.assert_allclose(means, mu, atol=1e-5)
    np.testing.assert_allclose(errors, (e**2 + focus * e**4).sum((1, 2, 3)), rtol=1e-5)
    assert errors.dtype == np.float32 and np.array_equal(surprise.to_v(vae, obs[3:6], 3)[0], errors[3:6])


def test_to_m_it_is_the_likelihood_of_torchs_mixture_step_by_step(monkeypatch):
    torch.manual_seed(2)
    monkeypatch.setattr(surprise, "SLICE", 4)
    memory = MDNRNN(MDNConfig(hidden=6, mixtures=3), Z, A, True).eval()
    mu, act = (np.random.default_rng(3).normal(0, 1, (11, size)).astype(np.float32) for size in (Z, A))
    expected, state = [], memory.initial_state(1)
    with torch.no_grad():
        for t in range(10):
            z, done = torch.from_numpy(mu[t : t + 1]), torch.from_numpy(act[t : t + 1])
            state = memory.step(z, done, state, torch.tensor([float(t == 0)]))
            log_pi, mean, log_sigma = (part[0].T for part in memory.heads(state[0])[0])  # [Z, K]
            each = distributions.Normal(mean, log_sigma.exp())
            mixture = distributions.MixtureSameFamily(distributions.Categorical(logits=log_pi), each)
            expected.append(-mixture.log_prob(torch.from_numpy(mu[t + 1])).sum().item())
    np.testing.assert_allclose(surprise.to_m(memory, mu, act), expected, rtol=1e-4)
    assert surprise.to_m(memory, mu[:1], act[:1]).shape == (0,), "of a first frame M says nothing"


def test_a_percentile_is_the_share_of_steps_that_are_less_surprising():
    known = Reference(np.array([4.0, 1.0, 3.0, np.nan, 2.0], np.float32), np.zeros(5, np.int32))
    told = known.percentile(np.array([0.5, 1.0, 1.5, 4.0, 9.0, np.nan]))
    np.testing.assert_array_equal(told, [0, 0, 25, 75, 100, np.nan])
    nothing = Reference(np.zeros(0, np.float32), np.zeros(0, np.int32))
    assert np.isnan(nothing.percentile(np.array([1.0]))).all()


def test_a_reference_keeps_its_steps_and_their_episodes_and_damage_is_named(tmp_path):
    parts = {9: np.array([1.5, 2.5]), 29: np.array([]), 19: np.array([0.5])}
    Reference.of(parts).save(tmp_path, weights.SURPRISE_M_KIND, "tiny")
    again = Reference.load(tmp_path, weights.SURPRISE_M_KIND)
    assert again.values.tolist() == [1.5, 2.5, 0.5] and again.episode.tolist() == [9, 9, 19]
    assert again.values.dtype == np.float32 and again.episode.dtype == np.int32
    path = tmp_path / "surprise_m.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(DamagedData, match=r"surprise_m\.safetensors is damaged"):
        Reference.load(tmp_path, weights.SURPRISE_M_KIND)


@pytest.mark.parametrize(
    ("count", "length", "expected"),
    [(4, 10, [3]), (40, 10, [9, 19, 29, 39]), (40, 30, [9, 29]), (40, 60, [9]), (40, 200, [9])],
)
def test_whole_held_out_episodes_up_to_a_number_of_steps(tmp_path, monkeypatch, count, length, expected):
    monkeypatch.setattr(surprise, "MOST_STEPS", 60)
    lines = [{"length": length} for _ in range(count)]
    episodes.write_manifest(tmp_path, "tiny", (), [{"file": "none", "sha256": "", "bytes": 0, "episodes": lines}])
    assert surprise.chosen(episodes.EpisodeSet(tmp_path)) == expected
