"""Checks of latents, after `encode`: what V did not know, and what of z it does not use.

T steps of an episode, Z latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from wm.core.config import Config
from wm.core.episodes import EpisodeSet
from wm.core.verdicts import Check, FaultyEpisode, Verdict

RARE = 8
"""Frames of an episode that have to be unknown: one may be a flash."""
FEW = 8
"""Held-out episodes from which on they say how well V knows what it has not learned from."""


class LatentsConfig(Config):
    """From where on a check of latents speaks."""

    reach: float = Field(
        6.0,
        gt=0,
        description="how far outside the middle half of held-out episodes one may lie, in widths of that half",
    )
    active: float = Field(
        0.01,
        gt=0,
        description="variance of a dimension's mean over all frames below which it says nothing (Burda et al. 2016)",
    )


def check(data: EpisodeSet, config: LatentsConfig) -> tuple[list[Check], np.ndarray]:
    """The checks of a set of latents, read an episode at a time, and the variance of every dimension's mean [Z]."""
    told, count = [], 0
    total: Any = 0.0
    squares: Any = 0.0
    for number in range(len(data)):
        episode = data.read(number, ["mu", "logvar"])
        mu, logvar = (episode[name].astype(np.float64) for name in ("mu", "logvar"))
        told.append(_told(mu, logvar))
        count, total, squares = count + len(mu), total + mu.sum(0), squares + (mu**2).sum(0)
    variance = squares / count - (total / count) ** 2
    seeds = [episode.get("seed") for episode in data.episodes]
    return [_unknown(np.array(told), data.held_out, config, seeds), _unused(variance, config)], variance


def _told(mu: np.ndarray, logvar: np.ndarray) -> tuple[float, int]:
    """How far z is from the prior: the KL divergence of a frame in nats, the eighth largest, and its step."""
    divergence = 0.5 * (mu**2 + np.exp(logvar) - logvar - 1).sum(1).round(4)
    at = np.argsort(divergence, kind="stable")[-min(RARE, len(divergence))]
    return float(divergence[at]), int(at)


def _unknown(told: np.ndarray, held_out: list[int], config: LatentsConfig, seeds: Sequence[int | None]) -> Check:
    """Latents far from the prior, against those of held-out episodes; of all where these are too few."""
    values, known = told[:, 0], told[held_out if len(held_out) >= FEW else slice(None), 0]
    low, high = np.quantile(known, [0.25, 0.75], method="higher")
    limit = float(high + max(config.reach * (high - low), 0.5 * high, 5.0))
    order = [int(i) for i in np.argsort(-values, kind="stable") if values[i] > limit]
    found = tuple(
        FaultyEpisode(episode=i, at=int(told[i, 1]), figure=round(float(values[i]), 4), worst=False, seed=seeds[i],
              why=f"{values[i]:.0f} nats from the prior") for i in order
    )  # fmt: skip
    worst = int(values.argmax())
    said = f"V does not know frames: {found[0].why}" if found else "V knows every episode as those held out"
    return Check(
        name="unknown",
        verdict="warn" if found else "pass",
        figure=round(float(values[worst]), 4),
        limit=round(limit, 4),
        unit="nats",
        message=said,
        where=(worst, int(told[worst, 1])),
        episodes=found,
    )


def _unused(variance: np.ndarray, config: LatentsConfig) -> Check:
    """A count with its reason, and no alarm: what a frame needs is fewer numbers than z has."""
    dead = int((variance < config.active).sum())
    alive = len(variance) - dead
    said = (
        f"{dead} of {len(variance)} dimensions say nothing about a frame: with the KL divergence to pay, {alive} are "
        "enough for what V keeps"
    )
    if not alive:
        said = "V says nothing about any frame: all of its dimensions are the prior's"
    verdict: Verdict = "pass" if alive else "warn"
    return Check(name="unused", verdict=verdict, figure=dead, limit=len(variance), unit="dimensions", message=said)
