"""train_vae: V learns to compress frames (paper, section 2.1 and A.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from wm.core import journal, seeds, verdicts, weights
from wm.core.checkpoints import Tensors
from wm.core.episodes import EpisodeSet
from wm.core.workspace import Workspace
from wm.models.vae import VAE, VAEConfig, load_vae, save_vae
from wm.pictures import decoration, figures, mosaics
from wm.stages.training import TrainConfig, fit

HELD_OUT_FRAMES = 512
HELD_OUT_CHUNK = 64


class TrainVAEConfig(TrainConfig):
    """V and its training."""

    model: VAEConfig = Field(VAEConfig(), description="the shape of V")
    accept: list[str] = Field([], description="checks of the data that may fail: names as in the data's checks.json")
    pool_episodes: int = Field(16, gt=0, description="episodes in memory at once, from whose frames batches are drawn")

    @field_validator("accept")
    @classmethod
    def _known(cls, accept: list[str]) -> list[str]:
        for name in accept:
            if name not in verdicts.DATA:
                raise ValueError(f"holds {name!r}: expected some of {', '.join(verdicts.DATA)}")
        return accept


class VAETask:
    """Batches of frames from a pool of episodes; see `wm.stages.training.Task`."""

    def __init__(self, model: VAE, data: EpisodeSet, config: TrainVAEConfig, seed: int):
        self.model, self.data, self.config = model.to(config.device), data, config
        self.rng = seeds.generator(seed, seeds.Purpose.TRAIN_VAE, len(data))
        self.noise = seeds.torch_generator(seed, seeds.Purpose.TRAIN_VAE, len(data), 1, device=config.device)
        self.waiting: list[int] = []  # episodes not yet seen in this pass
        self.pool: list[int] = []
        self.order = np.empty(0, np.int64)
        self.taken = 0
        self.seed = seed

    def step(self) -> tuple[Tensor, dict[str, Tensor], str]:
        if self.taken + self.config.batch > len(self.order):
            self._refill()
        index = np.sort(self.order[self.taken : self.taken + self.config.batch])  # sorted: reads go forward in memory
        self.taken += len(index)
        obs = torch.from_numpy(self.frames[index]).to(self.config.device)
        loss, metrics = self.model.loss(obs, self.noise)
        return loss, metrics, f"a batch of frames of episodes {self.pool}"

    @torch.inference_mode()
    def held_out(self) -> dict[str, float]:
        noise = seeds.torch_generator(self.seed, seeds.Purpose.TRAIN_VAE, 2, device=self.config.device)
        frames = held_out_frames(self.data, HELD_OUT_FRAMES)
        sums: dict[str, float] = {}
        for start in range(0, len(frames), HELD_OUT_CHUNK):
            obs = torch.from_numpy(frames[start : start + HELD_OUT_CHUNK]).to(self.config.device)
            loss, metrics = self.model.loss(obs, noise)
            for name, value in {"loss": loss, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(obs) / len(frames)
        return sums

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {"noise": self.noise.get_state().numpy(), "order": self.order}
        return tensors, {
            "rng": self.rng.bit_generator.state,
            "waiting": self.waiting,
            "pool": self.pool,
            "taken": self.taken,
        }

    def restore(self, tensors: Tensors, state: dict[str, Any]) -> None:
        self.noise.set_state(torch.from_numpy(tensors["noise"]))
        self.rng.bit_generator.state = state["rng"]
        self.waiting, self.pool, self.taken, self.order = (
            state["waiting"],
            state["pool"],
            state["taken"],
            tensors["order"],
        )
        self._load()

    def _refill(self) -> None:
        pool: list[int] = []
        frames = 0
        while len(pool) < self.config.pool_episodes or frames < self.config.batch:
            if not self.waiting:
                if pool and frames >= self.config.batch:
                    break
                self.waiting = self.rng.permutation(self.data.training).tolist()
            pool.append(self.waiting.pop())
            frames += self.data.episodes[pool[-1]]["length"]
        self.pool, self.taken = pool, 0
        self._load()
        self.order = self.rng.permutation(len(self.frames))

    def _load(self) -> None:
        self.frames = None  # let the last pool go before the next one comes
        self.frames = np.concatenate([self.data.read(index, ["obs"])["obs"] for index in self.pool])


def train_vae(
    config: TrainVAEConfig, world: str, seed: int, data: Path, previous: Path, workspace: Workspace
) -> dict[str, float]:
    """Trains V on `data`, from the last round's V in `previous` if there is one.

    Raises:
        DamagedData: a shard or the earlier model is not whole; before any training.
        UserError: the loss is not finite, the earlier V has another shape, or the data fail a check.
    """
    torch.set_num_threads(config.threads)
    verdicts.require(data, config.accept)
    episodes = EpisodeSet(data)
    episodes.verify()
    torch.manual_seed(seeds.sequence(seed, seeds.Purpose.TRAIN_VAE, 3).generate_state(1)[0])
    if weights.exists(previous, weights.VAE_KIND):
        model = load_vae(previous).requires_grad_(True)
        weights.check_same(previous, "train_vae.model", model.config, config.model)
    else:
        model = VAE(config.model)
    task = VAETask(model.train(), episodes, config, seed)
    if config.steps:
        fit(task, config, workspace.checkpoints, workspace.journal, workspace.title)
    save_vae(task.model, world, workspace.out)
    task.model.eval()
    with decoration("pictures of V"):
        _pictures(task.model, episodes, workspace)
    return {f"held_out/{name}": value for name, value in task.held_out().items()}


def held_out_frames(data: EpisodeSet, count: int) -> np.ndarray:
    """Frames [count or fewer, 64, 64, 3] spread evenly over at most 16 held-out episodes."""
    chosen = [data.held_out[i] for i in np.unique(np.linspace(0, len(data.held_out) - 1, 16).round().astype(int))]
    each = -(-count // len(chosen))
    parts = []
    for place, index in enumerate(chosen):
        obs = data.read(index, ["obs"])["obs"]
        share = (np.arange(each) + (place + 0.5) / len(chosen)) / each  # each episode at other moments than the last
        parts.append(obs[np.unique((share * len(obs)).astype(int))])
    return np.concatenate(parts)[:count]


@torch.inference_mode()
def _pictures(model: VAE, data: EpisodeSet, workspace: Workspace) -> None:
    device = model.mu.weight.device
    folder = workspace.out / "figures"
    lines = journal.read(workspace.journal.path) if workspace.journal.path.exists() else []
    if lines:
        panels = {
            "Loss": ["train/loss", "held_out/loss"],
            "Reconstruction": ["train/reconstruction", "held_out/reconstruction"],
            "KL divergence": ["train/kl", "held_out/kl"],
        }
        figures.curves(lines, folder / "curves.png", panels, title="V")
    frames = held_out_frames(data, 16)
    mu, logvar = model.encode(torch.from_numpy(frames).to(device))
    mosaics.reconstructions(frames, model.decode(mu).cpu().numpy(), folder / "reconstructions.png")
    spread = (mu.square().mean(0) - (logvar.exp()).mean(0)).argsort(descending=True)[:8].tolist()
    values = np.linspace(-2.5, 2.5, 9)
    decoded = []
    for dimension in spread:
        z = mu[:1].repeat(len(values), 1)
        z[:, dimension] = torch.from_numpy(values).to(z)
        decoded.append(model.decode(z).cpu().numpy())
    mosaics.traversal(np.stack(decoded), folder / "traversal.png", [f"z{d}" for d in spread], list(values))
