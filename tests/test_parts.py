"""A batch in parts: the same loss, gradients, state and metrics as in one piece, and the same bits every time."""

from __future__ import annotations

import pytest
import torch

from wm.mdnrnn import MDNRNN, MDNConfig, Sequences
from wm.vae import VAE, VAEConfig


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def flat(value) -> list[torch.Tensor]:
    return [value] if torch.is_tensor(value) else [leaf for part in value for leaf in flat(part)]


def vae_step():
    torch.manual_seed(0)
    vae = VAE(VAEConfig())
    obs = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    loss, metrics = vae.loss(obs, torch.Generator().manual_seed(1))
    (2.0 * loss).backward()
    return loss.detach(), list(metrics.values()), [parameter.grad for parameter in vae.parameters()]


def mdnrnn_step():
    torch.manual_seed(0)
    model = MDNRNN(MDNConfig(hidden=12), 4, 2, True)
    posterior = [torch.randn(5, 12, 4) for _ in range(2)]
    flags = [(torch.rand(5, 11) < p).float() for p in (0.2, 0.2, 0.7)]
    act, rew = torch.randn(5, 11, 2), torch.randn(5, 11)
    batch = Sequences(*posterior, act, rew, *flags)
    state = torch.randn(5, 12), torch.randn(5, 12)
    loss, metrics, carried = model.loss(batch, state, torch.Generator().manual_seed(1))
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    return loss.detach(), list(metrics.values()), list(carried), gradients


@pytest.mark.parametrize("step", [vae_step, mdnrnn_step])
def test_two_parts_are_the_whole(threads, step):
    threads(1)
    whole = flat(step())
    threads(2)
    halves, again = flat(step()), flat(step())
    for one, two, once_more in zip(whole, halves, again, strict=True):
        assert (one - two).norm() <= 2e-3 * one.norm()  # a unit of V's that is nearly 0 may fall on either side of it
        assert torch.equal(two, once_more)
    assert torch.get_num_threads() == 2
