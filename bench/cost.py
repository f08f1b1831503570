"""How the cost of a generation grows with population, episodes and workers: a table and a plot.

    python -m bench.cost [--steps 100] [--picture docs/pictures/cost.png] [--json]

A generation is population x episodes of CarRacing with V, M and C, cut after so many steps, on 1 and on 2 workers. For
more workers than a machine has cores, the environment is replaced by one that sleeps: what is measured then is the
engine's overhead (jobs, messages, the order of results), not its speed, and the row says so.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import gymnasium
import numpy as np

from bench.rollout import same_agent
from wm.core.journal import bar
from wm.pictures import figures
from wm.play import rollout
from wm.play.cluster import Cluster

SLOTS, EPISODES_PER_JOB, SLEEP = 8, 16, 0.002
GRID = [(16, 2), (32, 2), (64, 2), (32, 4), (32, 8)]


class _Sleeper(gymnasium.Env):
    """An environment of which a step takes SLEEP seconds of nobody's processor."""

    def reset(self, *, seed=None, options=None):
        return np.zeros((64, 64, 3), np.uint8), {}

    def step(self, act):
        time.sleep(SLEEP)
        return np.zeros((64, 64, 3), np.uint8), 1.0, False, False, {}


class _Asleep:
    """A driver that costs nothing."""

    def begin(self, slot: int, pair: rollout.Pair) -> None:
        pass

    def act(self, obs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        return np.zeros((len(slots), 3), np.float32)


def _play(job, shared=None) -> int:
    """One job, real or asleep; the steps that it played."""
    params, pairs, steps, asleep = job
    agent = same_agent()
    if asleep:
        rollout._ENVIRONMENTS.setdefault(("car_racing", "asleep"), [_Sleeper() for _ in range(SLOTS)])
        played = rollout.play(agent.world, _Asleep(), pairs, SLOTS, drawing="asleep", limit=steps)
    else:
        driver = rollout.AgentDriver(agent, params, SLOTS, sampled=False)
        played = rollout.play(agent.world, driver, pairs, SLOTS, limit=steps)
    return int(played.lengths.sum())


def generation(cluster: Cluster, population: int, episodes: int, steps: int, asleep: bool) -> float:
    """Seconds of one generation."""
    params = np.random.default_rng(0).normal(0, 0.1, (population, 867)).astype(np.float32)
    pairs = [(candidate, seed) for seed in range(episodes) for candidate in range(population)]
    jobs = [
        (params, pairs[start : start + EPISODES_PER_JOB], steps, asleep)
        for start in range(0, len(pairs), EPISODES_PER_JOB)
    ]
    began = time.perf_counter()
    sum(cluster.map(_play, jobs))
    return time.perf_counter() - began


def measure(steps: int = 100) -> list[dict]:
    """A row a combination: population, episodes, workers, seconds, and whether the world slept."""
    rows = []
    progress = bar(6 * len(GRID), "bench cost", "generation")
    for workers in (1, 2, 4, 8):
        asleep = workers > 2
        for world in [True] if asleep else [False, True]:
            with Cluster(workers) as cluster:
                generation(cluster, 16, workers, 2, world)  # workers start, models are made
                for population, episodes in GRID:
                    seconds = generation(cluster, population, episodes, steps, world)
                    progress.update()
                    rows.append(
                        {
                            "world": "sleeping" if world else "CarRacing",
                            "workers": workers,
                            "population": population,
                            "episodes": episodes,
                            "seconds": seconds,
                            "ideal": population * episodes * steps * SLEEP / workers if world else None,
                        }
                    )
    progress.close()
    return rows


def picture(rows: list[dict], path: Path) -> None:
    """Seconds of a generation over its episodes, a line a number of workers, the real and the sleeping world."""
    lines: dict[int, dict] = {}
    titles = {"CarRacing": "CarRacing, seconds", "sleeping": "Sleeping world, seconds (overhead)"}
    panels: dict[str, list[str]] = {title: [] for title in titles.values()}
    for row in rows:
        count, name = row["population"] * row["episodes"], f"{row['world']}/{row['workers']} workers"
        lines.setdefault(count, {"step": count})[name] = row["seconds"]
        if name not in panels[titles[row["world"]]]:
            panels[titles[row["world"]]].append(name)
    ordered = [lines[count] for count in sorted(lines)]
    figures.curves(ordered, path, panels, xlabel="episodes of a generation", title="What a generation costs")


def main() -> None:
    """Prints the table; writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="of each episode; default: 100")
    parser.add_argument("--picture", type=Path, help="a PNG to write")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    rows = measure(args.steps)
    if args.json:
        print(json.dumps(rows))
    else:
        _print(rows)
    if args.picture:
        picture(rows, args.picture)


def _print(rows: list[dict]) -> None:
    print("| world | workers | population | episodes | seconds | sleep alone |\n|---|---|---|---|---|---|")
    for row in rows:
        ideal = f"{row['ideal']:.1f}" if row["ideal"] else ""
        cells = [row["world"], row["workers"], row["population"], row["episodes"], f"{row['seconds']:.1f}", ideal]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
