"""A set under judgement: what was measured of its episodes, and what is usual among them.

E episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm.checks.config import ChecksConfig, Given
from wm.checks.measures import Measures
from wm.checks.repeats import Repeats, find
from wm.core.verdicts import Check, FaultyEpisode, Verdict

FEW = 8
"""Episodes from which on they can be compared with each other."""


class Set:
    """A set under judgement."""

    def __init__(
        self, measured: Measures, given: Given, config: ChecksConfig, seeds: Sequence[int | None], carried: int = 0
    ):
        self.measured, self.given, self.config, self.seeds, self.carried = measured, given, config, seeds, carried
        self.count = len(measured.figures)
        self.repeats: Repeats = find(measured)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.measured.column(name)

    def usual(self, flags: np.ndarray) -> bool:
        """Whether so many episodes [E] have a thing that it is how the world is."""
        return self.count >= FEW and flags.mean() > self.config.common

    def limit(self, values: np.ndarray, floor: float, reach: float) -> float:
        """The largest usual value: `floor`, or `reach` widths, above the middle half of the episodes."""
        low, high = np.quantile(values, [0.25, 0.75], method="higher")
        return float(high + max(floor, reach * (high - low)))

    def found(self, flags: np.ndarray, figures: np.ndarray, at: np.ndarray | str, worst: Any, why: Any) -> list:
        """The episodes with a flag, the worst first."""
        at = self[at] if isinstance(at, str) else at
        worst = np.broadcast_to(worst, flags.shape)
        order = [int(i) for i in np.lexsort((-np.abs(figures), ~worst)) if flags[i]]
        return [
            FaultyEpisode(
                episode=i, at=int(at[i]), figure=round(float(figures[i]), 4), worst=bool(worst[i]),
                why=why(figures[i]) if callable(why) else why[i],
                seed=self.seeds[i],
            )
            for i in order
        ]  # fmt: skip


def outcome(
    name: str,
    data: Set,
    found: Sequence[FaultyEpisode],
    figures: np.ndarray,
    at: np.ndarray | str,
    limit: float | None,
    unit: str,
    well: str,
    ill: str,
) -> Check:
    """Fails where an episode does so alone, warns where one is concerned; `figures` and `at` are of all, [E]."""
    verdict: Verdict = "fail" if any(one.worst for one in found) else "warn" if found else "pass"
    worst, places = int(np.argmax(figures)), data[at] if isinstance(at, str) else at
    where = (found[0].episode, found[0].at) if found else (worst, int(places[worst]))
    return Check(
        name=name, verdict=verdict, figure=round(float(found[0].figure if found else figures[worst]), 4),
        limit=None if limit is None or not np.isfinite(limit) else round(float(limit), 4), unit=unit,
        message=f"{ill}: {found[0].why}" if found else well, where=where, episodes=tuple(found),
    )  # fmt: skip
