"""Does surprise see that a world has changed? V's and M's, of an agent that plays its own world and changed ones.

    python -m bench.surprise pretrained/car_racing pretrained/take_cover

CarRacing with blue grass, with a road that grips as little as grass, with the wheel mirrored, and with noise on the
frames; Doom at skill 5. For each: the area under the ROC curve (0.5: nothing is seen; 1: every changed step, or
episode, surprises more than every own one) of steps and of episodes' means, with the 95% interval of a percentile
bootstrap over episodes. The same seeds in all worlds; the first row is the own world on other seeds.
"""

from __future__ import annotations

import wm  # noqa: F401  # isort: skip  before NumPy, whose kernels it chooses

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np

from wm import worlds
from wm.core import episodes
from wm.models import surprise
from wm.play import agent as agents
from wm.play import rollout
from wm.play.agent import AgentFiles
from wm.play.cluster import Cluster
from wm.release import places
from wm.worlds.base import World
from wm.worlds.car_racing.world import SPEC, CarRacing, FastCarRacing
from wm.worlds.take_cover.doom import Game
from wm.worlds.take_cover.world import TakeCover, TakeCoverEnv, configure

GRIP = 0.6
"""Of the road with other friction: grass has as much."""
NOISE = 10.0
"""Standard deviation of the noise on frames, of 255."""
RESAMPLES = 1000
BATCH = 50


class _Colours(gymnasium.ObservationWrapper):
    def observation(self, frame: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(frame[..., [0, 2, 1]])


class _Mirrored(gymnasium.ActionWrapper):
    def action(self, act: np.ndarray) -> np.ndarray:
        return act * np.array([-1, 1, 1], np.float32)


class _Noise(gymnasium.ObservationWrapper):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        self._rng = np.random.default_rng(seed)
        return super().reset(seed=seed, options=options)

    def observation(self, frame: np.ndarray) -> np.ndarray:
        return (frame + NOISE * self._rng.standard_normal(frame.shape)).round().clip(0, 255).astype(np.uint8)


class _Slippery(FastCarRacing):
    def _create_track(self) -> bool:
        made = super()._create_track()
        for tile in self.road or ():
            tile.road_friction = GRIP
        return made


class _Skill5(TakeCoverEnv):
    def reset(self, **options: Any) -> tuple[np.ndarray, dict]:
        if self._game is None:
            doom = configure(self.resolution)
            doom.set_doom_skill(5)
            self._game = Game(doom)
        return super().reset(**options)


class ChangedCarRacing(CarRacing):
    """CarRacing, changed in one way: "colours", "friction", "steering" or "noise"."""

    def __init__(self, way: str):
        self.way, self.spec = way, replace(SPEC, name=f"car_racing_{way}")

    def make(self, drawing: str | None = None) -> gymnasium.Env:
        if self.way == "friction":
            return gymnasium.wrappers.TimeLimit(_Slippery("rgb_array"), self.spec.max_steps)
        wrapper = {"colours": _Colours, "steering": _Mirrored, "noise": _Noise}[self.way]
        return wrapper(super().make(drawing))


class ChangedTakeCover(TakeCover):
    """Doom at skill 5."""

    def __init__(self, way: str):
        self.spec = replace(TakeCover.spec, name=f"take_cover_{way}")

    def make(self, drawing: str | None = None) -> gymnasium.Env:
        return _Skill5(render_mode="rgb_array")


CHANGES = {"car_racing": ("colours", "friction", "steering", "noise"), "take_cover": ("skill 5",)}
CLASSES = {"car_racing": "ChangedCarRacing", "take_cover": "ChangedTakeCover"}


@dataclass(frozen=True)
class Job:
    """An episode of at most so many steps."""

    world: str
    seed: int
    steps: int


def watch(job: Job, files: AgentFiles) -> dict[str, np.ndarray]:
    """Plays it -> what surprised V and M, "V" [T] and "M" [T - 1]."""
    agent, params, about = files.agent()
    world: World = worlds.get(job.world)
    shard = _Kept(episodes.frame_columns(world.spec.action_size))
    driver = rollout.AgentDriver(agent, params[None], 1, about["sampled"])
    rollout.play(world, driver, [(0, job.seed)], 1, limit=job.steps, shard=shard)
    (episode,) = shard.kept
    v, mu = surprise.to_v(agent.vae, episode["obs"], BATCH)
    return {"V": v, "M": surprise.to_m(agent.mdnrnn, mu, episode["act"])}


@dataclass
class _Kept(episodes.Shard):
    """Keeps episodes as they are instead of writing them."""

    def __post_init__(self) -> None:
        self.kept: list[episodes.Episode] = []

    def add(self, episode: episodes.Episode, **about: Any) -> None:
        self.kept.append(episode)


def area(own: np.ndarray, changed: np.ndarray) -> float:
    """Under the ROC curve: the share of pairs in which the changed one surprises more; half of equal ones."""
    order = np.sort(own)
    below, not_above = (np.searchsorted(order, changed, side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(own)))


def interval(own: Sequence[np.ndarray], changed: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The area over the steps of these episodes, and its 95% interval: episodes are drawn again, on each side."""
    rng = np.random.default_rng(0)

    def again(side: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([side[index] for index in rng.integers(0, len(side), len(side))])

    areas = [area(again(own), again(changed)) for _ in range(RESAMPLES)]
    return area(np.concatenate(own), np.concatenate(changed)), *np.quantile(areas, [0.025, 0.975])


def measure(name: str, count: int, steps: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """An agent -> change -> "V, steps", "V, episodes", "M, steps", "M, episodes" -> the area and its interval."""
    place = places.find(name)
    files, world = AgentFiles.read(place.folder), agents.load(place.folder)[2]["world"]
    for way in CHANGES[world]:
        worlds.register(f"{world}_{way}", f"bench.surprise:{CLASSES[world]}", {"way": way})
    plays = {"": (world, 0), "none, other seeds": (world, 10_000)}
    plays |= {way: (f"{world}_{way}", 0) for way in CHANGES[world]}
    seen: dict[str, list[Mapping[str, np.ndarray]]] = {}
    with Cluster() as cluster:
        for label, (played, first) in plays.items():
            todo = [Job(played, 20_000 + first + index, steps) for index in range(count)]
            seen[label] = list(cluster.map(watch, todo, files))
    own, found = seen.pop(""), {}
    for label, changed in seen.items():
        found[label] = {}
        for side in ("V", "M"):
            mine, theirs = ([one[side] for one in part] for part in (own, changed))
            found[label][f"{side}, steps"] = interval(mine, theirs)
            means = ([values.mean(keepdims=True) for values in part] for part in (mine, theirs))
            found[label][f"{side}, episodes"] = interval(*means)
    return found


def main() -> None:
    """Prints a table an agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", nargs="+", metavar="AGENT", help="of car_racing or take_cover: a folder, or a name")
    parser.add_argument("--episodes", type=int, default=16, help="of each world; default: 16")
    parser.add_argument("--steps", type=int, default=300, help="of an episode, at most; default: 300")
    args = parser.parse_args()
    for name in args.agents:
        found = measure(name, args.episodes, args.steps)
        print(f"\n{name}, {args.episodes} episodes of at most {args.steps} steps a world\n")
        print("| change | " + " | ".join(next(iter(found.values()))) + " |\n|---|---|---|---|---|")
        for label, areas in found.items():
            print(
                f"| {label} | "
                + " | ".join(f"{a:.2f} ({low:.2f} to {high:.2f})" for a, low, high in areas.values())
                + " |"
            )


if __name__ == "__main__":
    main()
