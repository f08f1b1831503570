"""Real CarRacing with V, M and C: the rollout engine next to the loop of the paper's pseudo-code, and to its own parts.

    python -m bench.rollout [--json] [--episodes 8] [--workers 2]

The loop: Gymnasium's own CarRacing with pixels, one environment, V, M and C one frame at a time. The bound: what one
core would reach if it did nothing but step, see, remember and act, each at its rate, times the cores. The rates are
measured inside the same workers, all of them busy: "env" is one environment over whole episodes of the same kind, reset
and drawing included, V, M and C run in batches.
Occupancy: steps played over (slots x steps of the batch), until the last episode has ended.
Where the rest goes: microseconds of one core a step, of each part alone (as in the bound) and inside the engine, where
every environment and every weight comes back into the cache after all the others had their turn.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import time
from collections.abc import Iterator
from statistics import median
from unittest import mock

import cv2
import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import TimeLimit

from wm import worlds
from wm.models.controller import Layout
from wm.models.mdnrnn import MDNRNN, MDNConfig
from wm.models.vae import VAE, VAEConfig
from wm.play import agent as agents
from wm.play import rollout
from wm.play.cluster import Cluster

POPULATION, SLOTS, EPISODES_PER_JOB = 32, 24, 128
INPUTS = ("z", "h")
REPEATS = 3


def measure(episodes: int = 8, workers: int = 2) -> dict[str, float]:
    """Steps a second of the loop, of each part on one core, and of the engine; their ratio, bound and occupancy."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    agent = _agent()
    rng = np.random.default_rng(0)
    params = rng.normal(0, 0.1, (POPULATION, agent.layout.size)).astype(np.float32)
    loop = median(_loop(agent, params[:1], steps=100) for _ in range(REPEATS))
    pairs = [(candidate, seed) for seed in range(episodes) for candidate in range(POPULATION)]
    size = min(EPISODES_PER_JOB, -(-len(pairs) // workers))  # nobody idle
    jobs = [(params, pairs[start : start + size]) for start in range(0, len(pairs), size)]
    with Cluster(workers) as cluster:
        list(cluster.map(_play, [(params, pairs[:SLOTS], 2)] * workers))  # workers start, models are made
        before = list(cluster.map(_parts, [params] * workers))
        began = time.perf_counter()
        played, spent = zip(*cluster.map(_timed_play, jobs), strict=True)
        seconds = time.perf_counter() - began
        after = list(cluster.map(_parts, [params] * workers))
    parts = {name: float(np.mean([rates[name] for rates in before + after])) for name in before[0]}
    steps = sum(int(part.lengths.sum()) for part in played)
    bound = workers / sum(1 / rate for rate in parts.values())
    return {
        "loop_per_s": loop,
        **{f"{name}_per_s": rate for name, rate in parts.items()},
        "engine_per_s": steps / seconds,
        "ratio": steps / seconds / loop,
        "bound_per_s": bound,
        "fraction": steps / seconds / bound,
        "occupancy": steps / sum(part.slots * part.batch_steps for part in played),
        "steps": steps,
        **{f"{name}_alone_us": 1e6 / rate for name, rate in parts.items()},
        **{f"{name}_inside_us": 1e6 * sum(job[name] for job in spent) / steps for name in spent[0]},
        "idle_us": 1e6 * (workers * seconds - sum(sum(job.values()) for job in spent)) / steps,
    }


def _agent() -> agents.Agent:
    torch.manual_seed(0)
    world = worlds.get("car_racing")
    vae = VAE(VAEConfig()).eval().requires_grad_(False)
    mdnrnn = MDNRNN(MDNConfig(), 32, 3, False).eval().requires_grad_(False)
    layout: Layout = agents.layout(world, mdnrnn, INPUTS)
    return agents.Agent(vae=vae, mdnrnn=mdnrnn, world=world, layout=layout, inputs=INPUTS)


@functools.cache
def same_agent() -> agents.Agent:
    """Made once a process. A function of a module, so that a worker finds it by name."""
    return _agent()


def _play(job, shared=None) -> rollout.Played:
    params, pairs, limit = job
    agent = _agent()
    driver = rollout.AgentDriver(agent, params, SLOTS, sampled=False)
    return rollout.play(agent.world, driver, pairs, SLOTS, limit=limit)


def _loop(agent: agents.Agent, params: np.ndarray, steps: int) -> float:
    """The paper's rollout, one frame at a time."""
    env = gymnasium.make("CarRacing-v3")
    obs, _ = env.reset(seed=0)
    (h, c), restart = agent.initial_state(1), np.zeros(1, np.float32)
    began = time.perf_counter()
    for _ in range(steps):
        frame = cv2.resize(obs[:84], (64, 64), interpolation=cv2.INTER_AREA)
        z = agent.see(frame[None], None)
        act = agent.act(params, z, h, c)
        obs, _, _, _, _ = env.step(act[0])
        h, c = agent.remember(z, act, h, c, restart)
    rate = steps / (time.perf_counter() - began)
    env.close()
    return rate


def _parts(params: np.ndarray, shared: None = None) -> dict[str, float]:
    """Environment steps a second, and frames or steps a second of V, M and C in batches of SLOTS, one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    agent = _agent()
    pairs = [(candidate, 100 + candidate) for candidate in range(SLOTS)]
    driver = rollout.AgentDriver(agent, params, SLOTS, sampled=False)
    acts = rollout.play(agent.world, driver, pairs, SLOTS, keep_acts=True).acts
    env = agent.world.make()

    def episode(index: int) -> float:
        began = time.perf_counter()
        env.reset(seed=pairs[index][1])
        for act in acts[index]:
            env.step(act)
        return (time.perf_counter() - began) / len(acts[index])

    per_step = [episode(index) for index in range(SLOTS)]
    batch = np.random.default_rng(0).integers(0, 255, (SLOTS, 64, 64, 3), np.uint8)
    z, (h, c) = agent.see(batch, None), agent.initial_state(SLOTS)
    acts, restart = agent.act(params[:SLOTS], z, h, c), np.zeros(SLOTS, np.float32)
    return {
        "env": 1 / float(np.mean(per_step)),
        "vae": _rate(lambda: agent.see(batch, None), SLOTS, 200),
        "mdnrnn": _rate(lambda: agent.remember(z, acts, h, c, restart), SLOTS, 200),
        "controller": _rate(lambda: agent.decide(params[:SLOTS], z, h, c), SLOTS, 200),
    }


def _timed_play(job, shared: None = None) -> tuple[rollout.Played, dict[str, float]]:
    """A job to its end, and the seconds that went into each part, and into all that is none of them."""
    spent = dict.fromkeys(("env", "vae", "mdnrnn", "controller"), 0.0)
    parts = (
        (TimeLimit, "reset", "env"),
        (TimeLimit, "step", "env"),
        (agents.Agent, "see", "vae"),
        (agents.Agent, "remember", "mdnrnn"),
        (agents.Agent, "decide", "controller"),
    )
    with contextlib.ExitStack() as stack:
        for owner, method, name in parts:
            stack.enter_context(_clocked(owner, method, spent, name))
        began = time.perf_counter()
        played = _play((*job, 0))
        spent["rest"] = time.perf_counter() - began - sum(spent.values())
    return played, spent


@contextlib.contextmanager
def _clocked(owner: type, method: str, spent: dict[str, float], name: str) -> Iterator[None]:
    """Inside it, the seconds that a method takes are added to `spent`."""
    plain = getattr(owner, method)

    def clocked(*args, **kwargs):
        began = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - began

    with mock.patch.object(owner, method, clocked):
        yield


def _rate(work, count: int, repeats: int) -> float:
    work()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    return count * repeats / (time.perf_counter() - began)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=8, help="of each of 32 controllers; default: 8")
    parser.add_argument("--workers", type=int, default=2, help="processes; default: 2")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    found = measure(args.episodes, args.workers)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<22}{value:>14,.2f}")


if __name__ == "__main__":
    main()
