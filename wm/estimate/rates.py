"""How fast this machine does the parts of a stage, each measured for some seconds.

Every rate is measured on the very code that the stage runs, on untrained models of the right shape, in a process of its
own, whose memory is looked at.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from wm.core import watchdog
from wm.core.episodes import Shard, frame_columns
from wm.core.errors import UserError
from wm.dream.engine import Dream, DreamRules
from wm.models.controller import ControllerSpec
from wm.models.mdnrnn import MDNRNN, MDNConfig, Sequences
from wm.models.vae import VAE, VAEConfig
from wm.play import agent as agents
from wm.play import rollout
from wm.stages import training
from wm.worlds import World

PATIENCE = 2.5
"""Seconds a rate is measured for."""
HANGING = 600.0
"""Seconds after which what is measured is taken to hang, also on a machine with much other work."""


class Pace(NamedTuple):
    """What an episode costs one process: seconds of its reset and of each of its steps, and bytes kept of a step."""

    reset: float
    step: float
    kept: float = 0.0

    def seconds(self, episodes: float, length: float) -> float:
        """So many episodes of `length` steps."""
        return episodes * (self.reset + length * self.step)


class Rates:
    """Each measured once, in a process of its own: what was measured, and the memory that it took in bytes."""

    def __init__(self) -> None:
        self._known: dict[tuple, tuple[Any, float]] = {}

    def __call__(self, measure: Callable[..., Any], *args: Any) -> tuple[Any, float]:
        key = (measure.__name__, *map(repr, args))
        if key not in self._known:
            self._known[key] = _apart(measure, *args)
        return self._known[key]


def explore(world: World, slots: int) -> Pace:
    """One process with a random policy, frames kept and compressed."""
    shard = Shard(frame_columns(world.spec.action_size))
    return _pace(world, rollout.ExplorerDriver(world, slots), slots, None, shard)


def drive(world: World, parts: Parts, slots: int, drawing: str, keep: bool = False) -> Pace:
    """One process with V, M and C; with frames kept and compressed if asked for."""
    vae, memory, layout = parts.agent(world)
    agent = agents.Agent(vae=vae, mdnrnn=memory, world=world, layout=layout, inputs=parts.inputs)
    params = np.random.default_rng(0).normal(0, 0.1, (1, layout.size)).astype(np.float32)
    driver = rollout.AgentDriver(agent, params, slots, parts.sampled)
    return _pace(world, driver, slots, drawing, Shard(frame_columns(world.spec.action_size)) if keep else None)


def dream(world: World, parts: Parts, population: int, episodes: int, threads: int, device: str) -> float:
    """Dreamed steps a second of the whole population."""
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


def train_vae(config: Any) -> float:
    """Optimiser steps a second."""
    torch.set_num_threads(config.threads)
    vae, noise = VAE(config.model).to(config.device), torch.Generator(config.device)
    obs = torch.randint(0, 255, (config.batch, 64, 64, 3), dtype=torch.uint8, device=config.device)
    return _training_rate(vae, lambda: vae.loss(obs, noise)[0], config)


def train_mdn(world: World, z_size: int, config: Any) -> float:
    """Optimiser steps a second."""
    torch.set_num_threads(config.threads)
    memory, noise = mdnrnn(config.model, z_size, world).to(config.device), torch.Generator(config.device)
    steps = [(config.length + 1, memory.z_size)] * 2 + [(config.length, memory.action_size)] + [(config.length,)] * 4
    window = Sequences(*(torch.zeros(config.batch, *shape, device=config.device) for shape in steps))
    begun = memory.initial_state(config.batch)
    return _training_rate(memory, lambda: memory.loss(window, begun, noise)[0], config)


def encode(model: Any, config: Any) -> float:
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
        memory = mdnrnn(self.memory, self.vae.z_size, world).eval()
        return VAE(self.vae).eval(), memory, agents.layout(world, memory, self.inputs, self.hidden)


def mdnrnn(config: MDNConfig, z_size: int, world: World) -> MDNRNN:
    """An untrained M for a world."""
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
    return _repeat(
        lambda: training.step_once(task, optimizer, config, 1)  # type: ignore[arg-type]  # it asks for no more of a task
    )


def _repeat(work: Callable[[], object]) -> float:
    """Times a second that `work` can be done: by the median, since other programs may run meanwhile."""
    took = [_seconds(work)]  # makes the memory, plans the kernels: not counted
    while sum(took[1:]) < PATIENCE or len(took) < 4:
        took.append(_seconds(work))
    return 1 / statistics.median(took[1:])


def _pace(world: World, driver: rollout.Driver, slots: int, drawing: str | None, shard: Shard | None = None) -> Pace:
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
    process = context.Process(target=_answer, args=(teller, watchdog.ticket(), measure, args), daemon=True)
    process.start()
    teller.close()
    try:
        if not answers.poll(HANGING):
            process.kill()
            raise UserError(f"{measure.__name__.strip('_')} gave no answer in {HANGING / 60:.0f} min: a step hangs")
        found, memory, mistake = answers.recv()
    except EOFError:
        raise UserError(f"{measure.__name__.strip('_')} could not be measured; what it said is above") from None
    finally:
        process.join()
    if mistake is not None:
        raise UserError(mistake)
    return found, memory


def _answer(teller: Connection, parent: str, measure: Callable[..., Any], args: tuple) -> None:
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
