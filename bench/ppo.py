"""PPO of stable-baselines3 in the fast CarRacing: how many steps a second does it learn from, and does the score rise?

    python -m bench.ppo [--steps 20000] [--places 8] [--seed 0] [--json]

`gymnasium.make_vec("wm/CarRacing-v0", num_envs=8)`: stable-baselines3 comes with `make install`.
"""

from __future__ import annotations

import wm  # isort: skip  before NumPy, whose kernels it chooses

import argparse
import json
import time

import gymnasium
import numpy as np

import wm.gym  # noqa: F401  registers wm/CarRacing-v0
from examples.ppo_in_dream import DreamsForSB3


def learn(steps: int, places: int, seed: int) -> dict[str, float]:
    """Trains, and says how fast, and the scores of the first and the last ten episodes in the order of their begin."""
    from stable_baselines3 import PPO

    envs = DreamsForSB3(gymnasium.make_vec("wm/CarRacing-v0", num_envs=places, autoreset_mode="SameStep"), seed)
    try:
        ppo = PPO("CnnPolicy", envs, seed=seed, n_steps=128, batch_size=256, device="cpu")
        began = time.perf_counter()
        ppo.learn(steps)
        seconds = time.perf_counter() - began
        scores = np.array([score for _, score in sorted(envs.episodes, key=lambda episode: episode[0])])
    finally:
        envs.close()
    return {
        "steps": ppo.num_timesteps,
        "seconds": seconds,
        "steps_per_second": ppo.num_timesteps / seconds,
        "episodes": len(scores),
        "first_ten": float(scores[:10].mean()) if len(scores) else float("nan"),
        "last_ten": float(scores[-10:].mean()) if len(scores) else float("nan"),
    }


def main() -> None:
    """Parses the command line, trains, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = learn(options.steps, options.places, options.seed)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"PPO, {options.places} places: {found['steps']:,} steps in {found['seconds']:.0f} s "
        f"({found['steps_per_second']:.0f} a second); {found['episodes']} episodes, the first ten score "
        f"{found['first_ten']:.1f}, the last ten {found['last_ten']:.1f}"
    )


if __name__ == "__main__":
    main()
