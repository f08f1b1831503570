"""`draw`, the sampler of the next z at a temperature, against a plain loop and the distribution's own function."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from wm.models.mdnrnn import Mixture, draw, split_mixture

B, K, Z = 40, 5, 7
TAUS = [0.1, 1.0, 1.3]


def mixtures(rows: int, seed: int = 0) -> Mixture:
    """Mixtures [rows, K, Z] as M gives them, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return split_mixture(torch.randn(rows, 3 * K * Z, generator=generator, dtype=torch.float64), K, Z)


def plain(weights: list[float], means: list[float], deviations: list[float], tau: float, uniform: float, eps: float):
    """One number, as one would write it down: the paper's A.2 with Python's own floats."""
    heated = [weight ** (1 / tau) for weight in weights]  # softmax(log pi / tau), before its sum is 1
    k, left = 0, uniform * sum(heated)
    while left > heated[k]:
        k, left = k + 1, left - heated[k]
    return means[k] + deviations[k] * math.sqrt(tau) * eps


@pytest.mark.parametrize("tau", TAUS)
def test_every_number_is_that_of_a_plain_loop(tau):
    mixture, rng = mixtures(B), np.random.default_rng(1)
    uniform, eps = torch.from_numpy(rng.random((B, Z))), torch.from_numpy(rng.standard_normal((B, Z)))
    found = draw(mixture, tau, uniform, eps)
    assert found.shape == (B, Z)
    pi, mu, sigma = mixture.log_pi.exp(), mixture.mu, mixture.log_sigma.exp()
    for b, z in np.ndindex(B, Z):
        parts = (part[b, :, z].tolist() for part in (pi, mu, sigma))
        expected = plain(*parts, tau, float(uniform[b, z]), float(eps[b, z]))
        assert float(found[b, z]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("tau", TAUS)
def test_many_draws_have_the_distribution_of_the_mixture_at_tau(tau):
    """Weights softmax(log pi / tau), deviations sigma sqrt(tau): Kolmogorov and Smirnov's test of each dimension."""
    count, rng, mixture = 20_000, np.random.default_rng(2), mixtures(1)
    uniform, eps = torch.from_numpy(rng.random((count, Z))), torch.from_numpy(rng.standard_normal((count, Z)))
    found = draw(Mixture(*(part.expand(count, K, Z) for part in mixture)), tau, uniform, eps).numpy()
    weight = torch.softmax(mixture.log_pi[0] / tau, dim=0).numpy()
    mu, sigma = mixture.mu[0].numpy(), mixture.log_sigma[0].exp().numpy() * math.sqrt(tau)
    for z in range(Z):

        def distribution(x, z=z):
            return (weight[:, z] * stats.norm.cdf(x[:, None], mu[:, z], sigma[:, z])).sum(1)

        assert stats.kstest(found[:, z], distribution).pvalue > 1e-4


def test_the_ends_of_the_uniform_numbers_are_the_first_and_the_last_component():
    mixture, nothing = mixtures(1), torch.zeros(1, Z, dtype=torch.float64)
    first, last = (draw(mixture, 1.0, nothing + end, nothing) for end in (0.0, 1.0 - 1e-12))
    assert torch.equal(first, mixture.mu[:, 0]) and torch.equal(last, mixture.mu[:, -1])
