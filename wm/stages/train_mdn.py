"""train_mdn: M learns what comes next (paper, section 2.2 and A.2).

Each of B parallel streams runs through episodes laid end to end; a batch is the next window of T steps of every
stream, with the LSTM's state carried over from the last window and zeroed where an episode starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from wm import worlds
from wm.core import journal, seeds, weights
from wm.core.checkpoints import Tensors
from wm.core.episodes import EpisodeSet
from wm.core.workspace import Workspace
from wm.models import ends, surprise
from wm.models.mdnrnn import MDNRNN, MDNConfig, Sequences, load_mdnrnn, sample, save_mdnrnn
from wm.models.vae import VAE, load_vae
from wm.pictures import decoration, figures, mosaics, videos
from wm.stages.training import TrainConfig, fit
from wm.worlds.base import symlog

POSTERIOR = ("mu", "logvar")
HELD_OUT_WINDOWS = 4
KEPT_BYTES = 256 * 2**20
"""Memory for latents that were read: about 1.8 million steps of CarRacing."""
WARM_UP, STRIP_STEPS, FILM_STEPS = 60, 40, 200
"""Steps that M sees before it dreams, and dreamed steps of the still and of the moving picture."""


class TrainMDNConfig(TrainConfig):
    """M and its training. `steps: 0` leaves M untrained (the ablation with random memory)."""

    steps: int = Field(ge=0, description="optimiser steps; 0 leaves M as it was initialised")
    clip: float = Field(1.0, ge=0, description="gradients are clipped by value to [-clip, clip] (released code: 1)")
    length: int = Field(999, gt=0, description="T, steps of a window (paper: 999; DoomTakeCover 500)")
    model: MDNConfig = Field(MDNConfig(), description="the shape of M")


class Streams:
    """B streams over a set of episodes, cut into windows.

    Args:
        data: latents, as `encode` writes them.
        indices: the episodes to run through.
        rng: decides their order.
    """

    def __init__(self, data: EpisodeSet, indices: list[int], batch: int, length: int, rng: np.random.Generator):
        self.data, self.indices, self.length, self.rng = data, indices, length, rng
        self.waiting: list[int] = []
        self.current = [(-1, 0)] * batch  # (episode, next step) of each stream
        self.seen: set[int] = set()  # episodes in the last window
        self.loaded: list[dict[str, Tensor] | None] = [None] * batch
        self.kept: dict[int, dict[str, Tensor]] = {}  # read once; what there is no room for is read again and again
        self.room = KEPT_BYTES
        self.shapes = {column.name: column.shape for column in data.columns}

    def next(self) -> Sequences:
        """The next window of every stream, float32 tensors."""
        batch = len(self.current)
        window = {
            name: torch.zeros(batch, self.length + (name in POSTERIOR), *self.shapes.get(name, ()))
            for name in Sequences._fields
        }
        self.seen.clear()
        for stream in range(batch):
            filled = 0
            while filled < self.length:
                filled += self._fill(stream, {name: tensor[stream, filled:] for name, tensor in window.items()})
        return Sequences(**window)

    def _fill(self, stream: int, room: dict[str, Tensor]) -> int:
        """Copies as much of the stream's episode as there is room for; returns the steps copied."""
        if self.loaded[stream] is None:
            self._load(stream)
        episode, start = self.loaded[stream], self.current[stream][1]
        self.seen.add(self.current[stream][0])
        steps = len(episode["rew"])
        count = min(steps - start, len(room["rew"]))
        for name, values in episode.items():
            part = values[start : start + count + (name in POSTERIOR)]
            room[name][: len(part)] = part
        room["has_next"][: min(count, steps - 1 - start)] = 1.0
        room["restart"][0] = float(start == 0)
        self.current[stream] = (self.current[stream][0], start + count)
        if start + count == steps:
            self.loaded[stream] = None
        return count

    def _load(self, stream: int) -> None:
        if not self.waiting:
            self.waiting = [self.indices[i] for i in self.rng.permutation(len(self.indices))]
        index = self.waiting.pop()
        self.current[stream], self.loaded[stream] = (index, 0), self._read(index)

    def _read(self, index: int) -> dict[str, Tensor]:
        if index in self.kept:
            return self.kept[index]
        names = [name for name in Sequences._fields if name in self.shapes]
        episode = {name: torch.from_numpy(array) for name, array in self.data.read(index, names).items()}
        size = sum(tensor.nbytes for tensor in episode.values())
        if size <= self.room:
            self.kept[index] = episode
            self.room -= size
        return episode

    def state(self) -> dict[str, Any]:
        """Everything that the next window depends on."""
        done = [self.loaded[i] is None for i in range(len(self.current))]
        return {"rng": self.rng.bit_generator.state, "waiting": self.waiting, "current": self.current, "done": done}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.rng.bit_generator.state, self.waiting = state["rng"], state["waiting"]
        self.current = [tuple(pair) for pair in state["current"]]
        self.loaded = [
            None if done else self._read(index) for (index, _), done in zip(self.current, state["done"], strict=True)
        ]


class MDNTask:
    """Windows of latents, with M's state carried from one to the next; see `wm.stages.training.Task`."""

    def __init__(
        self, model: MDNRNN, data: EpisodeSet, config: TrainMDNConfig, seed: int, symlog_rewards: bool = False
    ):
        self.model, self.data, self.config, self.seed = model.to(config.device), data, config, seed
        self.symlog = symlog_rewards
        key = (seed, seeds.Purpose.TRAIN_MDN, len(data))
        self.streams = Streams(data, data.training, config.batch, config.length, seeds.generator(*key))
        self.noise = seeds.torch_generator(*key, 1, device=config.device)
        self.carry = model.initial_state(config.batch)

    def step(self) -> tuple[Tensor, dict[str, Tensor], str]:
        window = self._to_device(self.streams.next())
        loss, metrics, self.carry = self.model.loss(window, self.carry, self.noise)
        return loss, metrics, f"windows of episodes {sorted(self.streams.seen)}"

    @torch.inference_mode()
    def held_out(self) -> dict[str, float]:
        key = (self.seed, seeds.Purpose.TRAIN_MDN, 2)
        noise = seeds.torch_generator(*key, device=self.config.device)
        batch = min(32, len(self.data.held_out))
        streams = Streams(self.data, self.data.held_out, batch, min(self.config.length, 256), seeds.generator(*key))
        state = self.model.initial_state(batch)
        sums: dict[str, Any] = {}
        for _ in range(HELD_OUT_WINDOWS):
            loss, metrics, state = self.model.loss(self._to_device(streams.next()), state, noise)
            for name, value in {"loss": loss, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / HELD_OUT_WINDOWS
        return sums

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        h, c = (tensor.cpu().numpy() for tensor in self.carry)
        return {"noise": self.noise.get_state().numpy(), "h": h, "c": c}, self.streams.state()

    def restore(self, tensors: Tensors, state: dict[str, Any]) -> None:
        self.noise.set_state(torch.from_numpy(tensors["noise"]))
        self.carry = tuple(torch.from_numpy(tensors[name]).to(self.config.device) for name in ("h", "c"))
        self.streams.restore(state)

    def _to_device(self, window: Sequences) -> Sequences:
        if self.symlog:
            window = window._replace(rew=symlog(window.rew))
        return Sequences(*(tensor.to(self.config.device) for tensor in window))


def train_mdn(
    config: TrainMDNConfig, world: str, seed: int, latents: Path, vae: Path, previous: Path, workspace: Workspace
) -> dict[str, float]:
    """Trains M on `latents`, from the last round's M in `previous` if there is one; measures on held-out episodes how
    likely its ends are (`wm.models.ends`) and how surprising their frames are to M (`wm.models.surprise`), and keeps
    every episode's first frame (as V's posterior) for dreams to start from. V is needed for the pictures alone.

    Raises:
        DamagedData: a shard or a model is not whole; before any training.
        UserError: the loss is not finite, the earlier M has another shape, or no film can be written here.
    """
    torch.set_num_threads(config.threads)
    videos.check()
    data = EpisodeSet(latents)
    data.verify()
    eyes = load_vae(vae)
    torch.manual_seed(seeds.sequence(seed, seeds.Purpose.TRAIN_MDN, 3).generate_state(1)[0])
    spec = worlds.get(world).spec
    if weights.exists(previous, weights.MDNRNN_KIND):
        model = load_mdnrnn(previous).requires_grad_(True)
        weights.check_same(previous, "train_mdn.model", model.config, config.model)
    else:
        model = MDNRNN(config.model, eyes.config.z_size, spec.action_size, spec.predicts_restart)
    task = MDNTask(model.train(), data, config, seed, worlds.get(world).spec.symlog_rewards)
    if config.steps:
        fit(task, config, workspace.checkpoints, workspace.journal, workspace.title)
    task.model.eval()
    save_mdnrnn(task.model, world, workspace.out)
    if task.model.done:
        made = load_mdnrnn(workspace.out)  # on the CPU
        task.model.end_shift = ends.measure(made, data, seed)
        save_mdnrnn(task.model, world, workspace.out)
    _save_starts(data, world, workspace.out)
    _save_surprise(data, world, workspace.out)
    with decoration("pictures of M"):
        _pictures(load_mdnrnn(workspace.out), eyes, data, spec.fps, seed, workspace)
    return {f"held_out/{name}": value for name, value in task.held_out().items()}


def _save_starts(data: EpisodeSet, world: str, out: Path) -> None:
    """V's posterior of each episode's first frame: mu, logvar [N, Z] float32."""
    firsts = [{name: array[0] for name, array in data.read(i, ["mu", "logvar"]).items()} for i in range(len(data))]
    tensors = {
        name: torch.from_numpy(np.stack([first[name] for first in firsts]).astype(np.float32))
        for name in ("mu", "logvar")
    }
    weights.save(out, weights.STARTS_KIND, tensors, {"world": world})


def _save_surprise(data: EpisodeSet, world: str, out: Path) -> None:
    """How surprising the frames of held-out episodes are to the M in `out`."""
    memory, read = load_mdnrnn(out), {index: data.read(index, ["mu", "act"]) for index in surprise.chosen(data)}
    parts = {index: surprise.to_m(memory, episode["mu"], episode["act"]) for index, episode in read.items()}
    surprise.Reference.of(parts).save(out, weights.SURPRISE_M_KIND, world)


@torch.inference_mode()
def _pictures(model: MDNRNN, eyes: VAE, data: EpisodeSet, fps: int, seed: int, workspace: Workspace) -> None:
    folder = workspace.out / "figures"
    lines = journal.read(workspace.journal.path) if workspace.journal.path.exists() else []
    if lines:
        panels = {
            "Negative log-likelihood per dimension": ["train/nll", "held_out/nll"],
            "Reward, squared error": ["train/reward", "held_out/reward"],
            "Done, cross-entropy": ["train/done", "held_out/done"],
        }
        present = {title: names for title, names in panels.items() if any(names[0] in line for line in lines)}
        figures.curves(lines, folder / "curves.png", present, title="M")
    longer = [index for index in data.held_out if data.episodes[index]["length"] > 1]
    if not longer:  # of one step each: there is nothing that M could have foreseen
        return
    episode = data.read(longer[0])
    latents = dream_beside_reality(model, episode, WARM_UP, FILM_STEPS, seed)
    real, dream = (eyes.decode(z).numpy() for z in latents)
    mosaics.strip(real[:STRIP_STEPS], dream[:STRIP_STEPS], folder / "dream_strip.png", every=4, fps=fps)
    caption = "the world, and M's dream of it"
    videos.video(np.concatenate([real, dream], axis=2), workspace.out / "videos" / "dream.mp4", fps, caption)


@torch.inference_mode()
def dream_beside_reality(
    model: MDNRNN, episode: dict[str, np.ndarray], warm_up: int, steps: int, seed: int, tau: float = 1.0
) -> tuple[Tensor, Tensor]:
    """After `warm_up` real steps M goes on alone with the real actions.

    Returns:
        z of the real frames and of the dreamed ones, each [steps or fewer, Z].
    """
    noise = seeds.torch_generator(seed, seeds.Purpose.TRAIN_MDN, 4)
    mu = torch.from_numpy(episode["mu"].astype(np.float32))
    act = torch.from_numpy(episode["act"].copy())
    warm_up = min(warm_up, max(0, len(mu) - 2))
    state, dreamed = model.initial_state(1), []
    z = mu[:1]
    for t in range(min(len(mu) - 1, warm_up + steps)):
        state = model.step(z, act[t : t + 1], state, torch.tensor([float(t == 0)]))
        z = mu[t + 1 : t + 2]
        if t >= warm_up:
            z = sample(model.heads(state[0])[0], tau, noise)
            dreamed.append(z)
    return mu[warm_up + 1 : warm_up + 1 + len(dreamed)], torch.cat(dreamed)
