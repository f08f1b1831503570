"""The score that a recorded curve lets one expect (results/NAME.json), for so many generations or so much time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm import files
from wm.lineage import duration

RESULTS = Path("results")


@dataclass(frozen=True)
class Expectation:
    """A test score with its 95% interval.

    Attributes:
        at_least: the record ends before the generation that was asked for, so this is its end.
    """

    score: float
    low: float
    high: float
    at_least: bool


def read(name: str) -> dict[str, Any] | None:
    """The record of an agent; None if the repository has none.

    Raises:
        DamagedData: it is not whole.
    """
    path = RESULTS / f"{name}.json"
    return files.read_record(path) if path.exists() else None


def world_key(record: Mapping[str, Any]) -> str:
    """Which score of a record's curve is one of the world: "kept", or "rescored" where that is one of the dream."""
    return "rescored" if record.get("decides") == "dream" else "kept"


def expect(record: Mapping[str, Any], generations: int) -> Expectation | None:
    """What the agent of a record scores after so many generations of its own search.

    The selection score there (what the world said of the distribution's mean, where the dream chooses), between two
    looks on the line that joins them, and as much above or below as the test was above or below the last one. None
    before the first look: nothing is recorded there.
    """
    key = world_key(record)
    looks = [(one["generation"], one[key]) for one in record["curve"] if one["agent"] == record["agent"]]
    if not looks or generations < looks[0][0]:
        return None
    at, kept = np.array(looks, dtype=float).T
    test = record["score"]
    score = float(np.interp(generations, at, kept)) + test["mean"] - kept[-1]
    low, high = score + test["ci95_low"] - test["mean"], score + test["ci95_high"] - test["mean"]
    return Expectation(float(score), float(low), float(high), at_least=bool(generations > at[-1]))


def fitting(left: float, search: float, generations: int, every: int) -> int:
    """How many generations fit into `left` seconds: all, or a multiple of `every`, since a search ends at a look.

    Args:
        search: seconds that all `generations` take; a final selection is taken for a part of each.
    """
    if left >= search:
        return generations
    return int(max(left, 0) * generations / search) // every * every


def lines(
    name: str, found: Sequence[tuple[str, str, float, str]], generations: int, every: int, budget: float | None
) -> list[str]:
    """What `python -m wm estimate` says about the score: a sentence, or two with a budget, or none.

    Args:
        found: (stage, name, seconds, what it does) of all stages that are to run.
        generations, every: of the agent's own search, and from one look to the next.
        budget: seconds for everything.
    """
    record, said = read(name), []
    if budget is not None and ("evolve", name) in {(stage, of) for stage, of, _, _ in found}:
        own = sum(seconds for stage, of, seconds, _ in found if (stage, of) == ("evolve", name))
        left = budget - sum(seconds for _, _, seconds, _ in found) + own
        fits = fitting(left, own, generations, every)
        if fits < min(every, generations):
            look = own * min(every, generations) / generations
            return [
                f"{duration(budget)} is too short: the first look at the search, after {min(every, generations)} "
                f"generations, would take {duration(budget - left + look)} with all other stages"
            ]
        said = [f"in {duration(budget)} fit {fits} of the {generations} generations of evolve {name}"]
        generations = fits
    if record is None:
        return said
    source = f"{RESULTS / name}.json"
    if (score := expect(record, generations)) is None:
        return [*said, f"{source} has no look as early as generation {generations}, so no score to expect"]
    text = f"{score.score:.0f} (95% interval {score.low:.0f} to {score.high:.0f})"
    if score.at_least:
        return [*said, f"score to expect: at least as recorded, {text}; {source} ends before {generations} generations"]
    return [*said, f"score to expect: {text} after {generations} generations, from {source}"]
