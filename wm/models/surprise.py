"""How surprising a frame is: to V, which has to draw it, and to M, which has to foresee it (paper, 2.1, 2.2 and A.2).

To V it is as surprising as the error of its own loss at the posterior's mean mu: the sum over pixels and channels of
e^2 + focus e^4. To M it is -log p(mu), in nats, summed over the Z dimensions, where mu is V's mean of the frame, after
all that M was shown (V's means too) and all that was done; of an episode's first frame M says nothing. No number is
drawn.

What both are on held-out episodes of a model's own data is kept as a reference beside V's latents and beside M.

T steps of an episode, Z latent, A action, N steps of a reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wm.core import weights
from wm.core.episodes import EpisodeSet
from wm.core.errors import DamagedData
from wm.models.mdnrnn import MDNRNN, log_likelihood
from wm.models.vae import VAE

MOST_STEPS = 10_000
"""Of a reference: 80 KB a file. To draw more would take `encode` as long as its own work, and how sure a percentile is
depends on the number of episodes first."""
SLICE = 256
"""Steps whose mixtures exist at once."""


@dataclass(frozen=True)
class Reference:
    """What held-out episodes are to V, or to M.

    Attributes:
        values: surprise of each step, [N] float32.
        episode: the index, in the data set, of the episode that each step belongs to, [N] int32.
    """

    values: np.ndarray
    episode: np.ndarray

    @classmethod
    def of(cls, parts: dict[int, np.ndarray]) -> Reference:
        """Index of an episode -> surprise of its steps."""
        empty = np.zeros(0, np.float32)
        indices = np.repeat(np.array(list(parts), np.int32), [len(part) for part in parts.values()])
        return cls(np.concatenate([empty, *parts.values()]).astype(np.float32), indices)

    def percentile(self, values: np.ndarray) -> np.ndarray:
        """Of values [...], in percent of the reference's steps that are less surprising; NaN for NaN."""
        known = np.sort(self.values[np.isfinite(self.values)])
        below = np.searchsorted(known, values, side="left") * (100.0 / max(1, len(known)))
        return np.where(np.isfinite(values) & (len(known) > 0), below, np.nan)

    def of_episodes(self) -> Reference:
        """The same of episodes: the mean over each one's steps."""
        indices = np.unique(self.episode)
        means = [self.values[self.episode == index].mean() for index in indices]
        return Reference(np.array(means, np.float32), indices)

    def save(self, folder: Path, kind: str, world: str) -> None:
        """Writes `<kind>.safetensors` and `<kind>.json`; kind is of `weights.SURPRISE_KINDS`."""
        tensors = {"values": torch.from_numpy(self.values), "episode": torch.from_numpy(self.episode)}
        weights.save(folder, kind, tensors, {"world": world})

    @classmethod
    def load(cls, folder: Path, kind: str) -> Reference:
        """What `save` wrote.

        Raises:
            DamagedData: a file is missing, or not what its checksum says.
        """
        _, tensors = weights.load(folder, kind)
        if set(tensors) != {"values", "episode"} or tensors["values"].shape != tensors["episode"].shape:
            raise DamagedData(f"{kind}.safetensors in {folder} must hold values and episode [N]: run the stage again")
        return cls(tensors["values"].numpy(), tensors["episode"].numpy())


def chosen(data: EpisodeSet) -> list[int]:
    """The held-out episodes that a reference is made of: all of them, or every second, third, … where all have more
    than `MOST_STEPS` steps. The same ones for V as for M, since latents have the episodes of their frames."""
    held_out, length = data.held_out, [episode["length"] for episode in data.episodes]
    for every in range(1, len(held_out)):
        part = held_out[::every]
        if sum(length[index] for index in part) <= MOST_STEPS:
            return part
    return held_out[:1]


@torch.inference_mode()
def to_v(vae: VAE, obs: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames obs [T, 64, 64, 3] uint8 -> their surprise [T] float32, and V's means [T, Z] float32.

    Args:
        batch: frames at once, always as many, since another number may change the last bits.
    """
    device = next(vae.parameters()).device
    frames = np.concatenate([obs, np.zeros((-len(obs) % batch, *obs.shape[1:]), np.uint8)])
    errors, means = [], []
    for start in range(0, len(frames), batch):
        part = torch.from_numpy(frames[start : start + batch]).to(device)
        mu, _ = vae.encode(part)
        means.append(mu.cpu())
        errors.append(vae.errors(part, mu).cpu())
    return torch.cat(errors)[: len(obs)].numpy(), torch.cat(means)[: len(obs)].numpy()


@torch.inference_mode()
def to_m(memory: MDNRNN, mu: np.ndarray, act: np.ndarray) -> np.ndarray:
    """An episode's V means mu [T, Z] and actions act [T, A] -> surprise of its frames from the second on, [T - 1]
    float32. M is on the CPU."""
    steps = len(mu) - 1
    if steps < 1:
        return np.zeros(0, np.float32)
    h, following = states(memory, mu[:steps], act[:steps]), torch.from_numpy(np.array(mu[1:], np.float32))
    parts = [of_next(memory, h[t : t + SLICE], following[t : t + SLICE]) for t in range(0, steps, SLICE)]
    return torch.cat(parts).numpy()


@torch.inference_mode()
def states(memory: MDNRNN, mu: np.ndarray, act: np.ndarray) -> Tensor:
    """M's h [T, H] after each step from an episode's start: V's means mu [T, Z], actions act [T, A]."""
    z, done = (torch.from_numpy(np.array(array, np.float32))[:, None] for array in (mu, act))
    restart = torch.zeros(len(z), 1)
    restart[0] = 1.0
    return memory.lstm.unroll(memory.inputs(z, done, restart), memory.initial_state(1), restart)[0][:, 0]


def of_next(memory: MDNRNN, h: Tensor, mu: Tensor) -> Tensor:
    """-log p(mu) of the next frame's mu [..., Z] where M's state is h [..., H] -> [...]."""
    return -log_likelihood(memory.heads(h)[0], mu).sum(-1)
