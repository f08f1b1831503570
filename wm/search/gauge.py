"""May a dream be trusted? The rank correlation of what controllers score in it and in the world.

A dream need not pay what the world pays, but it must put controllers into the world's order: CMA-ES reads ranks alone.
So some controllers, where the search has ended and with disturbed weights, play a few episodes of both after the last
generation: about a start that is zero nearly all of them would stand still, and their order would be chance. The
disturbances are spread as the search's candidates are at first and, by `SPREADS`, less and more: a dream that only
tells a good controller from a ruined one is told apart from one that ranks neighbours.

P controllers, N parameters of one, E episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm.core import files, seeds
from wm.dream.engine import Dream
from wm.pictures import decoration, figures
from wm.search.fitness import WorldPlayer
from wm.search.space import Space

FILE = "gauge.json"
SPREADS = (0.25, 0.5, 1.0, 2.0)
"""Of the disturbances, in sigma0's, in turn."""
GAUGE = 2
"""Where in a round its seeds are, beside those of the selection (none) and of the final one (1)."""


@dataclass(frozen=True)
class Gauge:
    """What controllers score in the dream and in the world.

    Attributes:
        dream, world: mean scores, [P] each.
        least: the correlation from which on the dream is trusted.
    """

    dream: np.ndarray
    world: np.ndarray
    least: float

    @property
    def correlation(self) -> float:
        """Spearman's; 0 where all have one score on a side, since nothing is told apart then."""
        dream, world = _ranks(self.dream), _ranks(self.world)
        if dream.std() == 0 or world.std() == 0:
            return 0.0
        return round(float(np.corrcoef(dream, world)[0, 1]), 6)

    @property
    def sides(self) -> dict[str, np.ndarray]:
        """Both scores by name."""
        return {"dream": self.dream, "world": self.world}

    @property
    def trusted(self) -> bool:
        """Whether the dream may choose."""
        return self.correlation >= self.least

    def __str__(self) -> str:
        return f"{self.correlation:.2f} over {len(self.world)} controllers (trusted from {self.least:g} on)"

    def record(self) -> dict[str, Any]:
        """What gauge.json says; a score that is not finite is null there."""
        scores = {name: [x if np.isfinite(x) else None for x in side.tolist()] for name, side in self.sides.items()}
        return {"correlation": self.correlation, "least": self.least, "trusted": self.trusted, **scores}

    def write(self, out: Path) -> None:
        """figures/gauge.png, and gauge.json, whose being there says that both are."""
        with decoration("the gauge of the dream"):
            figures.gauge(self.dream, self.world, self.correlation, out / "figures" / "gauge.png")
        files.write_record(out / FILE, self.record())


def disturbed(space: Space, mean: np.ndarray, sigma0: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Controllers [count, N] about `mean`, a place in the space."""
    spread = sigma0 * np.resize(SPREADS, count)[:, None]
    return space.controllers(mean + spread * rng.standard_normal((count, len(mean))))


def measure(
    player: WorldPlayer, dream: Dream, controllers: np.ndarray, numbers: list[int], least: float, stall: int = 0
) -> Gauge:
    """Controllers [P, N] on the episodes `numbers` [E] of both.

    Args:
        stall: an episode of the world also ends after this many steps without a positive reward; 0 for never.
    """
    dreamed, _ = dream.scores(controllers, numbers)
    played, _ = player.scores(controllers, numbers, stall=stall)
    return Gauge(dreamed.mean(1), played.mean(1), least)


def episodes(seed: int, round_index: int, count: int) -> list[int]:
    """Seeds that no candidate is trained, selected or tested on."""
    return seeds.episodes(seed, seeds.Purpose.SELECTION, round_index, GAUGE, count=count)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """[P], from 0 for the lowest; equal ones share the mean of their ranks, and what is not finite is the lowest."""
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    below, not_above = (scores[:, None] > scores).sum(1), (scores[:, None] >= scores).sum(1)
    return 0.5 * (below + not_above - 1)
