"""What a pipeline will take of this machine, in time, disk and memory: measured for some seconds, then multiplied out.

Every rate is measured on the very code that the stage runs, on untrained models of the right shape, in a process of its
own, whose memory is looked at.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from wm import worlds
from wm.core import watchdog
from wm.core.episodes import Shard, frame_columns, latent_columns
from wm.core.errors import UserError
from wm.estimate import expectation
from wm.models.controller import ControllerSpec
from wm.models.mdnrnn import MDNRNN, MDNConfig, Sequences
from wm.models.vae import VAE, VAEConfig
from wm.params import ZERO, Params
from wm.play import agent as agents
from wm.play import cluster, rollout
from wm.run import plan
from wm.search.contenders import Contenders
from wm.search.fitness import VIRTUAL_EPISODES
from wm.search.rescoring import final_episodes
from wm.stages import STAGES, training
from wm.stages.train_mdn import KEPT_BYTES
from wm.worlds import World

STAGE_OVERHEAD = 8.0
"""Seconds that a stage takes besides its work: start of the interpreter and the workers, pictures, checksums."""
TOGETHER = 0.85
"""Speed of a worker while all others work, as a share of its speed alone (memory and scheduling; measured)."""
LENGTHS = {
    "car_racing": {"random": (40.0, 1.48), "first": 280.0, "later": 880.0, "driven": 950.0},
    "take_cover": {"random": (228.0, 0.0), "first": 950.0, "later": 1190.0, "driven": 700.0},
}
"""Steps of an average episode, from finished runs (results/): a random policy's (a constant, and so much for each step
of `stall`), a search's that starts from nothing, a search's that goes on, and a finished agent's."""
PATIENCE = 2.5
"""Seconds a rate is measured for."""
FRAME_BYTES = 64 * 64 * 3
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
    rates, known = _Rates(), {f"{stage}@{of}": (stage, of) for stage, of in stages(everything, name)}
    for address in only:
        if address not in known:
            raise UserError(f"{address} is no stage that {name} needs: expected some of {', '.join(known)}")
    needs = []
    for address, (stage, of) in known.items():
        if not only or address in only:
            seconds, disk, memory, what = _stage(everything, stage, of, rates)
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


def _stage(everything: Params, stage: str, name: str, rates: _Rates) -> tuple[float, float, float, str]:
    """Seconds, bytes of disk, bytes of memory, and what the stage does."""
    todo = plan(everything, stage, name)
    config, elsewhere = _on_this_machine(todo.config)
    world, model = worlds.get(todo.world), name if STAGES[stage].of == "models" else everything.agents[name].model
    driven = LENGTHS.get(todo.world, {}).get("driven", world.spec.max_steps)
    frames = sum(_collected(everything, key) for key in _lineage(everything, model))  # earlier rounds' are in it
    if stage == "collect":
        if everything.models[name].actor == ZERO:
            pace, memory = rates(_explore, world, config.slots)
        else:
            actor = everything.models[name].actor
            pace, memory = rates(_drive, world, _parts(everything, actor), config.slots, world.spec.drawings[0], True)
        length = _length(everything, stage, name)
        memory += 2 * config.episodes_per_job * length * pace.kept  # a job's episodes, and their file's bytes
        seconds = _shared(pace.seconds(config.episodes, length), cluster.workers())
        return seconds, frames * pace.kept, _of_workers(memory, cluster.workers()), f"{config.episodes:,} episodes"
    if stage == "train_vae":
        rate, memory = rates(_train_vae, config)
        pool = config.pool_episodes * _length(everything, "collect", name) * FRAME_BYTES
        weights = _weights(VAE, config.model)
        what = f"{config.steps:,} steps of {config.batch} frames{elsewhere}"
        return config.steps / rate + STAGE_OVERHEAD, weights, memory + pool, what
    experiment = everything.experiments[everything.models[model].experiment]  # whose V and M these are
    vae, mdn = experiment.train_vae.model, experiment.train_mdn.model
    if stage == "encode":
        columns = latent_columns(vae.z_size, world.spec.action_size)
        disk = frames * sum(np.dtype(one.dtype).itemsize * np.prod(one.shape, dtype=int) for one in columns)
        rate, memory = rates(_encode, vae, config)
        memory += 4 * world.spec.max_steps * FRAME_BYTES
        return frames / rate + STAGE_OVERHEAD, disk, memory, f"{frames:,.0f} frames{elsewhere}"
    weights = _weights(_memory, mdn, vae.z_size, world)
    if stage == "train_mdn":
        rate, memory = rates(_train_mdn, world, vae.z_size, config)
        kept = min(KEPT_BYTES, 4 * vae.z_size * frames)
        what = f"{config.steps:,} steps of {config.batch} x {config.length}{elsewhere}"
        return config.steps / rate + STAGE_OVERHEAD, weights, memory + kept, what
    parts = _parts(everything, name)
    if stage == "evolve":
        episodes = config.generations * config.population * config.episodes
        looks = -(-config.generations // config.rescore_every)
        whole = (2 * looks + (everything.agents[name].after != ZERO)) * config.rescore_episodes
        scored = whole + final_episodes(config)
        pace, memory = rates(_drive, world, parts, config.slots, world.spec.drawings[0])
        looked, disk = pace.seconds(scored, driven), weights + _weights(VAE, vae)
        memory = _of_workers(memory, cluster.workers())
        if config.dream:
            population = config.population, config.episodes
            rate, dreaming = rates(_dream, world, parts, *population, cluster.workers(), config.device)
            dreamed = episodes + whole + VIRTUAL_EPISODES
            if config.dream_decides:
                dreamed += (Contenders.MOST + 1) * config.final_episodes
            seconds = dreamed * _length(everything, stage, name) / rate + _shared(looked, cluster.workers())
            return seconds, disk, memory + dreaming, f"{dreamed:,} dreamed episodes{elsewhere}, {scored:,} real"
        seconds = _shared(pace.seconds(episodes, _length(everything, stage, name)) + looked, cluster.workers())
        return seconds, disk, memory, f"{config.generations} generations, {episodes + scored:,} episodes"
    pace, memory = rates(_drive, world, parts, config.slots, config.drawing or world.spec.drawings[-1])
    seconds = _shared(pace.seconds(config.episodes, driven), cluster.workers())
    disk = 3 * driven * FILM if config.videos else 0
    return seconds, disk, _of_workers(memory, cluster.workers()), f"{config.episodes} episodes"


def _on_this_machine(config):
    """A stage's numbers, on the CPU where they ask for a GPU that is not here; and what to say then."""
    if getattr(config, "device", "cpu") == "cpu" or torch.cuda.is_available():
        return config, ""
    return config.model_copy(update={"device": "cpu"}), f" on the CPU, for there is no {config.device} here"


def _parts(everything: Params, agent: str) -> Parts:
    """V, M and C of an agent."""
    experiment = everything.experiments[everything.models[everything.agents[agent].model].experiment]
    search, world = _search(everything, agent), worlds.get(everything.agents[agent].world)
    inputs = tuple(search.inputs or world.spec.controller_inputs)
    return Parts(experiment.train_vae.model, experiment.train_mdn.model, inputs, search.hidden, search.sampled)


def _weights(model: Callable[..., torch.nn.Module], *args: Any) -> float:
    """Bytes of a model."""
    with torch.device("meta"):  # counts without computing
        return sum(weight.nbytes for weight in model(*args).parameters())


def _of_workers(memory: float, workers: int) -> float:
    """Bytes of a stage with so many workers of `memory` bytes: they, the stage itself and Dask's scheduler."""
    return workers * memory + psutil.Process().memory_info().rss


def _shared(work: float, workers: int) -> float:
    """Seconds that a stage takes for what one worker alone would do in `work` seconds."""
    busy = min(workers, os.cpu_count() or 1)
    return work / (busy * (TOGETHER if busy > 1 else 1.0)) + STAGE_OVERHEAD


def _length(everything: Params, stage: str, name: str) -> float:
    """Steps of an average episode of `collect` or `evolve`; the longest there are where nothing is known."""
    entry = (everything.models if stage == "collect" else everything.agents)[name]
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


def _search(everything: Params, agent: str):
    """The `evolve` section of an agent."""
    return everything.experiments[everything.agents[agent].experiment].evolve


def _lineage(everything: Params, name: str) -> Iterator[str]:
    while name != ZERO:
        yield name
        name = everything.models[name].after


def _collected(everything: Params, name: str) -> float:
    experiment = everything.experiments[everything.models[name].experiment]
    return experiment.collect.episodes * _length(everything, "collect", name)


class Pace(NamedTuple):
    """What an episode costs one process: seconds of its reset and of each of its steps, and bytes kept of a step."""

    reset: float
    step: float
    kept: float = 0.0

    def seconds(self, episodes: float, length: float) -> float:
        """So many episodes of `length` steps."""
        return episodes * (self.reset + length * self.step)


class _Rates:
    """Each measured once, in a process of its own: what was measured, and the memory that it took in bytes."""

    def __init__(self) -> None:
        self._known: dict[tuple, tuple[Any, float]] = {}

    def __call__(self, measure: Callable[..., Any], *args: Any) -> tuple[Any, float]:
        key = (measure.__name__, *map(repr, args))
        if key not in self._known:
            self._known[key] = _apart(measure, *args)
        return self._known[key]


def _explore(world: World, slots: int) -> Pace:
    """One process with a random policy, frames kept and compressed."""
    shard = Shard(frame_columns(world.spec.action_size))
    return _pace(world, rollout.ExplorerDriver(world, slots), slots, None, shard)


def _drive(world: World, parts: Parts, slots: int, drawing: str, keep: bool = False) -> Pace:
    """One process with V, M and C; with frames kept and compressed if asked for."""
    vae, memory, layout = parts.agent(world)
    agent = agents.Agent(vae=vae, mdnrnn=memory, world=world, layout=layout, inputs=parts.inputs)
    params = np.random.default_rng(0).normal(0, 0.1, (1, layout.size)).astype(np.float32)
    driver = rollout.AgentDriver(agent, params, slots, parts.sampled)
    return _pace(world, driver, slots, drawing, Shard(frame_columns(world.spec.action_size)) if keep else None)


def _dream(world: World, parts: Parts, population: int, episodes: int, threads: int, device: str) -> float:
    """Dreamed steps a second of the whole population."""
    from wm.dream.engine import Dream, DreamRules

    _, memory, layout = parts.agent(world)
    if memory.done:
        torch.nn.init.constant_(memory.done.bias, -1e6)  # untrained, it would end dreams at once
    params = np.random.default_rng(0).normal(0, 0.1, (population, layout.size)).astype(np.float32)
    first = torch.zeros(1, memory.z_size)
    spec, rules = ControllerSpec(parts.inputs, layout), DreamRules(tau=1.0, max_steps=128)
    dream = Dream(memory, (first, first), world, spec, rules, threads=threads, device=device)
    dream.scores(params, [0])
    began = time.perf_counter()
    _, lengths = dream.scores(params, list(range(episodes)))
    return lengths.sum() / (time.perf_counter() - began)


def _train_vae(config) -> float:
    """Optimiser steps a second."""
    torch.set_num_threads(config.threads)
    vae, noise = VAE(config.model).to(config.device), torch.Generator(config.device)
    obs = torch.randint(0, 255, (config.batch, 64, 64, 3), dtype=torch.uint8, device=config.device)
    return _training_rate(vae, lambda: vae.loss(obs, noise)[0], config)


def _train_mdn(world: World, z_size: int, config) -> float:
    """Optimiser steps a second."""
    torch.set_num_threads(config.threads)
    memory, noise = _memory(config.model, z_size, world).to(config.device), torch.Generator(config.device)
    steps = [(config.length + 1, memory.z_size)] * 2 + [(config.length, memory.action_size)] + [(config.length,)] * 4
    window = Sequences(*(torch.zeros(config.batch, *shape, device=config.device) for shape in steps))
    begun = memory.initial_state(config.batch)
    return _training_rate(memory, lambda: memory.loss(window, begun, noise)[0], config)


def _encode(model, config) -> float:
    """Frames a second."""
    torch.set_num_threads(config.threads)
    vae = VAE(model).eval().requires_grad_(False).to(config.device)
    obs = torch.randint(0, 255, (config.batch, 64, 64, 3), dtype=torch.uint8, device=config.device)
    return config.batch * _repeat(lambda: vae.encode(obs))


class Parts(NamedTuple):
    """What an agent is made of, before anything has learned."""

    vae: VAEConfig
    memory: MDNConfig
    inputs: tuple[str, ...]
    hidden: int
    sampled: bool

    def agent(self, world: World) -> tuple[VAE, MDNRNN, agents.Layout]:
        """V, M and the layout of C."""
        memory = _memory(self.memory, self.vae.z_size, world).eval()
        return VAE(self.vae).eval(), memory, agents.layout(world, memory, self.inputs, self.hidden)


def _memory(config: MDNConfig, z_size: int, world: World) -> MDNRNN:
    return MDNRNN(config, z_size, world.spec.action_size, world.spec.predicts_restart)


class _Task(NamedTuple):
    """A task of `wm.stages.training` whose batch is always the same."""

    model: torch.nn.Module
    loss: Callable[[], torch.Tensor]

    def step(self) -> tuple[torch.Tensor, dict[str, torch.Tensor], str]:
        return self.loss(), {}, "a made-up batch"


def _training_rate(model: torch.nn.Module, loss: Callable[[], torch.Tensor], config: training.TrainConfig) -> float:
    """Optimiser steps a second."""
    weights = [training.dense(parameter.detach()) for parameter in model.parameters()]
    optimizer, task = torch.optim.Adam(weights, lr=config.learning_rate_end, fused=True), _Task(model, loss)
    return _repeat(lambda: training.step_once(task, optimizer, config, 1))


def _repeat(work: Callable[[], object]) -> float:
    """Times a second that `work` can be done: by the median, since other programs may run meanwhile."""
    took = [_seconds(work)]  # makes the memory, plans the kernels: not counted
    while sum(took[1:]) < PATIENCE or len(took) < 4:
        took.append(_seconds(work))
    return 1 / statistics.median(took[1:])


def _pace(world, driver: rollout.Driver, slots: int, drawing: str | None, shard: Shard | None = None) -> Pace:
    """From a play of some seconds: what a step costs, and what a reset does."""
    pairs = [(0, seed) for seed in range(slots)]
    envs = rollout.environments(world, drawing, slots)

    def resets() -> float:
        return _seconds(lambda: [env.reset(seed=seed) for seed, env in enumerate(envs)])

    resets()  # the first one may start a game's engine
    reset = resets()

    def play(limit: int) -> tuple[float, int]:
        began = time.perf_counter()
        played = rollout.play(world, driver, pairs, slots, drawing=drawing, shard=shard, limit=limit)
        return time.perf_counter() - began, int(played.lengths.sum())  # an episode may end before the limit

    few = 6
    many = int(np.clip(few * 2 * PATIENCE / play(few)[0], 2 * few, world.spec.max_steps // 2))
    seconds, steps = play(many)
    kept = 0.0
    if shard is not None:
        data, episodes = shard.finish()
        kept = len(data) / sum(episode["length"] for episode in episodes)
    return Pace(reset / slots, max(1e-3 * seconds, seconds - reset) / steps, kept)


def _apart(measure: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """What `measure` returns, in a process of its own, and the memory of that process and its games in bytes.

    Raises:
        UserError: `measure` has raised one, or ended without an answer.
    """
    context = multiprocessing.get_context("forkserver")  # a fork of this process could hang in OpenMP
    context.set_forkserver_preload([__name__])
    answers, teller = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(teller, watchdog.ticket(), measure, args), daemon=True)
    process.start()
    teller.close()
    try:
        found, memory, mistake = answers.recv()
    except EOFError:
        raise UserError(f"{measure.__name__.strip('_')} could not be measured; what it said is above") from None
    finally:
        process.join()
    if mistake is not None:
        raise UserError(mistake)
    return found, memory


def _tell(teller: Connection, parent: str, measure: Callable[..., Any], args: tuple) -> None:
    os.environ[watchdog.VARIABLE] = parent  # the fork server's child would outlive a killed parent
    watchdog.start()
    try:
        found = measure(*args)
    except UserError as error:
        teller.send((None, 0, str(error)))
        return
    games = sum(one.memory_info().rss for one in psutil.Process().children(recursive=True))
    teller.send((found, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + games, None))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _clock(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _size(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
