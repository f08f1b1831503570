"""From where on a check speaks, and what a world can give."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from wm.core.config import Config


class ChecksConfig(Config):
    """From where on a check of the data speaks. Most limits come from the data: a fault is in a few episodes, and what
    every fourth episode shows is how the world is."""

    common: float = Field(
        0.25, gt=0, le=0.5, description="share of episodes from which on a thing is how the world is, and no fault"
    )
    blank: int = Field(
        8, ge=0, description="a frame is blank whose brightest and darkest value differ by at most this (of 255)"
    )
    still: int = Field(
        2, ge=1, description="steps for which a picture may stand still beyond what three episodes in four show"
    )
    block: int = Field(
        10, ge=4, description="frames in a row, each other than the last, that come back elsewhere (Doom: 9 by chance)"
    )
    borrowed: int = Field(
        6, ge=1, description="frames of which one part is another frame's, beyond what three episodes in four show"
    )
    reach: float = Field(
        1.0,
        gt=0,
        description="how far from the others an episode's frames may look; 1 is a third or more beyond what sound "
        "episodes of CarRacing and Doom show",
    )
    order: float = Field(
        0.15,
        gt=0,
        description="how much less than usual neighbouring frames may resemble each other, against next ones",
    )
    rare: int = Field(8, ge=1, description="frames of an episode that have to be unlike the rest: one may be a flash")
    span: float = Field(
        0.25, ge=0, le=1, description="share of its range that every number of an action covers in the whole set"
    )
    sure: float = Field(
        1.5, ge=1, description="how many times beyond its limit a thing fails that only stands out; below, it warns"
    )
    alike: float = Field(
        0.9, gt=0, le=1, description="share of frames at the same steps from which an episode is a copy of another"
    )


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a world can give; None where nobody knows, and then only what stands out among the episodes is told.

    Attributes:
        rewards: lowest and highest reward of a step.
        scores: lowest and highest sum of an episode's rewards.
        low, high: bounds of the numbers of an action, [A].
        max_steps: steps of the longest episode.
        stall: steps without a positive reward after which an episode was ended; 0 for never.
        still: most steps in a row for which its picture can stand still.
        steady: all episodes are drawn alike, none of their frames is blank, and a cut is never shown: what stands out
            is a fault. Elsewhere it may be a rare room of a game.
    """

    rewards: tuple[float, float] | None = None
    scores: tuple[float, float] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    max_steps: int | None = None
    stall: int = 0
    still: int | None = None
    steady: bool = False
