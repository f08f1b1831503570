"""Something that nobody here wrote learns inside the dream: PPO of stable-baselines3 plays `wm/Dream-v0`.

    python examples/ppo_in_dream.py [MODEL] [--steps 200000] [--limit 1000] [--tau 1.15] [--seeds 0 1 2]

MODEL is the folder of a model: runs/NAME, or pretrained/NAME. For each seed it prints the mean score of the
first 20 episodes and of the last 20, in the order in which they began (in the order of their ends, short ones
would come first and flatter the progress). It fails where a seed has not gained two standard errors. Three
seeds take five minutes on two cores; stable-baselines3 comes with `make install EXTRAS=dev`.
"""

from __future__ import annotations

import wm  # isort: skip  before NumPy, whose kernels it chooses

import argparse
import sys
from pathlib import Path

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

import wm.gym  # noqa: F401  registers wm/Dream-v0
from wm.core.errors import UserError

MODELS = ("pretrained/take_cover", "runs/take_cover", "runs/take_cover-1", "runs/take_cover_smoke")
COUNTED = 20


class DreamsForSB3(VecEnv):
    """A vector environment that resets in the same step, as stable-baselines3 wants it; keeps score."""

    def __init__(self, envs: gymnasium.vector.VectorEnv, seed: int):
        self.envs, self.first_seed = envs, seed
        self.episodes: list[tuple[int, float]] = []  # (step at which it began, score) of those that ended
        self.steps, self.began, self.score = 0, np.zeros(envs.num_envs, int), np.zeros(envs.num_envs)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> np.ndarray:
        return self.envs.reset(seed=self.first_seed)[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        obs, rew, end, trunc, found = self.envs.step(self.actions)
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        self.steps += 1
        self.score += rew
        for slot in np.flatnonzero(end | trunc):
            infos[slot] = {
                "terminal_observation": found["final_obs"][slot],
                "TimeLimit.truncated": bool(trunc[slot] and not end[slot]),
            }
            self.episodes.append((int(self.began[slot]), float(self.score[slot])))
            self.began[slot], self.score[slot] = self.steps, 0.0
        return obs, rew.astype(np.float32), end | trunc, infos

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices=None) -> list:
        return [getattr(self.envs, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value, indices=None) -> None:
        raise NotImplementedError("a batch of dreams has no attributes of single ones")

    def env_method(self, method_name: str, *args, indices=None, **kwargs) -> list:
        raise NotImplementedError("a batch of dreams has no single ones to call")

    def env_is_wrapped(self, wrapper_class: type, indices=None) -> list[bool]:
        return [False] * self.num_envs


def learn(model: Path, steps: int, limit: int, tau: float, seed: int, count: int = 32) -> np.ndarray:
    """Trains PPO and returns the scores of the episodes, in the order in which they began."""
    envs = gymnasium.make_vec("wm/Dream-v0", num_envs=count, model=model, tau=tau, max_steps=limit)
    dreams = DreamsForSB3(envs, seed * 1_000_000)
    ppo = PPO(
        "MlpPolicy",
        VecNormalize(dreams, norm_obs=False),
        seed=seed,
        n_steps=128,
        batch_size=256,
        learning_rate=1e-3,
        policy_kwargs={"log_std_init": -0.5},
        device="cpu",
    )
    ppo.learn(steps)
    return np.array([score for _, score in sorted(dreams.episodes, key=lambda episode: episode[0])])


def main() -> int:
    """Parses the command line, trains once a seed, prints; 1 where a seed learned nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help=f"default: {', or '.join(MODELS)}")
    parser.add_argument("--steps", type=int, default=200_000, help="dreamed steps a seed")
    parser.add_argument("--limit", type=int, default=1000, help="steps after which an episode is truncated")
    parser.add_argument("--tau", type=float, default=1.15, help="temperature")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    found = [Path(name) for name in MODELS if list(Path(name).glob("**/mdnrnn.json"))]
    if not (options.model or found):
        print("no model yet: run `dvc repro train_mdn@take_cover-1`, or name another model: runs/NAME")
        return 2
    learned = []
    for seed in options.seeds:
        try:
            scores = learn(options.model or found[0], options.steps, options.limit, options.tau, seed)
        except UserError as error:
            print(f"error: {error}")
            return 2
        if len(scores) < 2 * COUNTED:
            print(f"seed {seed}: {len(scores)} episodes ended: more than {options.steps} --steps are needed")
            return 2
        first, last = scores[:COUNTED], scores[-COUNTED:]
        error = np.sqrt((first.var(ddof=1) + last.var(ddof=1)) / COUNTED)
        learned.append(last.mean() - first.mean() > 2 * error)
        print(
            f"seed {seed}: {len(scores)} episodes; first {COUNTED}: {first.mean():.1f}, "
            f"last {COUNTED}: {last.mean():.1f}, difference {(last.mean() - first.mean()) / error:.1f} "
            "standard errors",
            flush=True,
        )
    if not all(learned):
        weak = ", ".join(str(seed) for seed, good in zip(options.seeds, learned, strict=True) if not good)
        print(f"error: less than two standard errors were gained with seed {weak}: more --steps may help")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
