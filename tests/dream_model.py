"""A model made by hand, whose dream is known: for tests and examples that need one before any was trained.

z[0] walks at random with a drift of +0.1 a step, and the action pushes it by 0.3; the dream is over when its
mean goes beyond 2. So doing nothing ends after some twenty steps, and the action -1 lives to the end. Where the world
has other rewards than survival, that of a step is z[0]'s mean there.
"""

from __future__ import annotations

from pathlib import Path

import torch

from wm import worlds
from wm.core import weights
from wm.models.mdnrnn import MDNRNN, MDNConfig, save_mdnrnn
from wm.models.vae import VAE, VAEConfig, save_vae

Z, H, K = 4, 8, 2
DRIFT, PUSH, SIGMA, EDGE = 0.1, 0.3, 0.15, 2.0
SCALE = 0.05  # of z[0] in h[0], small enough for tanh to be straight


@torch.no_grad()
def write_model(folder: Path, world: str = "take_cover") -> Path:
    """Writes train_vae/ and train_mdn/ into `folder` and returns it."""
    torch.manual_seed(0)
    spec = worlds.get(world).spec
    config = MDNConfig(hidden=H, mixtures=K, reward_head=world != "take_cover")
    mdnrnn = MDNRNN(config, Z, spec.action_size, spec.predicts_restart)
    lstm, (i, f, g, o) = mdnrnn.lstm, range(0, 4 * H, H)
    for weight in mdnrnn.parameters():
        weight.zero_()
    lstm.bias[i : i + H], lstm.bias[f : f + H], lstm.bias[o : o + H] = 20.0, -20.0, 20.0
    lstm.weight_x[0, g], lstm.weight_x[Z, g], lstm.bias[g] = SCALE, SCALE * PUSH, SCALE * DRIFT
    mean, log_sigma = K * Z, 2 * K * Z  # where they start in the mixture's output, component by component
    for k in range(K):
        mdnrnn.mixture.weight[mean + k * Z, 0] = 1.0 / SCALE
        mdnrnn.mixture.bias[mean + k * Z + 1 : mean + (k + 1) * Z] = 2.0 * k - 1.0
    mdnrnn.mixture.bias[log_sigma:] = torch.tensor(SIGMA).log()
    mdnrnn.done.weight[0, 0], mdnrnn.done.bias[0] = 1.0 / SCALE, -EDGE
    if mdnrnn.reward:
        mdnrnn.reward.weight[0, 0] = 1.0 / SCALE
    save_mdnrnn(mdnrnn, world, folder / "train_mdn")
    starts = {"mu": 0.2 * torch.randn(20, Z), "logvar": torch.full((20, Z), -4.0)}
    weights.save(folder / "train_mdn", weights.STARTS_KIND, starts, {"world": world})
    save_vae(VAE(VAEConfig(z_size=Z)), world, folder / "train_vae")
    return folder
