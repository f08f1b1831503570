"""V: the convolutional variational auto-encoder that compresses a frame to z (paper, section 2.1 and A.1).

Shapes: B batch, Z latent. Frames are uint8 [B, 64, 64, 3] outside; inside they are folded, [B, 32, 32, 12] (see
`wm.models.convolutions`), and float in [0, 1]. The layers are PyTorch's own; how a CPU computes them is
`wm.models.convolutions`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from wm.core import weights
from wm.core.config import Config
from wm.models import parts
from wm.models.convolutions import (
    fold,
    folded_conv,
    folded_deconv,
    relu_fold,
    relu_spread,
    spread,
    window_conv,
    window_deconv,
)


class VAEConfig(Config):
    """The shape of V."""

    z_size: int = Field(32, gt=0, le=1024, description="Z, length of the latent vector (paper: 32; DoomTakeCover 64)")
    kl_tolerance: float = Field(
        0.5, ge=0, description="free nats per latent dimension: the KL term is max(KL, tolerance*Z)"
    )
    focus: float = Field(
        0.0,
        ge=0,
        description="how often the fourth power of an error counts beside its square: small things of high contrast (a "
        "fireball far away) come before textures; 0 is the paper's loss",
    )


class VAE(nn.Module):
    """Encoder of four strided convolutions, decoder of four transposed ones; 4,348,547 parameters at Z = 32."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2),
            nn.ReLU(),  # 64 -> 31
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(),  # -> 14
            nn.Conv2d(64, 128, 4, 2),
            nn.ReLU(),  # -> 6
            nn.Conv2d(128, 256, 4, 2),
            nn.ReLU(),  # -> 2
        )
        self.mu = nn.Linear(1024, config.z_size)
        self.logvar = nn.Linear(1024, config.z_size)
        self.decoder_in = nn.Linear(config.z_size, 1024)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(1024, 128, 5, 2),
            nn.ReLU(),  # 1 -> 5
            nn.ConvTranspose2d(128, 64, 5, 2),
            nn.ReLU(),  # -> 13
            nn.ConvTranspose2d(64, 32, 6, 2),
            nn.ReLU(),  # -> 30
            nn.ConvTranspose2d(32, 3, 6, 2),  # -> 64
        )
        self.to(memory_format=torch.channels_last)

    def encode(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """obs [B, 64, 64, 3] uint8 -> mu, logvar, each [B, Z]: the posterior N(mu, exp(logvar))."""
        x = obs.permute(0, 3, 1, 2).to(torch.float32).mul_(1.0 / 255.0)
        if x.device.type == "cpu":  # going one way only, the plain layers are fast enough to be spared the folding
            for layer in self.encoder[:6:2]:
                x = F.conv2d(x, layer.weight, layer.bias, stride=2).relu_()
            last = self.encoder[6]
            x = window_conv(x.permute(0, 2, 3, 1), last.weight, last.bias).relu_().permute(0, 3, 1, 2)
        else:
            x = self.encoder(x)
        flat = x.flatten(1)
        return self.mu(flat), self.logvar(flat)

    def decode(self, z: Tensor) -> Tensor:
        """z [B, Z] -> frames [B, 64, 64, 3] uint8."""
        unit = torch.sigmoid(self._decode_logits(z))
        return spread((unit * 255.0).round_().to(torch.uint8))

    def errors(self, obs: Tensor, z: Tensor) -> Tensor:
        """What `loss` calls the reconstruction's error, of each of the frames obs [B, 64, 64, 3] uint8, drawn from z
        [B, Z]: [B]."""
        squares = (torch.sigmoid(self._decode_logits(z)) - _to_unit(obs)).square_().flatten(1)
        total = squares.sum(1)
        return total + self.config.focus * squares.square_().sum(1) if self.config.focus else total

    def loss(self, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error (and `focus` times its square) summed over pixels and channels plus max(KL, tolerance*Z), both
        averaged over the batch.

        Args:
            obs: [B, 64, 64, 3] uint8.
            generator: where the posterior's noise comes from.
        Returns:
            the loss to minimise, and {"reconstruction", "kl"} as detached scalars.
        """
        eps = torch.randn((len(obs), self.config.z_size), generator=generator, device=obs.device)
        where = parts.slices(len(obs), parts.count(len(obs), obs.device))
        loss, metrics = parts.summed(
            lambda part: self._loss(obs[part], eps[part], len(obs)), where, list(self.parameters())
        )
        return loss, {name: sum(each[name] for each in metrics) for name in metrics[0]}

    def _loss(self, obs: Tensor, eps: Tensor, batch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """What some frames of a batch contribute to `loss`; eps [frames, Z] standard normal."""
        unit = _to_unit(obs)
        mu, logvar = self._posterior(unit)
        z = torch.addcmul(mu, (0.5 * logvar).exp(), eps)
        reconstruction = SigmoidError.apply(self._decode_logits(z), unit, self.config.focus) / batch
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)
        free = kl.clamp_min(self.config.kl_tolerance * self.config.z_size).sum() / batch
        return reconstruction + free, {"reconstruction": reconstruction.detach(), "kl": kl.detach().sum() / batch}

    def _posterior(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Folded frames [B, 32, 32, 12] -> mu, logvar, each [B, Z]."""
        if unit.device.type == "cpu":
            first, _, second, _, third, _, last, _ = self.encoder
            x = relu_fold(folded_conv(unit, first.weight, first.bias))
            x = relu_fold(folded_conv(x, second.weight, second.bias))
            x = folded_conv(x, third.weight, third.bias).relu_()
            features = window_conv(x, last.weight, last.bias).relu_().permute(0, 3, 1, 2)
        else:
            features = self.encoder(spread(unit).permute(0, 3, 1, 2))
        flat = features.flatten(1)
        return self.mu(flat), self.logvar(flat)

    def _decode_logits(self, z: Tensor) -> Tensor:
        """z [B, Z] -> folded frames before the sigmoid, [B, 32, 32, 12]."""
        x = self.decoder_in(z)
        if z.device.type == "cpu":
            first, _, second, _, third, _, last = self.decoder
            x = window_deconv(x[:, None, None], first.weight, first.bias).relu_()
            x = window_deconv(x, second.weight, second.bias).relu_()
            x = relu_spread(folded_deconv(x, third.weight, third.bias))
            return folded_deconv(x, last.weight, last.bias)
        return fold(self.decoder(x[:, :, None, None]).permute(0, 2, 3, 1).contiguous())


class SigmoidError(torch.autograd.Function):
    """Sum of e^2 + focus e^4, e = sigmoid(logits) - target, with its gradient (2 e + 4 focus e^3) p (1 - p) made while
    everything is at hand."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, focus: float = 0.0) -> Tensor:
        p = torch.sigmoid(logits)
        error = p - target
        flat = error.flatten()
        total = torch.dot(flat, flat)
        if focus:
            squares = error.square()
            total += focus * squares.square().sum()
            error *= squares.mul_(2.0 * focus).add_(1.0)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.ops.aten.sigmoid_backward.grad_input(error, p, grad_input=error))
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (half,) = ctx.saved_tensors
        return half * (2.0 * grad_output), None, None


def _to_unit(obs: Tensor) -> Tensor:
    """uint8 [B, 64, 64, 3] -> folded float [B, 32, 32, 12] in [0, 1]."""
    return fold(obs).to(torch.float32).mul_(1.0 / 255.0)


def save_vae(vae: VAE, world: str, folder: Path) -> None:
    """Writes vae.safetensors and vae.json into `folder`."""
    weights.save(folder, weights.VAE_KIND, vae.state_dict(), {"world": world, "config": vae.config.model_dump()})


def load_vae(folder: Path) -> VAE:
    """V from `folder`, in evaluation mode. Raises DamagedData where a file is not what its checksum says."""
    about, tensors = weights.load(folder, weights.VAE_KIND)
    return weights.fill(VAE(VAEConfig(**about["config"])), tensors)
