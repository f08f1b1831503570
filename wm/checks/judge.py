"""Verdicts on a set, from what was measured of its episodes (`wm.checks.measures`).

Most limits come from the set itself: a fault is in a few episodes, so three in four show how the world is. What the
world declares (`wm.checks.config.Given`) counts whatever the others show.
"""

from __future__ import annotations

from collections.abc import Sequence

from wm.checks.config import ChecksConfig, Given
from wm.checks.frames import blank, frozen, order, repeated, torn, unlike
from wm.checks.measures import Measures
from wm.checks.sets import Set
from wm.checks.steps import actions, copies, lengths, rewards
from wm.core.verdicts import Check


def judge(
    measured: Measures, given: Given, config: ChecksConfig, seeds: Sequence[int | None], carried: int = 0
) -> list[Check]:
    """Every check of a set of episodes.

    Args:
        seeds: of each episode; None where it has none.
        carried: so many of the first episodes are of earlier rounds, each checked in its own, with its own `stall`.
    """
    data = Set(measured, given, config, seeds, carried)
    checks = (blank, frozen, repeated, torn, order, unlike, rewards, lengths, actions, copies)
    return [check(data) for check in checks]
