"""A world of which there are only recordings: what the dream says of the kept controller, and what that is worth.

There the dream is all that can be asked. So what M says is set beside what was recorded: the actions of episodes that
it never learned from, played in its dream from their first frames on, have to be paid as they were.

B episodes side by side, T steps of the longest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from wm.core import seeds
from wm.core.episodes import EpisodeSet
from wm.core.errors import UserError
from wm.models.mdnrnn import MDNRNN, sample
from wm.search.config import EvolveConfig
from wm.search.fitness import Scorer
from wm.worlds.base import World, symexp

FILE = "dream.json"
"""In the folder of an agent whose world has no environment."""
EPISODES = 100
"""Held-out episodes that are played again, at most."""
SIDE_BY_SIDE = 50
RESAMPLES = 10_000


def check(config: EvolveConfig, world: World) -> None:
    """Raises UserError where a search needs an environment, and there are only recordings."""
    if world.recordings and not config.dream_decides:
        raise UserError(
            f"the world {world.spec.name} is recordings ({world.recordings}), which no controller can play: set "
            "evolve.dream to true and evolve.select to dream"
        )


def report(
    scorer: Scorer, params: np.ndarray, memory: MDNRNN, latents: EpisodeSet, world: World, tau: float
) -> dict[str, Any]:
    """What is kept beside the controller [N] and told by `evaluate`: its dreamed episodes, and the calibration."""
    numbers, scores, lengths = scorer.dreamed(params)
    dreamed, paid = replayed(memory, latents, world, tau)
    found = {"seeds": numbers, "scores": scores.tolist(), "lengths": lengths.tolist()}
    return {"world": world.spec.name, **found, "calibration": calibration(dreamed, paid)}


@torch.inference_mode()
def replayed(memory: MDNRNN, latents: EpisodeSet, world: World, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns [N] of held-out episodes' actions in the dream, and those that were recorded.

    As where ends are expected, what a step pays counts with the probability of having lived until then.
    """
    chosen = latents.held_out[:EPISODES]
    generator = seeds.torch_generator(0, seeds.Purpose.TEST, 2)
    dreamed, paid = [], []
    for first in range(0, len(chosen), SIDE_BY_SIDE):
        part = chosen[first : first + SIDE_BY_SIDE]
        episodes = [latents.read(index, ["mu", "logvar", "act", "rew"]) for index in part]
        dreamed.append(_dream(memory, episodes, world.spec.symlog_rewards, tau, generator))
        paid.append([float(episode["rew"].sum()) for episode in episodes])
    return np.concatenate(dreamed), np.concatenate(paid)


def _dream(
    memory: MDNRNN, episodes: list[dict[str, np.ndarray]], symlog: bool, tau: float, generator: torch.Generator
) -> np.ndarray:
    """The returns [B] of the episodes' actions, from their first frames on."""
    lengths = torch.tensor([len(episode["act"]) for episode in episodes])
    act = torch.zeros(int(lengths.max()), len(episodes), memory.action_size)
    for place, episode in enumerate(episodes):
        act[: len(episode["act"]), place] = torch.from_numpy(episode["act"].astype(np.float32))
    mu, logvar = (
        torch.from_numpy(np.stack([episode[name][0] for episode in episodes]).astype(np.float32))
        for name in ("mu", "logvar")
    )
    z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, generator=generator)
    state, restart = memory.initial_state(len(episodes)), torch.ones(len(episodes))
    total, living = torch.zeros(len(episodes), dtype=torch.float64), torch.ones(len(episodes))
    for step in range(len(act)):
        state = memory.step(z, act[step], state, restart)
        mixture, reward, done = memory.heads(state[0])
        rew = torch.ones(len(episodes)) if reward is None else symexp(reward) if symlog else reward
        total += torch.where(step < lengths, living * rew, 0.0).double()
        if done is not None:
            living = living * (1 - torch.sigmoid(done - memory.end_shift))
        z, restart = sample(mixture, tau, generator), torch.zeros(len(episodes))
    return total.numpy()


def calibration(dreamed: np.ndarray, paid: np.ndarray) -> dict[str, float | int | None]:
    """How dreamed returns [N] agree with recorded ones [N]: their means, the mean difference with its 95% interval, and
    their correlation (None where one of them does not vary)."""
    difference = dreamed - paid
    means = np.random.default_rng(0).choice(difference, (RESAMPLES, len(difference))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    varies = len(paid) > 1 and np.ptp(dreamed) > 0 and np.ptp(paid) > 0
    return {
        "episodes": len(paid),
        "recorded_mean": float(paid.mean()),
        "dreamed_mean": float(dreamed.mean()),
        "difference": float(difference.mean()),
        "difference_low": float(low),
        "difference_high": float(high),
        "correlation": float(np.corrcoef(dreamed, paid)[0, 1]) if varies else None,
    }
