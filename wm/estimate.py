"""How long a pipeline will take on this machine: measured for some seconds, then multiplied out.

Every rate is measured on the very code that the stage runs, on untrained models of the right shape.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from wm import agent as agents
from wm import expectation, rollout, training, worlds
from wm.episodes import Shard, frame_columns
from wm.errors import UserError
from wm.mdnrnn import MDNRNN, Sequences
from wm.params import ZERO, Params
from wm.stages.evolve import final_episodes
from wm.stages.run import OF_MODEL, plan
from wm.vae import VAE

STAGE_OVERHEAD = 8.0
"""Seconds that a stage takes besides its work: start of the interpreter and the workers, pictures, checksums."""
TOGETHER = 0.85
"""Speed of a worker while all others work, as a share of its speed alone (memory and scheduling; measured)."""
LENGTHS = {
    "car_racing": {"random": (40.0, 1.48), "first": 220.0, "later": 880.0, "driven": 950.0},
    "take_cover": {"random": (228.0, 0.0), "first": 680.0, "later": 1190.0, "driven": 700.0},
}
"""Steps of an average episode, from finished runs (LOG.md): a random policy's (a constant, and so much for each step of
`stall`), a search's that starts from nothing, a search's that goes on, and a finished agent's."""
PATIENCE = 1.5
"""Seconds a rate is measured for."""


def measure(everything: Params, name: str, only: Sequence[str] = ()) -> list[tuple[str, str, float, str]]:
    """(stage, name, seconds, what it does) of the stages that agent `name` needs, in order.

    Args:
        only: addresses ("train_vae@smoke") of those that matter; none of them means all.
    Raises:
        UserError: there is no such agent.
    """
    if name not in everything.agents:
        raise UserError(f"{name!r} is not in `agents` of params.yaml: expected one of {', '.join(everything.agents)}")
    rates = _Rates()
    return [
        (stage, of, *_stage(everything, stage, of, rates))
        for stage, of in stages(everything, name)
        if not only or f"{stage}@{of}" in only
    ]


def report(everything: Params, name: str, only: Sequence[str] = (), budget: float | None = None) -> str:
    """`measure` as a table for people, and the score to expect.

    Args:
        budget: seconds for all of it: says also what fits.
    """
    found = measure(everything, name, only)
    rows = [f"  {stage + ' ' + of:<28} {_clock(seconds):>8}   {what}" for stage, of, seconds, what in found]
    total = sum(seconds for _, _, seconds, _ in found)
    head = f"{name}: {len(rows)} stages, about {_clock(total)} on this machine{'' if only else ' if none is cached'}"
    search = _search(everything, name)
    return "\n".join([head, *rows, *expectation.lines(name, found, search.generations, search.rescore_every, budget)])


def stages(everything: Params, name: str) -> list[tuple[str, str]]:
    """(stage, name) of all that agent `name` needs, in an order in which they can run."""
    found: dict[tuple[str, str], None] = {}

    def model(key: str) -> None:
        if key == ZERO or ("train_mdn", key) in found:
            return
        model(everything.models[key].after)
        agent(everything.models[key].actor, "evolve")
        for stage in OF_MODEL:
            found[stage, key] = None

    def agent(key: str, last: str) -> None:
        if key == ZERO:
            return
        agent(everything.agents[key].after, "evolve")
        model(everything.agents[key].model)
        found["evolve", key] = None
        if last == "evaluate":
            found["evaluate", key] = None

    agent(name, "evaluate")
    return list(found)


def _stage(everything: Params, stage: str, name: str, rates: _Rates) -> tuple[float, str]:
    todo = plan(everything, stage, name)
    config, world = todo.config, worlds.get(todo.world)
    model = name if stage in OF_MODEL else everything.agents[name].model
    experiment = everything.experiments[everything.models[model].experiment]  # whose V and M these are
    longest = world.spec.max_steps
    if stage == "collect":
        driven = everything.models[name].actor != ZERO
        pace = (
            rates.film(experiment, _search(everything, everything.models[name].actor), world, config.slots)
            if driven
            else rates.explore(world, config.slots)
        )
        work = pace.seconds(config.episodes, _length(everything, stage, name))
        return _shared(work, config.workers), f"{config.episodes:,} episodes"
    if stage == "train_vae":
        rate = rates.train_vae(config)
        return config.steps / rate + STAGE_OVERHEAD, f"{config.steps:,} steps of {config.batch} frames"
    if stage == "encode":
        steps = sum(_collected(everything, key) for key in _lineage(everything, name))
        return steps / rates.encode(experiment) + STAGE_OVERHEAD, f"{steps:,.0f} frames"
    if stage == "train_mdn":
        rate = rates.train_mdn(experiment, world)
        return config.steps / rate + STAGE_OVERHEAD, f"{config.steps:,} steps of {config.batch} x {config.length}"
    if stage == "evolve":
        episodes = config.generations * config.population * config.episodes
        looks = -(-config.generations // config.rescore_every)
        scored = (2 * looks + (everything.agents[name].after != ZERO)) * config.rescore_episodes
        scored += final_episodes(config)
        pace = rates.drive(experiment, config, world, config.slots, world.spec.drawings[0])
        looked = pace.seconds(scored, LENGTHS.get(todo.world, {}).get("driven", longest))
        if config.dream:
            dreamed = episodes * _length(everything, stage, name) / rates.dream(experiment, config, world)
            return dreamed + _shared(looked, config.workers), f"{episodes:,} dreamed episodes, {scored:,} real"
        work = pace.seconds(episodes, _length(everything, stage, name)) + looked
        return _shared(work, config.workers), f"{config.generations} generations, {episodes + scored:,} episodes"
    pace = rates.drive(
        experiment, _search(everything, name), world, config.slots, config.drawing or world.spec.drawings[-1]
    )
    work = pace.seconds(config.episodes, LENGTHS.get(todo.world, {}).get("driven", longest))
    return _shared(work, config.workers), f"{config.episodes} episodes"


def _shared(work: float, workers: int) -> float:
    """Seconds that a stage takes for what one worker alone would do in `work` seconds."""
    busy = min(workers, os.cpu_count() or 1)
    return work / (busy * (TOGETHER if busy > 1 else 1.0)) + STAGE_OVERHEAD


def _length(everything: Params, stage: str, name: str) -> float:
    """Steps of an average episode of `collect` or `evolve`; the longest there are where nothing is known."""
    entry = (everything.models if stage == "collect" else everything.agents)[name]
    experiment = everything.experiments[entry.experiment]
    longest, known = worlds.get(experiment.world).spec.max_steps, LENGTHS.get(experiment.world)
    config = getattr(experiment, stage)
    if known is None:
        return longest
    if stage == "collect" and entry.actor == ZERO:
        constant, each = known["random"]
        return min(longest, constant + each * config.stall) if config.stall or not each else longest
    if stage == "collect":
        return known["driven"]
    going_on = entry.after != ZERO
    return known["later" if going_on else "first"] if config.stall or experiment.world != "car_racing" else longest


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
    """What an episode costs one process, in seconds: its reset, and each of its steps."""

    reset: float
    step: float

    def seconds(self, episodes: float, length: float) -> float:
        """So many episodes of `length` steps."""
        return episodes * (self.reset + length * self.step)


class _Rates:
    """Measured once each."""

    def __init__(self) -> None:
        self._known: dict[tuple, Any] = {}

    def _once(self, key: tuple, measure: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = measure()
        return self._known[key]

    def explore(self, world, slots: int) -> Pace:
        """One process with a random policy, frames kept and compressed."""

        def measure() -> Pace:
            shard = Shard(frame_columns(world.spec.action_size))
            return _pace(world, rollout.ExplorerDriver(world, slots), slots, None, shard)

        return self._once(("explore", world.spec.name, slots), measure)

    def drive(self, experiment, search, world, slots: int, drawing: str) -> Pace:
        """One process with V and M as the experiment has them and C as its search has it."""
        key = ("drive", world.spec.name, slots, drawing, experiment.train_mdn.model.hidden, search.hidden)
        return self._once(key, lambda: self._drive(experiment, search, world, slots, drawing, None))

    def film(self, experiment, search, world, slots: int) -> Pace:
        """The same, frames kept and compressed."""
        key = ("film", world.spec.name, slots, experiment.train_mdn.model.hidden, search.hidden)
        shard = Shard(frame_columns(world.spec.action_size))
        return self._once(key, lambda: self._drive(experiment, search, world, slots, world.spec.drawings[0], shard))

    def dream(self, experiment, config, world) -> float:
        """Dreamed steps a second of the whole population."""

        def measure() -> float:
            from wm.dream import Dream

            memory = _memory(experiment, world).eval()
            if memory.done:
                torch.nn.init.constant_(memory.done.bias, -1e6)  # untrained, it would end dreams at once
            layout = agents.layout(world, memory, tuple(config.inputs or world.spec.controller_inputs), config.hidden)
            rng = np.random.default_rng(0)
            params = rng.normal(0, 0.1, (config.population, layout.size)).astype(np.float32)
            first = torch.zeros(1, memory.z_size)
            dream = Dream(
                memory,
                (first, first),
                world,
                layout,
                tuple(config.inputs or world.spec.controller_inputs),
                tau=1.0,
                max_steps=128,
                threads=config.workers,
                device=config.device,
            )
            dream.scores(params, [0])
            began = time.perf_counter()
            _, lengths = dream.scores(params, list(range(config.episodes)))
            return lengths.sum() / (time.perf_counter() - began)

        return self._once(("dream", world.spec.name, config), measure)

    def _drive(self, experiment, search, world, slots: int, drawing: str, shard: Shard | None) -> Pace:
        vae = VAE(experiment.train_vae.model).eval()
        memory = _memory(experiment, world).eval()
        inputs = tuple(search.inputs or world.spec.controller_inputs)
        layout = agents.layout(world, memory, inputs, search.hidden)
        agent = agents.Agent(vae=vae, mdnrnn=memory, world=world, layout=layout, inputs=inputs)
        driver = rollout.AgentDriver(agent, np.zeros((1, layout.size), np.float32), slots, search.sampled)
        return _pace(world, driver, slots, drawing, shard)

    def train_vae(self, config) -> float:
        """Optimiser steps a second."""

        def measure() -> float:
            torch.set_num_threads(config.threads)
            vae, noise = VAE(config.model).to(config.device), torch.Generator(config.device)
            obs = torch.randint(0, 255, (config.batch, 64, 64, 3), dtype=torch.uint8, device=config.device)
            return _training_rate(vae, lambda: vae.loss(obs, noise)[0], config)

        return self._once(("train_vae", config), measure)

    def train_mdn(self, experiment, world) -> float:
        """Optimiser steps a second."""
        config = experiment.train_mdn

        def measure() -> float:
            torch.set_num_threads(config.threads)
            memory, noise = _memory(experiment, world).to(config.device), torch.Generator(config.device)
            steps = (
                [(config.length + 1, memory.z_size)] * 2
                + [(config.length, memory.action_size)]
                + [(config.length,)] * 4
            )
            window = Sequences(*(torch.zeros(config.batch, *shape, device=config.device) for shape in steps))
            begun = memory.initial_state(config.batch)
            return _training_rate(memory, lambda: memory.loss(window, begun, noise)[0], config)

        return self._once(("train_mdn", config, world.spec.name), measure)

    def encode(self, experiment) -> float:
        """Frames a second."""
        config = experiment.encode

        def measure() -> float:
            torch.set_num_threads(config.threads)
            vae = VAE(experiment.train_vae.model).eval().requires_grad_(False).to(config.device)
            obs = torch.randint(0, 255, (config.batch, 64, 64, 3), dtype=torch.uint8, device=config.device)
            return config.batch * _repeat(lambda: vae.encode(obs))

        return self._once(("encode", config), measure)


def _memory(experiment, world) -> MDNRNN:
    return MDNRNN(
        experiment.train_mdn.model,
        experiment.train_vae.model.z_size,
        world.spec.action_size,
        world.spec.predicts_restart,
    )


class _Task(NamedTuple):
    """A task of `wm.training` whose batch is always the same."""

    model: torch.nn.Module
    loss: Callable[[], torch.Tensor]

    def step(self) -> tuple[torch.Tensor, dict[str, torch.Tensor], str]:
        return self.loss(), {}, "a made-up batch"


def _training_rate(model: torch.nn.Module, loss: Callable[[], torch.Tensor], config: training.TrainConfig) -> float:
    """Optimiser steps a second."""
    # wm/training.py is code of train_vae and train_mdn: public names there would make both run again.
    weights = [training._dense(parameter.detach()) for parameter in model.parameters()]
    optimizer, task = torch.optim.Adam(weights, lr=config.learning_rate_end, fused=True), _Task(model, loss)
    return _repeat(lambda: training._step(task, optimizer, config, 1))


def _repeat(work: Callable[[], object]) -> float:
    """Times a second that `work` can be done."""
    work()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < PATIENCE or count < 2:
        work()
        count += 1
    return count / (time.perf_counter() - began)


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
    return Pace(reset / slots, max(1e-3 * seconds, seconds - reset) / steps)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _clock(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
