"""The results page as Markdown, from the records of `wm.views.results`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from wm.records.lineage import duration, short_hash
from wm.views import paper, table

WORDS = """\
Written by `wm results page NAME …`, which adds the agents that it names to those that have a record (NAME.json)
beside this page; without a name it writes the page again from the records alone. Deleting NAME.json takes an agent out.

A score is the mean ± standard deviation over test episodes, on which no agent was trained and no controller selected;
all agents of a world share them, and recipes were compared on them (docs/log.md). The interval is the mean's, 95%, by
bootstrap. `dvc metrics show` prints the scores (`metrics/NAME.json`); NAME.json has all that is said here about an
agent, with the points of its curve. `python -m wm lineage NAME` prints every stage behind a score
where the agent's runs/ or its lines of dvc.lock are; a clone without them has this page."""
SEEDS = """\
A row of several seeds is a recipe: agents whose numbers differ in nothing but `seed`, in any stage back to the first
episode (their own rows name the commits). Its score is the mean ± standard deviation between seeds."""
COSTS = """\
Wall time is MLflow's, summed over all stages back to the first episode, attempts that were stopped included; core-hours
are those of training, with no more cores than the machine has. Real episodes are those of the world: collected, played
by the search, and played whole on selection episodes, to choose what it keeps or, where the dream chooses, only to see
how it does in the world (their steps are not recorded, so the column of steps is without them). Dreamed episodes are
those of the search alone, without its rescorings."""
PARTS = """\
Agents on the V and M of another agent's recipe; those that go on from it stand in the table above too. One search each:
an interval is over test episodes, not over searches.
A start from the dream spends dreamed episodes on top of those of the world ("What it cost")."""
PAIRED = """\
Scored on the same episodes, each compared in pairs with the first (`python -m wm results table {names}`):"""
ONCE = """\
A stage that several agents share is listed once, with the time in the first one's record; "What it cost" adds up each
record's own."""
CHECK = """\
A hash is the md5 of what a stage wrote, as dvc.lock has it. To check one:
`git checkout {commit} && dvc repro {address}`, then `python -m wm lineage {name}` says what each stage wrote; on the
same type of processor that is what is below."""


def page(records: Sequence[dict[str, Any]], sweeps: Sequence[tuple[str, str, str]]) -> str:
    """The page.

    Args:
        sweeps: (world, model, table) of agents that were evolved in dreams of different temperatures.
    """
    parts = ["# Results", WORDS]
    for world in dict.fromkeys([*(one["world"] for one in records), *(world for world, _, _ in sweeps)]):
        own = [one for one in records if one["world"] == world]
        parts += _world(world, own, [(model, text) for of, model, text in sweeps if of == world])
    return "\n\n".join(parts) + "\n"


def _world(world: str, records: Sequence[dict[str, Any]], sweeps: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Paragraphs; agents on the V and M of another one stand behind the paper's table, as its ablations do, and in it
    too where their search goes on with that one's."""
    on_others = [one for one in records if one["model"] != one["agent"]]
    whole = [one for one in records if one["model"] == one["agent"] or _goes_on(one)]
    whole.sort(key=lambda one: (one["model"], len(one["stages"])))  # what goes on stands behind what it goes on from
    recipes = table.recipes(whole)
    yield f"## {world}"
    yield _table(["method", "score", "95% interval", "median", "episodes", "from"], _scores(world, whole, recipes))
    if recipes:
        yield SEEDS
    if paper.SCORES.get(world):
        yield "\n".join([f"The paper: {paper.CITATION}.", *paper.REMARKS.get(world, ())])
    for one in whole:
        yield "\n\n".join([f"![Selection score of {one['agent']}]({one['agent']}.png)", *_gain(one)])
    if on_others:
        yield from _parts(world, records, on_others)
    for model, text in sweeps:
        yield f"### Temperatures of the dream of {model}"
        yield text.strip()
        yield f"![Scores over temperatures, {model}]({model}_tau/figures/tau.png)"
    if records:
        yield from _made(world, records)


def _goes_on(record: dict[str, Any]) -> bool:
    """Whether the search of the agent that is named like the model is behind this one's, directly or through others."""
    behind = {stage["address"] for stage in record["stages"]}
    return record["model"] != record["agent"] and f"evolve@{record['model']}" in behind


def _from(record: dict[str, Any]) -> str:
    """How the agent is made again, and from which one its search goes on."""
    commit = f", commit {short_hash(record['commit'])}" if record["commit"] else ""
    own = next(stage for stage in record["stages"] if stage["address"] == f"evolve@{record['agent']}")
    before = [read.partition("@")[2] for read in own.get("reads", ()) if read.startswith("evolve@")]
    after = f"; goes on from {before[0]}" if before and _goes_on(record) else ""
    return f"`python -m flows.pipeline {record['agent']}`{commit}; {record['score']['drawing']} drawing{after}"


def _made(world: str, records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What it cost, in all and stage by stage, and how to make it again."""
    yield "### What it cost"
    yield COSTS
    head = ["agent", "training", "test", "core-hours", "collected", "searched", "selection", "real steps"]
    yield _table([*head, "dreamed episodes", "dreamed steps", "machine"], _costs(world, records))
    yield "### Stage by stage"
    stages = _stages(records)
    hashed = [stage for stage in stages if stage.get("md5") and stage["commit"]]
    if hashed:
        shown = next((stage for stage in hashed if stage["address"].startswith("train_mdn@")), hashed[0])
        address = shown["address"]
        yield CHECK.format(commit=short_hash(shown["commit"]), address=address, name=address.partition("@")[2])
    yield ONCE
    yield _table(["stage", "wall time", "cores", "episodes", "steps", "commit", "hash"], map(_stage, stages))
    yield "### Make it again"
    for one in records:
        yield f"```\n{one['again']}\n```"
        if one["doubts"]:
            yield "\n".join(f"- {one['agent']}: {doubt}" for doubt in one["doubts"])


def _scores(world: str, records: Sequence[dict[str, Any]], recipes: Sequence[table.Recipe]) -> Iterator[list[str]]:
    for one in records:
        score = one["score"]
        yield [
            f"**{one['agent']}**",
            f"**{_score(score)}**",
            f"{score['ci95_low']:.0f} to {score['ci95_high']:.0f}",
            f"{score['median']:.0f}",
            f"{score['episodes']}",
            _from(one),
        ]
    for recipe in recipes:
        yield [f"**{recipe.title}**", f"**{recipe.score}**", "", "", "", recipe.each]
    for row in paper.SCORES.get(world, ()):
        yield [row.method, f"{row.mean:.0f} ± {row.std:.0f}", "", "", "", row.source]


def _gain(record: dict[str, Any]) -> Iterator[str]:
    """What the last rescorings of the agent's own search brought, and how long they took."""
    looks = [point for point in record["curve"] if point["agent"] == record["agent"]][-3:]
    if len(looks) < 2:
        return
    first, last, key = looks[0], looks[-1], table.world_key(record)
    known = first["seconds"] is not None and last["seconds"] is not None
    took = f" ({duration(last['seconds'] - first['seconds'])})" if known else ""
    gain = last[key] - first[key]
    moved = last["rescored"] - first["rescored"]
    brought = f"raised the best rescored score so far by {gain:+.0f} and moved the mean of the distribution by "
    brought += f"{moved:+.0f}"
    if key == "rescored":
        brought = f"changed the mean of the distribution, looked at in the world, by {gain:+.0f}"
    yield f"{record['agent']}: the last {last['generation'] - first['generation']} generations{took} {brought}."


def _parts(world: str, records: Sequence[dict[str, Any]], on_others: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Ablations and the like, in the paper's form."""
    theirs = paper.PARTS.get(world, {})
    yield "### What the parts are worth"
    yield PARTS
    for group in table.comparable(records):
        if not any(one in on_others for one in group):
            continue
        model, hashes = group[0]["model"], {stage["address"]: stage.get("md5") for stage in group[0]["stages"]}
        trained = [short_hash(md5) for stage in ("train_vae", "train_mdn") if (md5 := hashes.get(f"{stage}@{model}"))]
        which = f" ({', '.join(trained)})" if trained else ""
        yield f"On V and M of {model}{which}, tested in the {group[0]['score']['drawing']} drawing:"
        if len(group) > 1:
            yield PAIRED.format(names=" ".join(one["agent"] for one in group))
        head = ["what acts", "agent", "score", "95% interval", "minus the first", "95% interval"]
        found = [one["score"] | one.get("test", {}) for one in group]
        rows = []
        for one, score in zip(group, found, strict=True):
            acts = table.parts(one)
            rows.append([acts, f"[{one['agent']}]({one['agent']}.png)", *table.compared(score, found[0])])
            if theirs:
                rows[-1].append(_theirs(world, theirs.get(acts)))
        yield _table([*head, "the paper's"] if theirs else head, rows)
    if recipes := table.recipes([one for one in on_others if not _goes_on(one)]):
        yield "\n".join(f"- {recipe.sentence}" for recipe in recipes)


def _theirs(world: str, method: str | None) -> str:
    """The published score of a method; whose it is, unless it is the paper's."""
    for row in paper.SCORES[world]:
        if row.method == method:
            return f"{row.mean:.0f} ± {row.std:.0f}" + ("" if row.source == paper.PAPER else f", {row.source}")
    return ""


def _costs(world: str, records: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for one in records:
        cost = one["cost"]
        missing = sum(not address.startswith("evaluate@") for address in cost["unrecorded"])
        stages = f" ({missing} stage{'s are' if missing > 1 else ' is'} not recorded)" if missing else ""
        at_least = "at least " if missing else ""
        yield [
            one["agent"],
            _time(cost["training_seconds"]) + stages,
            _time(cost["test_seconds"]),
            "" if cost["core_hours"] is None else f"{at_least}{cost['core_hours']:.2f}",
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


def _stages(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each stage once, as the first record has it; twice if it wrote different things for different agents."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for stage in (stage for one in records for stage in one["stages"]):
        found.setdefault((stage["address"], stage.get("md5") or stage["commit"]), stage)
    hashed = {(stage["address"], stage["commit"]) for stage in found.values() if stage.get("md5")}
    return [one for one in found.values() if one.get("md5") or (one["address"], one["commit"]) not in hashed]


def _stage(stage: dict[str, Any]) -> list[str]:
    dreamed = " dreamed" if stage["dreamed_episodes"] else ""
    return [
        stage["address"],
        _time(stage["seconds"]),
        str(stage["cores"]),
        _count(stage["episodes"] or stage["dreamed_episodes"]) + dreamed,
        _count(stage["steps"] or stage["dreamed_steps"]) + dreamed,
        short_hash(stage["commit"]) if stage["commit"] else "",
        short_hash(stage["md5"]) if stage.get("md5") else "",
    ]


def _table(head: Sequence[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _score(score: dict[str, float]) -> str:
    return f"{score['mean']:.0f} ± {score['std']:.0f}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""
