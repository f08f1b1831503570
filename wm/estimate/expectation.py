"""The score that a recorded curve lets one expect (results/NAME.json), for so many generations or so much time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm.core.errors import UserError
from wm.params import ZERO
from wm.records.history import flat
from wm.records.lineage import duration
from wm.run import Plan
from wm.views import table

MOST = 3
"""Differences between a record's run and params.yaml that are named."""
ASIDE = ("workers", "checkpoint_every", "report_every", "videos")
"""Numbers that no score depends on."""


@dataclass(frozen=True)
class Expectation:
    """A test score with its 95% interval.

    Attributes:
        beyond: the record ends before the generation that was asked for, so this is its end.
    """

    score: float
    low: float
    high: float
    beyond: bool


class TooShort(UserError):
    """A budget of time that ends before anything is known of the score."""


def read(name: str) -> dict[str, Any] | None:
    """The record of an agent; None if the repository has none.

    Raises:
        DamagedData: it is not whole.
    """
    path = table.RESULTS / f"{name}.json"
    return table.read(path) if path.exists() else None


def expect(record: Mapping[str, Any], generations: int) -> Expectation | None:
    """What the agent of a record scores after so many generations of its own search.

    The selection score there (what the world said of the distribution's mean, where the dream chooses), between two
    looks on the line that joins them, and as much above or below as the test was above or below the last one. None
    before the first rescoring: nothing is recorded there.
    """
    key = table.world_key(record)
    looks = [(one["generation"], one[key]) for one in record["curve"] if one["agent"] == record["agent"]]
    if not looks or generations < looks[0][0]:
        return None
    at, kept = np.array(looks, dtype=float).T
    test = record["score"]
    score = float(np.interp(generations, at, kept)) + test["mean"] - kept[-1]
    low, high = score + test["ci95_low"] - test["mean"], score + test["ci95_high"] - test["mean"]
    return Expectation(float(score), float(low), float(high), beyond=bool(generations > at[-1]))


def fitting(left: float, search: float, generations: int, every: int) -> int:
    """How many generations fit into `left` seconds: all, or a multiple of `every`, since a search ends at a look.

    Args:
        search: seconds that all `generations` take; a final selection is taken for a part of each.
    """
    if left >= search:
        return generations
    return int(max(left, 0) * generations / search) // every * every


def changes(record: Mapping[str, Any], plans: Sequence[Plan]) -> list[str]:
    """What params.yaml says otherwise now than in a record's run, but for how long the agent's own search is.

    Numbers, and what a stage reads, of the last stage first; code is not compared. Nothing is said of a record that
    has no numbers of its stages.
    """
    if not table.has_numbers(record):
        return []
    there, here = {one["address"]: one for one in record["stages"]}, {f"{one.stage}@{one.name}": one for one in plans}
    said = []
    for address, stage in reversed(here.items()):
        if address not in there:
            said.append(f"it had no {address}")
            continue
        now = stage.arguments | dict(flat(stage.config.model_dump(mode="json")))
        was = dict(flat(type(stage.config).model_construct().model_dump(mode="json"))) | there[address]["params"]
        apart = {"generations", *ASIDE} if address == f"evolve@{record['agent']}" else ASIDE
        said += [
            f"{address} had {key} {was.get(key, 'unset')}, now {now.get(key, 'unset')}"
            for key in sorted({*was, *now} - {*apart})
            if was.get(key) != now.get(key)
        ]
        folders = [folder.parts for folder in stage.inputs.values() if folder.parts[1] != ZERO]
        reads = sorted(f"{part}@{name}" for _, name, part in folders)
        if (before := sorted(there[address]["reads"])) != reads:
            said.append(f"{address} read {_all(before)}, now {_all(reads)}")
    return said + [f"it alone had {address}" for address in there if address not in here]


def _all(words: Sequence[str]) -> str:
    return " and ".join(words) or "nothing"


def lines(
    name: str,
    found: Mapping[str, float],
    generations: int,
    every: int,
    budget: float | None,
    plans: Sequence[Plan],
) -> list[str]:
    """What `python -m wm estimate` says about the score, and before it what fits into the budget.

    Args:
        found: seconds of all stages that are to run, by address ("evolve@smoke").
        generations, every: of the agent's own search, and from one look to the next.
        budget: seconds for everything.
        plans: all stages that the agent needs, as params.yaml has them.
    Raises:
        TooShort: not even the first rescoring of the search fits.
    """
    said = []
    if budget is not None and (own := found.get(f"evolve@{name}")) is not None:
        left = budget - sum(found.values()) + own
        fits = fitting(left, own, generations, every)
        if fits < min(every, generations):
            look = own * min(every, generations) / generations
            raise TooShort(
                f"{duration(budget)} is too short: the first rescoring of the search, after {min(every, generations)} "
                f"generations, would take {duration(budget - left + look)} with all other stages"
            )
        said = [f"in {duration(budget)} fit {fits} of the {generations} generations of evolve {name}"]
        generations = fits
    source = f"{table.RESULTS / name}.json"
    if (record := read(name)) is None:
        return [
            *said,
            f"no score to expect: there is no {source} of an earlier run (`wm results page {name}`)",
        ]
    if (score := expect(record, generations)) is None:
        return [*said, f"no score to expect: {source} has no rescoring as early as generation {generations}"]
    text = f"{score.score:.0f}, as {source} has it of one run ({score.low:.0f} to {score.high:.0f} over its episodes"
    if score.beyond:
        said.append(f"score to expect: {text}), which ended before {generations} generations")
    else:
        said.append(f"score to expect: {text}) after {generations} generations; another run's luck comes on top")
    if changed := changes(record, plans):
        more = [f"and {len(changed) - MOST} more"] if len(changed) > MOST else []
        said.append(f"but that run was of another params.yaml: {'; '.join(changed[:MOST] + more)}")
    return said
