"""Makes a small data set of Minari's: `python tests/minari_data.py NAME-v0 [unbounded]`, into MINARI_DATASETS_PATH."""

from __future__ import annotations

import sys

import minari
import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

EPISODES, STEPS = 12, 25


def episode(number: int, unbounded: bool = False) -> EpisodeBuffer:
    """A square that steps; three choices, or a number that nothing bounds."""
    rng = np.random.default_rng(number)
    acts = rng.integers(3, size=STEPS)
    at = np.cumsum(np.concatenate([[30], 3 * (acts - 1)])).clip(4, 60)
    obs = np.zeros((STEPS + 1, 64, 72, 3), np.uint8)
    for step, column in enumerate(at):
        obs[step, 20:40, column - 4 : column + 4] = (200, 100, 50)
    ends = np.zeros(STEPS, bool)
    ends[-1] = number % 2
    cut = np.zeros(STEPS, bool)
    cut[-1] = not ends[-1]
    if unbounded:
        acts = (5.0 * (acts - 1))[:, None].astype(np.float32)
    return EpisodeBuffer(observations=obs, actions=acts, rewards=at[1:] / 64.0, terminations=ends, truncations=cut)


if __name__ == "__main__":
    unbounded = "unbounded" in sys.argv
    minari.create_dataset_from_buffers(
        sys.argv[1],
        [episode(number, unbounded) for number in range(EPISODES)],
        algorithm_name="by lot",
        author="nobody",
        author_email="nobody@example.org",
        code_permalink="none",
        action_space=spaces.Box(-np.inf, np.inf, (1,)) if unbounded else spaces.Discrete(3),
        observation_space=spaces.Box(0, 255, (64, 72, 3), np.uint8),
    )
