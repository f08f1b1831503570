"""How likely M says an end is, and how likely it is: the calibration of the done head on held-out episodes.

M learns ends with positives that count `done_weight` times, so its logit l is that of a probability whose odds are as
many times too large: p = sigmoid(l - ln done_weight) undoes that. What error is left is taken from the shift: with
`shift` in place of the logarithm the sum of p over held-out steps is the number of their ends. (That is the maximum of
their likelihood over the shift: Platt's calibration with the slope left at 1, for which there are too few ends.)

N steps, T steps of the longest episode of a batch, B episodes side by side, Z latent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wm.core.episodes import EpisodeSet
from wm.models.mdnrnn import MDNRNN

EPISODES = 200
"""Held-out episodes on which ends are counted, at most."""
SIDE_BY_SIDE = 32
FEWEST = 10
"""Ends below which nothing is measured: with ten of them the odds are known to a third."""
SHIFTS = (-20.0, 20.0)
EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Of the bins of a reliability diagram: ends are rare."""


@torch.inference_mode()
def foreseen(memory: MDNRNN, latents: EpisodeSet, indices: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """M's logit of an end at each step of these episodes, and whether the step ended it for good.

    Args:
        memory: an M with a done head, on the CPU.
        latents: as `encode` writes them.
        seed: of z, which is drawn from V's posterior, as M learned and as it dreams.
    Returns:
        logits [N] float64, ends [N] bool, episode by episode.
    """
    rng, logits, ends = np.random.default_rng(seed), {}, {}
    by_length = sorted(indices, key=lambda index: latents.episodes[index]["length"])
    for first in range(0, len(by_length), SIDE_BY_SIDE):
        part = by_length[first : first + SIDE_BY_SIDE]
        episodes = [latents.read(index, ["mu", "logvar", "act", "end"]) for index in part]
        steps = max(len(episode["act"]) for episode in episodes)
        z = torch.zeros(steps, len(part), memory.z_size)
        act, restart = torch.zeros(steps, len(part), memory.action_size), torch.zeros(steps, len(part))
        restart[0] = 1.0
        for place, episode in enumerate(episodes):
            length = len(episode["act"])
            mu, logvar = (episode[name][:length].astype(np.float32) for name in ("mu", "logvar"))
            drawn = mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape, np.float32)
            z[:length, place], act[:length, place] = torch.from_numpy(drawn), torch.from_numpy(episode["act"].copy())
        h, _ = memory.lstm.unroll(memory.inputs(z, act, restart), memory.initial_state(len(part)), restart)
        said = memory.done(h).squeeze(-1).double().numpy()
        for place, (index, episode) in enumerate(zip(part, episodes, strict=True)):
            logits[index] = said[: len(episode["act"]), place]
            ends[index] = episode["end"].astype(bool)
    return np.concatenate([logits[i] for i in indices]), np.concatenate([ends[i] for i in indices])


def shift(logits: np.ndarray, ends: np.ndarray, done_weight: float) -> float:
    """The shift with which p = sigmoid(logits - shift) adds up to the number of ends; ln done_weight where there are
    fewer than `FEWEST` ends, or nothing else."""
    count = int(ends.sum())
    if count < FEWEST or count == len(ends):
        return math.log(done_weight)
    low, high = SHIFTS  # the sum falls as the shift grows
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if probabilities(logits, middle).sum() > count else (low, middle)
    return round(0.5 * (low + high), 6)


def probabilities(logits: np.ndarray, by: float) -> np.ndarray:
    """p(end) [N] of logits [N] that are `by` too large."""
    return 0.5 * (1.0 + np.tanh(0.5 * (logits - by)))


def measure(memory: MDNRNN, latents: EpisodeSet, seed: int) -> float:
    """The shift of M's ends, from held-out episodes."""
    logits, ends = foreseen(memory, latents, latents.held_out[:EPISODES], seed)
    return shift(logits, ends, memory.config.done_weight)


@dataclass(frozen=True)
class Reliability:
    """What M said, and what came of it, in bins of p(end) (`EDGES`).

    Attributes:
        predicted, observed: mean p(end) and share of ends of each bin's steps, [bins]; NaN where it has none.
        steps: of each bin.
    """

    predicted: np.ndarray
    observed: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, p: np.ndarray, ends: np.ndarray) -> Reliability:
        """p(end) [N] beside ends [N]."""
        where = np.clip(np.searchsorted(EDGES, p, side="right") - 1, 0, len(EDGES) - 2)
        steps, predicted, observed = (
            np.bincount(where, weights, len(EDGES) - 1) for weights in (None, p, ends.astype(np.float64))
        )
        with np.errstate(invalid="ignore"):
            return cls(predicted / steps, observed / steps, steps)

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over steps of how far a bin's p is from its share of ends."""
        return float(np.nansum(np.abs(self.predicted - self.observed) * self.steps) / self.steps.sum())
