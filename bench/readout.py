"""What can a linear controller tell of the car from what it reads? CarRacing, ridge regression, laps left out.

    python -m bench.readout pretrained/car_racing

An agent drives selection tracks that no search chose it on, and at every step the car's true state is kept beside z, h
and c. A ridge regression from each set of inputs is fitted on three quarters of the laps; the table has its R2 on the
others: 1 is known exactly, 0 is no better than the mean. Speeds are in Gymnasium's units a second, forwards and
sideways as the car points, a bend is the turn over the next 12 tiles in radians.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from wm import agent as agents
from wm import rollout, seeds

INPUTS = (("z",), ("z", "h"), ("z", "h", "c"))
AHEAD = 12
STANDING = 50
"""Steps in which a car gets going, left out."""
RIDGE, FLOOR = 100.0, 0.05
"""Penalty, in steps, of inputs that are scaled to about variance 1; what is added to their deviations before that."""
APART = 99
"""A round that no search reaches: its selection tracks are nobody's."""


class Watched(rollout.AgentDriver):
    """Drives as ever, and keeps what C reads and what is true. `rows` has (lap, {"z", "h", "c"}, truth)."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.envs = rollout.environments(self.agent.world, None, len(self.which))
        self.lap, self.step, self.rows = [0] * len(self.which), [0] * len(self.which), []

    def begin(self, slot: int, pair: rollout.Pair) -> None:
        super().begin(slot, pair)
        self.lap[slot], self.step[slot] = pair[1], 0

    def act(self, obs: np.ndarray, slots: np.ndarray) -> np.ndarray:
        for slot, z in zip(slots, self.agent.see(obs, None), strict=True):
            if self.step[slot] >= STANDING:
                reads = {"z": z, "h": self.h[slot].copy(), "c": self.c[slot].copy()}
                self.rows.append((self.lap[slot], reads, truth(self.envs[slot].unwrapped)))
            self.step[slot] += 1
        return super().act(obs, slots)


def truth(inside) -> dict[str, float]:
    """What the frame does not say, of Gymnasium's CarRacing."""
    hull = inside.car.hull
    sideways, forwards = hull.GetLocalVector(hull.linearVelocity)
    headings, places = np.array([point[1] for point in inside.track]), np.array([point[2:4] for point in inside.track])
    tile = int(np.hypot(*(places - np.array(hull.position)).T).argmin())
    turn = headings[(tile + AHEAD) % len(headings)] - headings[tile]
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    return {"forwards": forwards, "sideways": sideways, "yaw": hull.angularVelocity, "turn": turn, "bend": abs(turn)}


def measure(folder: Path, episodes: int) -> dict[str, dict[str, float]]:
    """R2 of each quantity for each set of inputs; folder holds V, M and C."""
    agent, params, _ = agents.load(folder)
    numbers = seeds.episodes(0, seeds.Purpose.SELECTION, APART, count=episodes)
    slots = min(16, episodes)
    driver = Watched(agent, params[None], slots, sampled=False)
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
    found = measure(args.folder, args.episodes)
    if args.json:
        print(json.dumps(found))
        return
    names = list(next(iter(found.values())))
    print(f"{'R2':<12}" + "".join(f"{name:>10}" for name in names))
    for inputs, row in found.items():
        print(f"{inputs:<12}" + "".join(f"{row[name]:>10.2f}" for name in names))


if __name__ == "__main__":
    main()
