"""V against a plain reading of the paper's table (A.1), in PyTorch's own layers, and what its files keep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm.models import convolutions
from wm.models.vae import VAE, SigmoidError, VAEConfig, load_vae, save_vae


class PlainVAE(nn.Module):
    """The same parameters by the same names, nothing rearranged."""

    def __init__(self, z_size: int):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(),
            nn.Conv2d(64, 128, 4, 2),
            nn.ReLU(),
            nn.Conv2d(128, 256, 4, 2),
            nn.ReLU(),
        )
        self.mu, self.logvar, self.decoder_in = (
            nn.Linear(1024, z_size),
            nn.Linear(1024, z_size),
            nn.Linear(z_size, 1024),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(1024, 128, 5, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 5, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 6, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 6, 2),
            nn.Sigmoid(),
        )

    def posterior(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        flat = self.encoder(unit).flatten(1)
        return self.mu(flat), self.logvar(flat)

    def decoded(self, z: Tensor) -> Tensor:
        return self.decoder(self.decoder_in(z)[:, :, None, None])

    def loss(self, obs: Tensor, noise: Tensor) -> Tensor:
        unit = obs.permute(0, 3, 1, 2).to(noise.dtype) / 255
        mu, logvar = self.posterior(unit)
        reconstruction = F.mse_loss(self.decoded(mu + (0.5 * logvar).exp() * noise), unit, reduction="sum") / len(obs)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)
        return reconstruction + kl.clamp_min(0.5 * noise.shape[1]).mean()


def both(z_size: int = 32, seed: int = 0) -> tuple[VAE, PlainVAE]:
    """With layers scaled so that signals and gradients neither fade nor blow up on the way through."""
    torch.manual_seed(seed)
    ours, plain = VAE(VAEConfig(z_size=z_size)), PlainVAE(z_size)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(2.0)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def frames(count: int, seed: int = 0) -> Tensor:
    """Smooth images, as frames are."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(noise, 64, mode="bilinear") * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize(("z_size", "count"), [(32, 4_348_547), (64, 4_446_915)])
def test_parameters(z_size, count):
    assert sum(p.numel() for p in VAE(VAEConfig(z_size=z_size)).parameters()) == count


def test_encodes_and_decodes_as_the_plain_layers():
    ours, plain = both()
    obs = frames(5)
    mu, logvar = ours.encode(obs)
    plain_mu, plain_logvar = plain.posterior(obs.permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(mu, plain_mu, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logvar, plain_logvar, rtol=1e-4, atol=1e-5)
    z = torch.randn(5, 32)
    decoded = ours.decode(z)
    assert decoded.dtype == torch.uint8 and decoded.shape == (5, 64, 64, 3)
    expected = (plain.decoded(z) * 255).permute(0, 2, 3, 1)
    assert (decoded - expected).abs().max() <= 0.5 + 1e-3


def test_loss_and_every_gradient_agree_with_autograd_through_the_plain_layers():
    ours, plain = both()
    obs, noise = frames(6), torch.randn(6, 32, generator=torch.Generator().manual_seed(3))
    loss, metrics = ours.loss(obs, torch.Generator().manual_seed(3))
    expected = plain.loss(obs, noise)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert metrics["reconstruction"] > 0 and metrics["kl"] > 0
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        difference = (mine.grad - theirs.grad).norm() / theirs.grad.norm()
        assert difference < 1e-4, f"{name}: {difference}"


def test_gradients_agree_to_the_last_digits_in_double_precision():
    ours, plain = (model.double() for model in both(seed=1))
    unit = frames(3).permute(0, 3, 1, 2).double() / 255
    folded = convolutions.fold(unit.permute(0, 2, 3, 1).contiguous())

    def decoded(z: Tensor) -> Tensor:
        return convolutions.spread(torch.sigmoid(ours._decode_logits(z))).permute(0, 3, 1, 2)

    for model, frames_of in ((ours, decoded), (plain, plain.decoded)):
        mu, logvar = model._posterior(folded) if model is ours else model.posterior(unit)
        (frames_of(mu + logvar.exp()) - unit).square().sum().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert (mine.grad - theirs.grad).norm() < 1e-12 * theirs.grad.norm(), name


@pytest.mark.parametrize("layer", ["folded_conv", "window_conv", "folded_deconv", "window_deconv"])
@pytest.mark.parametrize("size", [8, 14])
def test_a_layer_of_stride_two_is_the_plain_layer(layer, size):
    transposed = "deconv" in layer
    image = torch.randn(2, size, size, 3, dtype=torch.float64, requires_grad=True)
    shape = (3, 5, 6, 6) if transposed else (5, 3, 4, 4)
    weight, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (shape, (5,)))
    ours = getattr(convolutions, layer)(convolutions.fold(image) if layer == "folded_conv" else image, weight, bias)
    ours = convolutions.spread(ours) if layer == "folded_deconv" else ours
    plain = (F.conv_transpose2d if transposed else F.conv2d)(image.permute(0, 3, 1, 2), weight, bias, stride=2)
    plain = plain.permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, plain)
    probe = torch.randn_like(plain)
    leaves = (image, weight, bias)
    gradients = (torch.autograd.grad(value, leaves, probe) for value in (ours, plain))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("size", [6, 7])
def test_relu_with_folding(size):
    image = torch.randn(2, size, size, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolutions.relu_fold, image)
    even = image[:, : size // 2 * 2, : size // 2 * 2].relu()
    torch.testing.assert_close(convolutions.spread(convolutions.relu_fold(image)), even)


def test_relu_with_spreading():
    folded = torch.randn(2, 3, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolutions.relu_spread, folded)
    torch.testing.assert_close(convolutions.fold(convolutions.relu_spread(folded)), folded.relu())


@pytest.mark.parametrize("focus", [0.0, 100.0])
def test_error_of_a_sigmoid(focus):
    logits = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(SigmoidError.apply, (logits, target, focus))
    assert torch.autograd.gradcheck(SigmoidError.apply, (logits.detach().T.requires_grad_(), target.T, focus))
    squares = F.mse_loss(torch.sigmoid(logits), target, reduction="none")
    torch.testing.assert_close(SigmoidError.apply(logits, target, focus), (squares + focus * squares**2).sum())


def test_focus_reaches_the_loss():
    obs = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    plain = VAE(VAEConfig(z_size=8))
    focused = VAE(VAEConfig(z_size=8, focus=100.0))
    focused.load_state_dict(plain.state_dict())
    first, second = (model.loss(obs, torch.Generator().manual_seed(0))[1] for model in (plain, focused))
    assert second["kl"] == first["kl"]
    assert second["reconstruction"] > 2 * first["reconstruction"]


def test_kl_below_the_free_nats_costs_them():
    vae, _ = both()
    torch.nn.init.zeros_(vae.mu.weight), torch.nn.init.zeros_(vae.mu.bias)
    torch.nn.init.zeros_(vae.logvar.weight), torch.nn.init.zeros_(vae.logvar.bias)
    loss, metrics = vae.loss(frames(2), torch.Generator().manual_seed(0))
    assert metrics["kl"] == 0
    torch.testing.assert_close(loss - metrics["reconstruction"], torch.tensor(16.0), rtol=1e-4, atol=0)


def test_files_keep_every_bit(tmp_path):
    vae, _ = both()
    save_vae(vae, "car_racing", tmp_path)
    again = load_vae(tmp_path)
    assert again.config == vae.config
    assert torch.equal(again.encode(frames(3))[0], vae.encode(frames(3))[0])
