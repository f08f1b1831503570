"""Where does a CarRacing agent lose its points? Its laps on selection tracks, tile by tile.

    python -m bench.laps pretrained/car_racing

Plays tracks that no search chose an agent on, then drives the same actions again and reads what the frames don't say:
which tiles were missed, how fast the car was in bends of which sharpness, how often it braked, and, of lost tracks, top
speed and sharpest bend in the 60 steps before the longest time without a new tile (medians). Speeds are in Gymnasium's
units a second, a bend is the turn over the next 12 tiles in radians.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from wm import worlds
from wm.core import seeds
from wm.play.cluster import Cluster
from wm.stages.evaluate import EvaluateConfig, play_agent

LOST = 0.9
"""A track with a smaller share of its tiles visited counts as lost."""
BENDS = (0.0, 0.2, 0.5, 1.0, 1.5, 2.0, np.pi)
"""Bounds of the classes of bends, radians over `AHEAD` tiles."""
AHEAD = 12
OFF_ROAD = 30
"""Steps without a new tile after which a car has left the road for good, or nearly: where training episodes end."""
STANDING = 60
"""Steps in which a car gets going, with long times between tiles."""
APART = 99
"""A round that no search reaches: its selection tracks are nobody's."""


def measure(folder: Path, episodes: int, workers: int) -> dict[str, object]:
    """See the module; folder holds V, M and C."""
    numbers = seeds.episodes(0, seeds.Purpose.SELECTION, APART, count=episodes)
    config = EvaluateConfig(episodes_per_job=10, slots=10)
    with Cluster(workers) as cluster:
        scores, _, acts = play_agent(config, "car_racing", folder, numbers, cluster, "fast", "laps")
    env = worlds.get("car_racing").make()
    laps = [_again(env, number, act) for number, act in zip(numbers, acts, strict=True)]
    share, missed = np.array([lap["share"] for lap in laps]), np.array([lap["missed"] for lap in laps])
    complete, lost = missed == 0, share < LOST
    bend, speed = (np.concatenate([lap[name] for lap in laps]) for name in ("bend", "speed"))
    left = [lap for lap, is_lost in zip(laps, lost, strict=True) if is_lost and lap["pause"] >= OFF_ROAD]
    before = [slice(max(0, lap["left"] - 60), lap["left"] + 1) for lap in left]
    steps = np.array([len(act) for act in acts])
    return {
        "tracks": episodes,
        "score": float(scores.mean()),
        "complete": int(complete.sum()),
        "complete_steps": [int(steps[complete].min()), int(steps[complete].max())] if complete.any() else None,
        "with_gaps": int((~complete & ~lost).sum()),
        "with_gaps_missed": float(np.median(missed[~complete & ~lost])) if (~complete & ~lost).any() else None,
        "lost": int(lost.sum()),
        "lost_score": float(scores[lost].mean()) if lost.any() else None,
        "other_score": float(scores[~lost].mean()) if (~lost).any() else None,
        "lost_off_the_road": len(left),
        "before_top_speed": _median([lap["speed"][part].max() for lap, part in zip(left, before, strict=True)]),
        "before_sharpest_bend": _median([lap["bend"][part].max() for lap, part in zip(left, before, strict=True)]),
        "braking": float(np.mean(np.concatenate(acts)[:, 2] > 0)),
        "speed": float(speed.mean()),
        "speed_in_bends": {
            f"{low:.1f} to {high:.1f}": float(speed[(low <= bend) & (bend < high)].mean())
            for low, high in pairwise(BENDS)
            if ((low <= bend) & (bend < high)).any()
        },
    }


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def turn_ahead(road: np.ndarray, position: tuple[float, float]) -> float:
    """Radians that the road turns over the next `AHEAD` tiles, to the left; road [tiles, 4] is Gymnasium's track."""
    tile = int(np.hypot(*(road[:, 2:] - np.array(position)).T).argmin())
    turn = road[(tile + AHEAD) % len(road), 1] - road[tile, 1]
    return float((turn + np.pi) % (2 * np.pi) - np.pi)


def _again(env, number: int, acts: np.ndarray) -> dict:
    """One lap driven again: its gaps, and at every step speed and bend ahead."""
    env.reset(seed=number)
    inside = env.unwrapped
    road = np.array(inside.track)
    speed, bend, found = np.empty(len(acts)), np.empty(len(acts)), [0]
    for step, act in enumerate(acts):
        hull = inside.car.hull
        speed[step], bend[step] = np.hypot(*hull.linearVelocity), abs(turn_ahead(road, hull.position))
        visited = inside.tile_visited_count
        env.step(act)
        if inside.tile_visited_count > visited:
            found.append(step)
    begins = np.array([step for step in found if step >= STANDING] or [0])
    pauses = np.diff([*begins, len(acts)])
    missed = len(road) - inside.tile_visited_count
    return {
        "share": 1 - missed / len(road),
        "missed": missed,
        "speed": speed,
        "bend": bend,
        "left": begins[pauses.argmax()],
        "pause": pauses.max(),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a CarRacing agent: pretrained/NAME or runs/NAME/evolve")
    parser.add_argument("--episodes", type=int, default=96, help="tracks (default 96)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    if not (args.folder / "controller.json").exists():
        parser.error(f"{args.folder} holds no agent: try pretrained/car_racing")
    found = measure(args.folder, args.episodes, args.workers)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        rows = value.items() if isinstance(value, dict) else [(name, value)]
        if isinstance(value, dict):
            print(name)
        for label, figure in rows:
            print(f"{label:<20}" + (f"{figure:>10.3f}" if isinstance(figure, float) else f"{figure!s:>10}"))


if __name__ == "__main__":
    main()
