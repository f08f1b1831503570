"""What can a linear controller tell of the car from what it reads? CarRacing, ridge regression, laps left out.

    python -m bench.readout pretrained/car_racing

An agent drives selection tracks that no search chose it on, and at every step the car's true state is kept beside z, h
and c. A ridge regression from each set of inputs is fitted on three quarters of the laps; the table has its R2 on the
others: 1 is known exactly, 0 is no better than the mean. Forwards and sideways are the car's speed as it points, yaw is
how fast it turns, turn what the road does over the next 12 tiles, bend the same without its sign.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.laps import APART, STANDING, turn_ahead
from wm.core import seeds
from wm.play import agent as agents
from wm.play import rollout

INPUTS = (("z",), ("z", "h"), ("z", "h", "c"))
RIDGE = 100.0
"""Penalty of the squared weights, worth as many steps."""
FLOOR = 0.05
"""Added to an input's deviation before it is scaled by it: what hardly varies stays small."""


@dataclass(frozen=True, kw_only=True)
class Reading(agents.Agent):
    """Keeps what its C read last."""

    read: dict[str, np.ndarray] = field(default_factory=dict)

    def decide(self, params: np.ndarray, z: np.ndarray, h: np.ndarray, c: np.ndarray) -> np.ndarray:
        self.read.update(z=z.copy(), h=h.copy(), c=c.copy())
        return super().decide(params, z, h, c)


class Watched(rollout.AgentDriver):
    """Drives as ever, and keeps what is true beside what C reads: `rows` has (lap, {"z", "h", "c"}, truth)."""

    def __init__(self, agent: agents.Agent, params: np.ndarray, slots: int, sampled: bool):
        super().__init__(Reading(**vars(agent)), params, slots, sampled)
        self.envs = [env.unwrapped for env in rollout.environments(agent.world, None, slots)]
        self.lap, self.step = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        self.rows: list[tuple[int, dict[str, np.ndarray], dict[str, float]]] = []

    def begin(self, slot: int, pair: rollout.Pair) -> None:
        super().begin(slot, pair)
        self.lap[slot], self.step[slot] = pair[1], 0

    def act(self, obs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        acts = super().act(obs, slots)
        for row, slot in enumerate(slots):
            if self.step[slot] >= STANDING:
                read = {name: values[row] for name, values in self.agent.read.items()}
                self.rows.append((self.lap[slot], read, truth(self.envs[slot])))
        self.step[slots] += 1
        return acts


def truth(inside) -> dict[str, float]:
    """What the frame does not say, of Gymnasium's CarRacing."""
    hull = inside.car.hull
    sideways, forwards = hull.GetLocalVector(hull.linearVelocity)
    turn = turn_ahead(np.array(inside.track), hull.position)
    return {"forwards": forwards, "sideways": sideways, "yaw": hull.angularVelocity, "turn": turn, "bend": abs(turn)}


def measure(folder: Path, episodes: int) -> dict[str, dict[str, float]]:
    """R2 of each quantity for each set of inputs; folder holds V, M and C.

    Raises:
        ValueError: not a CarRacing agent, or one whose C does not read M.
    """
    agent, params, about = agents.load(folder)
    if about["world"] != "car_racing" or not agent.needs_memory:
        raise ValueError(f"{folder}: expected an agent of car_racing whose C reads M's state")
    numbers = seeds.episodes(0, seeds.Purpose.SELECTION, APART, count=episodes)
    slots = min(16, episodes)
    driver = Watched(agent, params[None], slots, about["sampled"])
    rollout.play(agent.world, driver, [(0, number) for number in numbers], slots)
    laps, reads, truths = zip(*driver.rows, strict=True)
    left_out = np.isin(laps, numbers[::4])
    names = list(truths[0])
    wanted = np.array([[true[name] for name in names] for true in truths])
    found = {}
    for inputs in INPUTS:
        read = np.array([np.concatenate([one[name] for name in inputs]) for one in reads], np.float64)
        found[", ".join(inputs)] = dict(zip(names, _r2(read, wanted, left_out), strict=True))
    return found


def _r2(read: np.ndarray, wanted: np.ndarray, left_out: np.ndarray) -> list[float]:
    """Of wanted [N, Q] from read [N, D], on the steps left_out [N]; fitted on the others."""
    seen = ~left_out
    read = (read - read[seen].mean(0)) / (read[seen].std(0) + FLOOR)
    middle = wanted[seen].mean(0)
    products = read[seen].T @ read[seen] + RIDGE * np.eye(read.shape[1])
    weights = np.linalg.solve(products, read[seen].T @ (wanted[seen] - middle))
    error = wanted[left_out] - middle - read[left_out] @ weights
    return [float(value) for value in 1 - (error**2).mean(0) / wanted[left_out].var(0)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a CarRacing agent: pretrained/NAME or runs/NAME/evolve")
    parser.add_argument("--episodes", type=int, default=48, help="laps, a quarter of them left out (default 48)")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    if not (args.folder / "controller.json").exists():
        parser.error(f"{args.folder} holds no agent: try pretrained/car_racing")
    if args.episodes < 8:
        parser.error(f"--episodes {args.episodes}: at least 8, two of them left out")
    try:
        found = measure(args.folder, args.episodes)
    except ValueError as error:
        parser.error(str(error))
    if args.json:
        print(json.dumps(found))
        return
    names = list(next(iter(found.values())))
    print(f"{'R2':<12}" + "".join(f"{name:>10}" for name in names))
    for inputs, row in found.items():
        print(f"{inputs:<12}" + "".join(f"{row[name]:>10.2f}" for name in names))


if __name__ == "__main__":
    main()
