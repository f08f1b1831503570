"""An untrained agent of the tiny world, whole in one folder, for tests that need no score.

C has a hidden layer and reads c too, M has no reward head and reads the restart flag: what the built-in agents lack.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_world  # noqa: F401  registers it
import torch

from wm import worlds
from wm.core import weights
from wm.models.controller import save_controller
from wm.models.mdnrnn import MDNRNN, MDNConfig, save_mdnrnn
from wm.models.vae import VAE, VAEConfig, save_vae
from wm.play import agent as agents

Z, H, A = 4, 8, 2
INPUTS = ("z", "c", "h")


def write(folder: Path) -> Path:
    """Writes V, M, C and first frames into `folder` and returns it."""
    torch.manual_seed(0)
    mdnrnn = MDNRNN(MDNConfig(hidden=H, mixtures=3, reward_head=False), Z, A, True)
    save_vae(VAE(VAEConfig(z_size=Z)), "tiny", folder)
    save_mdnrnn(mdnrnn, "tiny", folder)
    layout = agents.layout(worlds.get("tiny"), mdnrnn, INPUTS, hidden=5)
    params = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    save_controller(params, layout, "tiny", INPUTS, folder, sampled=False, tau=None)
    write_starts("tiny", Z, folder)
    return folder


def write_starts(world: str, size: int, folder: Path) -> None:
    """Seven first frames of `size` latents, where dreams start."""
    starts = {"mu": torch.randn(7, size), "logvar": torch.zeros(7, size)}
    weights.save(folder, weights.STARTS_KIND, starts, {"world": world})
