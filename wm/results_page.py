"""The results page as Markdown, from the records of `wm.results`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from wm import paper
from wm.lineage import duration, short

WORDS = """\
Written by `python -m wm results {names}`. A score is the mean ± standard deviation over test episodes, on which nothing
was trained or selected; the interval is the mean's, 95%, by bootstrap. `dvc metrics show` prints the scores
(`metrics/NAME.json`), `python -m wm lineage NAME` every stage behind one with its duration and hashes, and NAME.json
beside this page has all that is said here about an agent, with the points of its curve."""
COSTS = """\
Wall time is MLflow's, summed over all stages back to the first episode, attempts that were stopped included; core-hours
are those of training. Real episodes are those of the world: collected, played by the search, and played whole on
selection episodes, to choose what it keeps or, where the dream chooses, only to see how it does in the world (their
steps are not recorded, so the column of steps is without them)."""
SAME = """\
Agents on one V and M, scored on the same episodes, each compared in pairs with the first
(`python -m wm table {names}`)."""


def page(records: Sequence[dict[str, Any]], comparisons: Sequence[str]) -> str:
    """The page.

    Args:
        comparisons: tables (`wm.table`) of agents that share a model.
    """
    names = " ".join(one["agent"] for one in records)
    parts = ["# Results", WORDS.format(names=names)]
    for world in dict.fromkeys(one["world"] for one in records):
        parts += _world(world, [one for one in records if one["world"] == world], comparisons)
    return "\n\n".join(parts) + "\n"


def _world(world: str, records: Sequence[dict[str, Any]], comparisons: Sequence[str]) -> Iterator[str]:
    yield f"## {world}"
    yield _table(["method", "score", "95% interval", "median", "episodes", "from"], _scores(world, records))
    if paper.SCORES.get(world):
        yield f"The paper: {paper.CITATION}."
    yield "\n".join(f"![Selection score of {one['agent']}]({one['agent']}.png)" for one in records)
    yield "### What it cost"
    yield COSTS
    head = ["agent", "training", "test", "core-hours", "collected", "searched", "selection", "real steps"]
    yield _table([*head, "dreamed episodes", "dreamed steps", "machine"], _costs(world, records))
    agents = {one["agent"] for one in records}
    for comparison in comparisons:
        names = [line.split("|")[1].strip() for line in comparison.splitlines()[2:]]
        if agents.issuperset(names):
            yield "### What the parts are worth"
            yield SAME.format(names=" ".join(names))
            yield comparison
    yield "### Stage by stage"
    yield _table(["stage", "wall time", "cores", "episodes", "steps", "commit"], _stages(records))
    yield "### Make it again"
    for one in records:
        yield f"```\n{one['again']}\n```"
        if one["doubts"]:
            yield "\n".join(f"- {one['agent']}: {doubt}" for doubt in one["doubts"])


def _scores(world: str, records: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for one in records:
        score, commit = one["score"], f", commit {short(one['commit'])}" if one["commit"] else ""
        yield [
            f"**{one['agent']}**",
            f"**{_score(score['mean'], score['std'])}**",
            f"{score['ci95_low']:.0f} to {score['ci95_high']:.0f}",
            f"{score['median']:.0f}",
            f"{score['episodes']}",
            f"`python -m flows.pipeline {one['agent']}`{commit}; {score['drawing']} drawing",
        ]
    for row in paper.SCORES.get(world, ()):
        yield [row.method, _score(row.mean, row.std), "", "", "", row.source]


def _costs(world: str, records: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for one in records:
        cost = one["cost"]
        missing = len(cost["unrecorded"])
        yield [
            one["agent"],
            _time(cost["training_seconds"]) + (f" ({missing} stages are not recorded)" if missing else ""),
            _time(cost["test_seconds"]),
            "" if cost["core_hours"] is None else f"{cost['core_hours']:.2f}",
            *(_count(cost[key]) for key in ("collected_episodes", "searched_episodes", "selection", "steps")),
            *(_count(cost[key]) for key in ("dreamed_episodes", "dreamed_steps")),
            "; ".join(one["machines"]),
        ]
    if theirs := paper.COSTS.get(world):
        real, dreamed = ("", _count(theirs.searched)) if theirs.dreamed else (_count(theirs.searched), "")
        search = f"{theirs.hours:,} h (search alone, {theirs.generations:,} generations)"
        cores = f"{theirs.hours * theirs.cores:,}"
        yield ["World Models, the authors' logs", search, "", cores, _count(theirs.collected), real, "", "", dreamed,
               "", f"{theirs.cores} cores"]  # fmt: skip


def _stages(records: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    stages = {stage["address"]: stage for one in records for stage in one["stages"]}
    for stage in stages.values():
        dreamed = " dreamed" if stage["dreamed_episodes"] else ""
        yield [
            stage["address"],
            _time(stage["seconds"]),
            str(stage["cores"]),
            _count(stage["episodes"] or stage["dreamed_episodes"]) + dreamed,
            _count(stage["steps"] or stage["dreamed_steps"]) + dreamed,
            short(stage["commit"]) if stage["commit"] else "",
        ]


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _score(mean: float, std: float | None) -> str:
    return f"{mean:.0f}" if std is None else f"{mean:.0f} ± {std:.0f}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""
