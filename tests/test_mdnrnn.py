"""M: the mixture against a naive loop and torch.distributions, sampling's moments, the loss, and Bishop's example."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from examples.mixture_density import curve, fit, inverse_sinusoid
from wm.models.mdnrnn import (
    LOG_SIGMA_FLOOR,
    MDNRNN,
    HeadsLoss,
    MDNConfig,
    Mixture,
    Sequences,
    load_mdnrnn,
    log_likelihood,
    sample,
    save_mdnrnn,
    split_mixture,
)

K, Z = 5, 4


def outputs(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(*shape, 3 * K * Z, generator=generator, dtype=torch.float64)


def naive(out: Tensor, z: Tensor) -> Tensor:
    """log p(z) [Z] of one vector, with Python's floats."""
    values = out.reshape(3, K, Z).tolist()
    result = []
    for d in range(Z):
        logits, means, log_sigmas = ([row[d] for row in part] for part in values)
        total = sum(math.exp(a) for a in logits)
        density = 0.0
        for logit, mu, log_sigma in zip(logits, means, log_sigmas, strict=True):
            sigma = math.exp(max(log_sigma, LOG_SIGMA_FLOOR))
            kernel = math.exp(-0.5 * ((z[d].item() - mu) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
            density += math.exp(logit) / total * kernel
        result.append(math.log(density))
    return torch.tensor(result, dtype=torch.float64)


@pytest.mark.parametrize(
    ("z_size", "actions", "restart", "hidden", "count"), [(32, 3, False, 256, 422_368), (64, 1, True, 512, 1_678_785)]
)
def test_parameters(z_size, actions, restart, hidden, count):
    done = z_size == 64  # DoomTakeCover's M predicts the end; CarRacing's, in the paper, nothing but z
    config = MDNConfig(hidden=hidden, reward_head=False, done_head=done)
    assert sum(p.numel() for p in MDNRNN(config, z_size, actions, restart).parameters()) == count


def test_likelihood_is_the_naive_loops_and_torchs():
    out, z = outputs(20), torch.randn(20, Z, dtype=torch.float64)
    mixture = split_mixture(out, K, Z)
    ours = log_likelihood(mixture, z)
    torch.testing.assert_close(
        ours, torch.stack([naive(*row) for row in zip(out, z, strict=True)]), rtol=1e-9, atol=1e-9
    )
    single = log_likelihood(split_mixture(out.float(), K, Z), z.float())
    assert ((single - ours).abs() / ours.abs().clamp_min(1)).max() < 1e-5
    last = [part.transpose(-1, -2) for part in mixture]
    theirs = MixtureSameFamily(Categorical(logits=last[0]), Normal(last[1], last[2].exp())).log_prob(z)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def mixture_loss(out: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """The training loss of the mixture alone, of outputs that are given."""
    config = MDNConfig(mixtures=K, reward_head=False, done_head=False)
    identity = torch.eye(out.shape[-1], dtype=out.dtype)
    return HeadsLoss.apply(out, identity, torch.zeros_like(identity[0]), z, mask, None, None, config)[0]


@pytest.mark.parametrize("rows", [3, HeadsLoss.ROWS + 5])
def test_training_loss_is_the_masked_mean_of_the_likelihood(rows):
    out, z = outputs(rows).requires_grad_(True), torch.randn(rows, Z, dtype=torch.float64)
    mask = (torch.rand(rows) < 0.7).double()
    mask[0] = 1.0
    loss = mixture_loss(out, z, mask)
    expected = -(log_likelihood(split_mixture(out, K, Z), z) * mask[:, None]).sum() / (mask.sum() * Z)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(3.0 * value, out)[0] for value in (loss, expected)))


def test_training_loss_at_the_floor_and_far_away_is_finite():
    out = torch.zeros(2, 3, K, Z)
    out[:, 2] = -20.0
    out[0, 0, 0], out[1, 1] = 500.0, 1e3
    out = out.flatten(1).requires_grad_(True)
    loss = mixture_loss(out, torch.zeros(2, Z), torch.ones(2))
    loss.backward()
    assert loss.isfinite() and out.grad.isfinite().all()
    assert not out.grad.unflatten(1, (3, K, Z))[:, 2].any()  # held at the floor


def test_no_target_at_all_is_no_loss():
    assert mixture_loss(outputs(3), torch.zeros(3, Z).double(), torch.zeros(3).double()) == 0


@pytest.mark.parametrize("tau", [0.3, 1.0, 1.3])
def test_samples_have_the_moments_of_the_mixture_at_that_temperature(tau):
    mixture = split_mixture(outputs(1).float() * 0.6, K, Z)
    many = Mixture(*(part.expand(200_000, K, Z) for part in mixture))
    draws = sample(many, tau, torch.Generator().manual_seed(1)).double()
    pi = torch.softmax(mixture.log_pi[0].double() / tau, 0)
    mu, variance = mixture.mu[0].double(), tau * (2 * mixture.log_sigma[0].double()).exp()
    mean = (pi * mu).sum(0)
    spread = (pi * (variance + mu**2)).sum(0) - mean**2
    fourth = (pi * ((mu - mean) ** 4 + 6 * (mu - mean) ** 2 * variance + 3 * variance**2)).sum(0)
    assert ((draws.mean(0) - mean).abs() < 5 * (spread / len(draws)).sqrt()).all()
    assert ((draws.var(0) - spread).abs() < 5 * ((fourth - spread**2) / len(draws)).sqrt()).all()


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="tau must be positive, not 0"):
        sample(split_mixture(outputs(1), K, Z), 0)


def batch(sequences: int, steps: int) -> Sequences:
    torch.manual_seed(2)
    mu, logvar = torch.randn(2, sequences, steps + 1, Z)
    flags = [(torch.rand(sequences, steps) < p).float() for p in (0.1, 0.1, 0.9)]
    return Sequences(mu, logvar - 2, torch.randn(sequences, steps, 2), torch.randn(sequences, steps), *flags)


def test_the_loss_is_what_single_steps_and_autograd_say():
    window, state = batch(3, 10), (torch.randn(3, 12), torch.randn(3, 12))
    model = MDNRNN(MDNConfig(hidden=12, reward_weight=0.7), Z, 2, True)
    loss, metrics, carried = model.loss(window, state, torch.Generator().manual_seed(5))
    eps = torch.randn(3, 11, Z, generator=torch.Generator().manual_seed(5))
    z = window.mu + (window.logvar / 2).exp() * eps
    total, h, c = torch.zeros(3), *state
    for t in range(10):
        keep = 1 - window.restart[:, t, None]
        h, c = model.step(z[:, t], window.act[:, t], (h * keep, c * keep), window.restart[:, t])
        mixture, reward, done = model.heads(h)
        observed = window.has_next.sum() * Z
        nll = -(log_likelihood(mixture, z[:, t + 1]).sum(1) * window.has_next[:, t]).sum() / observed
        error = (reward - window.rew[:, t]).square().sum() / 30
        p = torch.sigmoid(done)
        end = window.end[:, t]
        entropy = -(10 * end * p.log() + (1 - end) * (1 - p).log()).sum() / 30
        total = total + torch.stack([nll, error, entropy])
    torch.testing.assert_close(torch.stack([metrics["nll"], metrics["reward"], metrics["done"]]), total.detach())
    torch.testing.assert_close(carried, (h.detach(), c.detach()))
    total = total * torch.tensor([1.0, 0.7, 1.0])
    torch.testing.assert_close(loss, total.sum())
    parameters = list(model.parameters())
    gradients = (torch.autograd.grad(value, parameters) for value in (loss, total.sum()))
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine - theirs).norm() < 1e-4 * theirs.norm()


def test_files_keep_every_bit(tmp_path):
    model = MDNRNN(MDNConfig(hidden=8), Z, 2, True)
    save_mdnrnn(model, "car_racing", tmp_path)
    again = load_mdnrnn(tmp_path)
    assert (again.config, again.z_size, again.action_size, again.reads_restart) == (model.config, Z, 2, True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_sinusoid_on_its_side_needs_a_mixture():
    """Bishop 1994, section 5: one mean cannot be three branches; a mixture finds all of them."""
    x, y = inverse_sinusoid(600, seed=0)
    mixture, plain = fit(x, y, steps=700, seed=0)
    held_x, held_y = inverse_sinusoid(600, seed=1)
    with torch.no_grad():
        ours = log_likelihood(mixture(held_x), held_y).mean()
        spread = (plain(x) - y).std()
        theirs = Normal(plain(held_x), spread).log_prob(held_y).mean()
        draws = sample(mixture(torch.full((2000, 1), 0.0)), 1.0, torch.Generator().manual_seed(0)).flatten()
    assert ours > theirs + 0.8
    ys = torch.linspace(-1, 1, 20001)
    branches = ys[:-1][(curve(ys)[:-1] <= 0) != (curve(ys)[1:] <= 0)]
    distance = (draws[:, None] - branches).abs()
    assert len(branches) == 5 and (distance.amin(1) < 0.15).float().mean() > 0.9
    assert torch.bincount(distance.argmin(1), minlength=5).min() > 100
