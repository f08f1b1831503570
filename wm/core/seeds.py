"""Where every random number comes from: one experiment seed, a stage, and a place in it.

Seeds of episodes carry their purpose in the top bits, so that the sets can never overlap: no track that selects or
scores an agent was ever driven in training.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What an episode is for, or a stream of numbers."""

    EXPLORATION = 0  # collect
    TRAINING = 1  # evolve: fitness
    SELECTION = 2  # evolve: which candidate is kept
    GATE = 3  # which agent becomes champion
    TEST = 4  # what is reported
    TRAIN_VAE = 5
    TRAIN_MDN = 6
    CMA = 7


FIXED = (Purpose.GATE, Purpose.TEST)
"""The same episodes whatever the experiment's seed, so that agents are compared in pairs."""


def sequence(seed: int, purpose: Purpose, *key: int) -> np.random.SeedSequence:
    """The source of randomness of a purpose at a place, e.g. (generation,)."""
    return np.random.SeedSequence(0 if purpose in FIXED else seed, spawn_key=(int(purpose), *key))


def episodes(seed: int, purpose: Purpose, *key: int, count: int) -> list[int]:
    """`count` different seeds for `env.reset`, below 2**31, disjoint from those of any other purpose."""
    state = sequence(seed, purpose, *key).generate_state(2 * count + 16, np.uint32)
    unique = list(dict.fromkeys(int(value) >> 4 for value in state))
    return [(int(purpose) << 28) | value for value in unique[:count]]


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """A NumPy generator for a purpose at a place."""
    return np.random.default_rng(sequence(seed, purpose, *key))


def torch_generator(seed: int, purpose: Purpose, *key: int, device: str = "cpu") -> torch.Generator:
    """A torch generator for a purpose at a place."""
    state = sequence(seed, purpose, *key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]) >> 1)
