"""What a pipeline will take of this machine, in time, disk and memory: `wm.estimate.rates`, multiplied out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from wm import worlds
from wm.core.episodes import EpisodeSet, latent_columns
from wm.core.errors import UserError
from wm.estimate import expectation, rates
from wm.models.mdnrnn import MDNConfig
from wm.models.vae import VAE, VAEConfig
from wm.params import ZERO, Params
from wm.play import cluster
from wm.run import plan
from wm.search.contenders import Contenders
from wm.search.fitness import VIRTUAL_EPISODES
from wm.search.rescoring import final_episodes
from wm.stages import STAGES
from wm.stages.train_mdn import KEPT_BYTES

STAGE_OVERHEAD = 8.0
"""Seconds that a stage takes besides its work: start of the interpreter and the workers, pictures, checksums."""
TOGETHER = 0.85
"""Speed of a worker while all others work, as a share of its speed alone (memory and scheduling; measured)."""
LENGTHS: dict[str, dict[str, Any]] = {
    "car_racing": {"random": (40.0, 1.48), "first": 280.0, "later": 880.0, "driven": 950.0},
    "take_cover": {"random": (228.0, 0.0), "first": 950.0, "later": 1190.0, "driven": 700.0},
}
"""Steps of an average episode, from finished runs (results/): a random policy's (a constant, and so much for each step
of `stall`), a search's that starts from nothing, a search's that goes on, and a finished agent's."""
FRAME_BYTES = 64 * 64 * 3
COPY_RATE = 100e6
"""Bytes a second that are copied and checked, on a slow disk."""
PICTURES = 2e6
"""Bytes of a stage's figures, curves and summaries."""
FILM = 3e3
"""Bytes of a filmed step; three episodes of a test are filmed."""


class Need(NamedTuple):
    """What a stage needs: seconds, bytes that it leaves on the disk, and bytes of memory at its worst."""

    stage: str
    name: str
    seconds: float
    disk: float
    memory: float
    what: str

    @property
    def address(self) -> str:
        """As in dvc.yaml: "train_vae@smoke"."""
        return f"{self.stage}@{self.name}"


def measure(everything: Params, name: str, only: Sequence[str] = ()) -> list[Need]:
    """What the stages that agent `name` needs will take, in order.

    Args:
        only: addresses ("train_vae@smoke") of those that matter; none of them means all.
    Raises:
        UserError: there is no such agent, or it needs no such stage.
    """
    everything.entry("agents", name)
    measured, known = rates.Rates(), {f"{stage}@{of}": (stage, of) for stage, of in stages(everything, name)}
    for address in only:
        if address not in known:
            raise UserError(f"{address} is no stage that {name} needs: expected some of {', '.join(known)}")
    needs = []
    for address, (stage, of) in known.items():
        if not only or address in only:
            seconds, disk, memory, what = _Stage(everything, stage, of, measured).needs()
            needs.append(Need(stage, of, seconds, disk + PICTURES, memory, what))
    return needs


def report(name: str, found: Sequence[Need], whole: bool = True) -> str:
    """What was measured as a table for people.

    Args:
        whole: it is all that the agent needs, not some stages.
    """
    rows = [
        f"  {one.address:<28} {_clock(one.seconds):>8} {_size(one.disk):>8} {_size(one.memory):>8}   {one.what}"
        for one in found
    ]
    seconds, disk = sum(one.seconds for one in found), sum(one.disk for one in found)
    memory = max((one.memory for one in found), default=0)
    told = [
        f"{name}: {len(rows)} stages, about {_clock(seconds)} on this machine{' if none is cached' if whole else ''}",
        f"  {'stage':<28} {'time':>8} {'disk':>8} {'memory':>8}",
        *rows,
    ]
    free = shutil.disk_usage(".").free
    if 2 * disk > free:  # DVC's cache may have to copy
        told.append(f"warning: {_size(2 * disk)} of disk are needed with DVC's cache, and {_size(free)} are free here")
    if memory > (free := psutil.virtual_memory().available):
        told.append(f"warning: {_size(memory)} of memory are needed, and {_size(free)} are free")
    return "\n".join(told)


def prospect(everything: Params, name: str, found: Sequence[Need], budget: float | None = None) -> str:
    """The score to expect, and what fits into a budget of so many seconds.

    Raises:
        TooShort: nothing does.
    """
    search, seconds = _search(everything, name), {one.address: one.seconds for one in found}
    plans = [plan(everything, stage, of) for stage, of in stages(everything, name)]
    return "\n".join(expectation.lines(name, seconds, search.generations, search.rescore_every, budget, plans))


def stages(everything: Params, name: str) -> list[tuple[str, str]]:
    """(stage, name) of all that agent `name` needs, in an order in which they can run."""
    found: dict[tuple[str, str], None] = {}

    def visit(stage: str, of: str) -> None:
        if of == ZERO or (stage, of) in found:
            return
        for folder in plan(everything, stage, of).inputs.values():
            visit(folder.name, folder.parent.name)
        found[stage, of] = None

    visit("evaluate", name)
    return list(found)


class _Stage:
    """A stage with its numbers, on this machine, and what else its needs depend on."""

    def __init__(self, everything: Params, stage: str, name: str, measured: rates.Rates):
        self.everything, self.stage, self.name, self.measured = everything, stage, name, measured
        todo = plan(everything, stage, name)
        self.config, self.elsewhere = _on_this_machine(todo.config)
        self.world = worlds.get(todo.world)
        self.model = name if STAGES[stage].of == "models" else everything.agents[name].model
        self.driven = LENGTHS.get(todo.world, {}).get("driven", self.world.spec.max_steps)
        rounds = _lineage(everything, self.model)
        self.frames = sum(_collected(everything, key) for key in rounds)

    def needs(self) -> tuple[float, float, float, str]:
        """Seconds, bytes of disk, bytes of memory, and what the stage does."""
        return getattr(self, self.stage)()

    def collect(self) -> tuple[float, float, float, str]:
        if source := self.world.recordings:
            size = sum(shard["bytes"] for shard in EpisodeSet(source).shards)
            return size / COPY_RATE + STAGE_OVERHEAD, size, psutil.Process().memory_info().rss, "the recordings"
        config, actor = self.config, self.everything.models[self.name].actor
        if actor == ZERO:
            pace, memory = self.measured(rates.explore, self.world, config.slots)
        else:
            parts, drawing = _parts(self.everything, actor), self.world.spec.drawings[0]
            pace, memory = self.measured(rates.drive, self.world, parts, config.slots, drawing, True)
        length = _length(self.everything, "collect", self.name)
        memory += 2 * config.episodes_per_job * length * pace.kept  # a job's episodes, and their file's bytes
        seconds, memory = _shared(pace.seconds(config.episodes, length)), self._of_workers(memory)
        return seconds, self.frames * pace.kept, memory, f"{config.episodes:,} episodes"

    def train_vae(self) -> tuple[float, float, float, str]:
        config = self.config
        rate, memory = self.measured(rates.train_vae, config)
        pool = config.pool_episodes * _length(self.everything, "collect", self.name) * FRAME_BYTES
        what = f"{config.steps:,} steps of {config.batch} frames{self.elsewhere}"
        return config.steps / rate + STAGE_OVERHEAD, _weights(VAE, config.model), memory + pool, what

    def encode(self) -> tuple[float, float, float, str]:
        vae, _ = self._models()
        columns = latent_columns(vae.z_size, self.world.spec.action_size)
        disk = self.frames * sum(np.dtype(one.dtype).itemsize * np.prod(one.shape, dtype=int) for one in columns)
        rate, memory = self.measured(rates.encode, vae, self.config)
        memory += 4 * self.world.spec.max_steps * FRAME_BYTES
        return self.frames / rate + STAGE_OVERHEAD, disk, memory, f"{self.frames:,.0f} frames{self.elsewhere}"

    def train_mdn(self) -> tuple[float, float, float, str]:
        config, (vae, _) = self.config, self._models()
        rate, memory = self.measured(rates.train_mdn, self.world, vae.z_size, config)
        kept = min(KEPT_BYTES, 4 * vae.z_size * self.frames)
        what = f"{config.steps:,} steps of {config.batch} x {config.length}{self.elsewhere}"
        return config.steps / rate + STAGE_OVERHEAD, self._mdnrnn_bytes(), memory + kept, what

    def evolve(self) -> tuple[float, float, float, str]:
        config, parts = self.config, _parts(self.everything, self.name)
        episodes = config.generations * config.population * config.episodes
        looks = -(-config.generations // config.rescore_every)
        whole = (2 * looks + (self.everything.agents[self.name].after != ZERO)) * config.rescore_episodes
        scored, length = whole + final_episodes(config), _length(self.everything, "evolve", self.name)
        if self.world.recordings:
            return self._in_recordings(parts, episodes + whole + VIRTUAL_EPISODES, length)
        pace, memory = self.measured(rates.drive, self.world, parts, config.slots, self.world.spec.drawings[0])
        looked, memory = pace.seconds(scored, self.driven), self._of_workers(memory)
        disk = self._mdnrnn_bytes() + _weights(VAE, parts.vae)
        if not config.dream:
            seconds = _shared(pace.seconds(episodes, length) + looked)
            return seconds, disk, memory, f"{config.generations} generations, {episodes + scored:,} episodes"
        size = config.population, config.episodes, cluster.workers(), config.device
        rate, dreaming = self.measured(rates.dream, self.world, parts, *size)
        dreamed = episodes + whole + config.gauge_controllers * config.gauge_episodes + VIRTUAL_EPISODES
        if config.dream_decides:
            dreamed += (Contenders.MOST + 1) * config.final_episodes
        seconds = dreamed * length / rate + _shared(looked)
        return seconds, disk, memory + dreaming, f"{dreamed:,} dreamed episodes{self.elsewhere}, {scored:,} real"

    def _in_recordings(self, parts: rates.Parts, dreamed: int, length: float) -> tuple[float, float, float, str]:
        """A search where nothing but the dream can be played."""
        config = self.config
        dreamed += (Contenders.MOST + 1) * config.final_episodes
        size = config.population, config.episodes, cluster.workers(), config.device
        rate, memory = self.measured(rates.dream, self.world, parts, *size)
        disk = self._mdnrnn_bytes() + _weights(VAE, parts.vae)
        seconds = dreamed * length / rate + STAGE_OVERHEAD
        return seconds, disk, memory, f"{dreamed:,} dreamed episodes{self.elsewhere}"

    def evaluate(self) -> tuple[float, float, float, str]:
        if self.world.recordings:
            return STAGE_OVERHEAD, 0, psutil.Process().memory_info().rss, "what the dream said"
        config, parts = self.config, _parts(self.everything, self.name)
        drawing = config.drawing or self.world.spec.drawings[-1]
        pace, memory = self.measured(rates.drive, self.world, parts, config.slots, drawing)
        seconds = _shared(pace.seconds(config.episodes, self.driven))
        disk = 3 * self.driven * FILM if config.videos else 0
        return seconds, disk, self._of_workers(memory), f"{config.episodes} episodes"

    def _models(self) -> tuple[VAEConfig, MDNConfig]:
        """Of the V and M that the stage reads."""
        experiment = self.everything.experiments[self.everything.models[self.model].experiment]
        return experiment.train_vae.model, experiment.train_mdn.model

    def _mdnrnn_bytes(self) -> float:
        vae, mdn = self._models()
        return _weights(rates.mdnrnn, mdn, vae.z_size, self.world)

    def _of_workers(self, memory: float) -> float:
        """Bytes of a stage whose workers have `memory` bytes each: they, the stage itself and Dask's scheduler."""
        return cluster.workers() * memory + psutil.Process().memory_info().rss


def _on_this_machine(config: Any) -> tuple[Any, str]:
    """A stage's numbers, on the CPU where they ask for a GPU that is not here; and what to say then."""
    if getattr(config, "device", "cpu") == "cpu" or torch.cuda.is_available():
        return config, ""
    return config.model_copy(update={"device": "cpu"}), f" on the CPU, for there is no {config.device} here"


def _parts(everything: Params, agent: str) -> rates.Parts:
    """V, M and C of an agent."""
    experiment = everything.experiments[everything.models[everything.agents[agent].model].experiment]
    search, world = _search(everything, agent), worlds.get(everything.agents[agent].world)
    inputs = tuple(search.inputs or world.spec.controller_inputs)
    return rates.Parts(experiment.train_vae.model, experiment.train_mdn.model, inputs, search.hidden, search.sampled)


def _weights(model: Callable[..., torch.nn.Module], *args: Any) -> float:
    """Bytes of a model."""
    with torch.device("meta"):  # counts without computing
        return sum(weight.nbytes for weight in model(*args).parameters())


def _shared(work: float) -> float:
    """Seconds that a stage takes for what one worker alone would do in `work` seconds."""
    busy = min(cluster.workers(), os.cpu_count() or 1)
    return work / (busy * (TOGETHER if busy > 1 else 1.0)) + STAGE_OVERHEAD


def _length(everything: Params, stage: str, name: str) -> float:
    """Steps of an average episode of `collect` or `evolve`; the longest there are where nothing is known."""
    entry: Any = (everything.models if stage == "collect" else everything.agents)[name]
    experiment = everything.experiments[entry.experiment]
    longest, known = worlds.get(entry.world).spec.max_steps, LENGTHS.get(entry.world)
    config = getattr(experiment, stage)
    if known is None:
        return longest
    if stage == "collect":
        constant, each = known["random"]
        random = min(longest, constant + each * config.stall) if config.stall or not each else longest
        explored = 1 if entry.actor == ZERO else config.explore
        return explored * random + (1 - explored) * known["driven"]
    going_on = entry.after != ZERO
    return known["later" if going_on else "first"] if config.stall or entry.world != "car_racing" else longest


def _search(everything: Params, agent: str) -> Any:
    """The `evolve` section of an agent."""
    return everything.experiments[everything.agents[agent].experiment].evolve


def _lineage(everything: Params, name: str) -> Iterator[str]:
    while name != ZERO:
        yield name
        name = everything.models[name].after


def _collected(everything: Params, name: str) -> float:
    if source := worlds.get(everything.models[name].world).recordings:
        return EpisodeSet(source).steps if everything.models[name].after == ZERO else 0  # the same ones in every round
    experiment = everything.experiments[everything.models[name].experiment]
    return experiment.collect.episodes * _length(everything, "collect", name)


def _clock(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _size(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
