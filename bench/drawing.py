"""CarRacing's fast drawing next to Gymnasium's: the same episodes, nearly the same pixels, how much faster.

    python -m bench.drawing [--seeds 100] [--json] [--picture docs/pictures/drawing.png]

T time.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import median
from time import process_time

import cv2
import gymnasium
import numpy as np
from Box2D.b2 import polygonShape
from gymnasium.envs.box2d import car_dynamics

from wm.worlds import get
from wm.worlds.car_racing.drawing import HEIGHT, Drawing
from wm.worlds.car_racing.world import SPEC, GymnasiumCarRacing


class Undrawn(GymnasiumCarRacing):
    """Gymnasium's own CarRacing with its drawing switched off: the reference, and the bound on speed."""

    def reset(self, **kwargs):
        ours, car_dynamics.polygonShape = car_dynamics.polygonShape, polygonShape  # nothing of ours in it
        try:
            return super().reset(**kwargs)
        finally:
            car_dynamics.polygonShape = ours

    def _render(self, mode: str) -> None:
        return None


def drive(env: GymnasiumCarRacing, rng: np.random.Generator | None = None) -> np.ndarray:
    """The action of a driver who knows the track: aims ahead, slows before turns; `rng` shakes the wheel."""
    track = np.array(env.track)  # alpha, heading, x, y of each tile
    x, y = env.car.hull.position
    here = int(np.argmin((track[:, 2] - x) ** 2 + (track[:, 3] - y) ** 2))
    ahead, further = track[(here + 4) % len(track)], track[(here + 12) % len(track)]
    aim = math.atan2(ahead[3] - y, ahead[2] - x) - math.pi / 2
    turn = (aim - env.car.hull.angle + math.pi) % (2 * math.pi) - math.pi
    bend = abs((further[1] - track[here, 1] + math.pi) % (2 * math.pi) - math.pi)
    speed, limit = math.hypot(*env.car.hull.linearVelocity), 62 - 22 * min(bend, 1.5)
    steer = -1.5 * turn + (0 if rng is None else 0.3 * rng.standard_normal())
    return np.clip([steer, 0.8 * (speed < limit), 0.4 * (speed > limit + 8)], [-1, 0, 0], 1).astype(np.float32)


def straight_on(env: GymnasiumCarRacing) -> np.ndarray:
    """Some gas and nothing else: leaves the playfield."""
    return np.array([0, 0.2, 0], np.float32)


def record(seed: int, policy=drive, steps: int = SPEC.max_steps) -> dict:
    """An episode of Gymnasium's own CarRacing: its track, and acts [T, 3], rew [T], end [T]."""
    env = Undrawn()
    env.reset(seed=seed)
    acts, rew, end = [], [], []
    while len(acts) < steps and not any(end):
        acts.append(policy(env))
        _, r, e, _, _ = env.step(acts[-1])
        rew.append(float(r))
        end.append(e)
    return {"seed": seed, "track": env.track, "acts": acts, "rew": rew, "end": end}


def replay(env: gymnasium.Env, episode: dict) -> dict:
    """The same actions in `env`: what `record` gives, and the frames [T, 64, 64, 3]."""
    env.reset(seed=episode["seed"])
    obs, rew, end, _, _ = zip(*(env.step(act) for act in episode["acts"]), strict=True)
    return {
        **episode,
        "track": env.unwrapped.track,
        "rew": [float(r) for r in rew],
        "end": list(end),
        "obs": obs,
    }


def same(one: dict, other: dict) -> bool:
    """Whether two episodes have the same track, rewards and ends, to the last bit."""
    return all(one[key] == other[key] for key in ("track", "rew", "end"))


def pairs(seed: int, policy, every: int = 10, steps: int = SPEC.max_steps):
    """Yields (step, Gymnasium's frame, the fast frame) of one episode; every frame of the first 10."""
    env, drawing = Undrawn(), Drawing()
    env.reset(seed=seed)
    drawing.lay(env.road_poly)
    for step in range(steps):
        frame = drawing.draw(env.car, env.t)  # at each step, as it follows which tiles are touched
        if step % every == 0 or step < 10:
            full = GymnasiumCarRacing._render(env, "state_pixels")[:HEIGHT]
            yield step, cv2.resize(full, (64, 64), interpolation=cv2.INTER_AREA), frame
        if env.step(policy(env))[2]:
            break


def policies(seed: int) -> dict:
    """The ways of driving on which pixels are compared."""
    explorer = get("car_racing").explorer(np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    return {
        "driver": drive,
        "shaky driver": lambda env: drive(env, rng),
        "explorer": lambda env: explorer(None),
        "straight on": straight_on,
    }


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two frames, in levels of 255."""
    return float(np.abs(one.astype(int) - other).mean())


def pixel_differences(seeds: int, every: int) -> dict[str, list[float]]:
    """Per way of driving, the difference of each compared frame."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        for name, policy in policies(seed).items():
            found.setdefault(name, []).extend(difference(a, b) for _, a, b in pairs(seed, policy, every))
    return found


def rate(env: gymnasium.Env, episode: dict, steps: int) -> float:
    """Steps a second over an episode's first steps, reset not counted."""
    env.reset(seed=episode["seed"])
    start = process_time()
    for act in episode["acts"][:steps]:
        env.step(act)
    return steps / (process_time() - start)


def reset_time(env: gymnasium.Env, seed: int) -> float:
    """Milliseconds of one reset."""
    start = process_time()
    env.reset(seed=seed)
    return (process_time() - start) * 1e3


def measure_speed(repeats: int = 5, steps: int = 250) -> dict:
    """Medians over interleaved repeats of one recorded episode: steps a second, and milliseconds a reset.

    All in processor seconds of this one thread, so that other programs on the machine count little.
    """
    cv2.setNumThreads(1)
    envs = {
        "gymnasium": gymnasium.make("CarRacing-v3", disable_env_checker=True),
        "fast": get("car_racing").make("fast"),
        "physics": Undrawn(),
    }
    episode = record(0, steps=steps)
    rates: dict[str, list] = {name: [] for name in envs}
    resets: dict[str, list] = {name: [] for name in envs}
    for repeat in range(repeats):
        for name, env in envs.items():
            rates[name].append(rate(env, episode, steps))
            resets[name].extend(reset_time(env, 3 * repeat + k) for k in range(3))
    out = {f"{name}_steps_per_s": median(values) for name, values in rates.items()}
    out |= {f"{name}_reset_ms": median(values) for name, values in resets.items()}
    ratios = {name: median(np.divide(rates["fast"], rates[name])) for name in ("gymnasium", "physics")}
    out["times_gymnasium"], out["share_of_physics"] = float(ratios["gymnasium"]), float(ratios["physics"])
    return out


def measure_equality(seeds: int) -> dict:
    """Full driven episodes on `seeds` tracks, and two that leave the playfield: how many are bit-equal."""
    env = get("car_racing").make("fast")
    episodes = [record(seed) for seed in range(seeds)] + [record(seed, straight_on) for seed in range(2)]
    equal = sum(same(episode, replay(env, episode)) for episode in episodes)
    laps = sum(episode["end"][-1] for episode in episodes[:seeds])
    return {
        "episodes": len(episodes),
        "episodes_bit_equal": equal,
        "steps": sum(len(episode["acts"]) for episode in episodes),
        "laps_finished": laps,
        "mean_score": float(np.mean([sum(episode["rew"]) for episode in episodes[:seeds]])),
    }


def measure(seeds: int = 100, pixel_seeds: int = 3, every: int = 10, repeats: int = 5) -> dict:
    """Speed and resets, bit-equality on `seeds` tracks, pixels of four ways of driving on `pixel_seeds`.

    Returns:
        Flat numbers: see `measure_speed` and `measure_equality`; pixel differences are in levels of 255.
    """
    out = measure_speed(repeats) | measure_equality(seeds)
    found = pixel_differences(pixel_seeds, every)
    every_frame = np.concatenate(list(found.values()))
    out |= {f"pixel_difference_{name.replace(' ', '_')}": float(np.mean(values)) for name, values in found.items()}
    out["pixel_difference"] = float(every_frame.mean())
    out["pixel_difference_worst_frame"] = float(every_frame.max())
    out["frames_compared"] = len(every_frame)
    return out


def side_by_side(path: Path) -> None:
    """Writes a picture: Gymnasium's frames, the fast ones, and their difference times 8."""
    shown = {0: 0, 3: 1, 10: 0, 30: 1, 60: 0, 150: 0, 200: 1, 300: 0, 400: 1, 500: 0}
    columns = []
    for index, name in enumerate(("driver", "explorer")):
        for step, reference, fast in pairs(4, policies(4)[name], steps=501):
            if shown.get(step) == index:
                gap = np.clip(np.abs(reference.astype(int) - fast) * 8, 0, 255).astype(np.uint8)
                columns.append((step, np.vstack([np.pad(f, ((0, 2), (0, 2), (0, 0))) for f in (reference, fast, gap)])))
    image = np.hstack([column for _, column in sorted(columns, key=lambda c: c[0])])
    image = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    image = np.pad(image, ((0, 0), (120, 0), (0, 0)))
    for row, text in enumerate(("Gymnasium's", "fast", "difference x 8")):
        cv2.putText(image, text, (4, 70 + 132 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="tracks on which episodes must be bit-equal")
    parser.add_argument("--repeats", type=int, default=5, help="of each timing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--picture", type=Path, help="write a picture with both drawings side by side")
    args = parser.parse_args()
    found = measure(args.seeds, repeats=args.repeats)
    if args.picture:
        side_by_side(args.picture)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:36} {value:12,.4g}" if isinstance(value, float) else f"{name:36} {value:12,}")


if __name__ == "__main__":
    main()
