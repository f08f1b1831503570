"""Agents side by side: their scores, how far each is from the first on the same episodes, and what seeds make of it.

A record is what `wm.views.results` keeps of an agent, or the part of it that a function here says it reads.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wm import params
from wm.core import files
from wm.core.errors import DamagedData, UserError
from wm.records import history
from wm.run import RUNS
from wm.stages.evaluate import interval

RESULTS = Path("results")
FULL = "V and M"
"""What `parts` says of the paper's own agent."""


@dataclass(frozen=True)
class Recipe:
    """Agents that were made alike but for their seeds.

    Attributes:
        agents: their names, in the order of `scores`.
        scores: (which seed, mean test score) of each: ("seed 0", 849.4).
        search: they share V and M, so that the seeds are those of the search alone.
    """

    name: str
    agents: tuple[str, ...]
    scores: tuple[tuple[str, float], ...]
    search: bool

    @property
    def title(self) -> str:
        """`car_racing, 3 seeds`."""
        return f"{self.name}, {len(self.scores)} seeds{' of the search' if self.search else ''}"

    @property
    def score(self) -> str:
        """Mean and standard deviation (of a sample) between seeds."""
        means = [mean for _, mean in self.scores]
        return f"{np.mean(means):.0f} ± {np.std(means, ddof=1):.0f}"

    @property
    def each(self) -> str:
        """`seed 0: 849, seed 1: 861`."""
        return ", ".join(f"{seed}: {mean:.0f}" for seed, mean in self.scores)

    @property
    def seeds(self) -> tuple[str, ...]:
        """`seed 0`, `seed 1`."""
        return tuple(seed for seed, _ in self.scores)

    @property
    def sentence(self) -> str:
        """All of it on a line."""
        return f"{self.title}: {self.score} (mean ± standard deviation between seeds; {self.each})"


def table(names: Sequence[str]) -> str:
    """A Markdown table, a row an agent; differences are paired, episode by episode, with a 95% interval (bootstrap).

    Below it, a line for agents that are seeds of one recipe, and one for how far a recipe with the same seeds is from
    that of the first agent, averaged over these, episode by episode.

    Raises:
        UserError: an agent has no score, or was scored on other episodes or in another drawing than the first.
    """
    found = {name: _scored(name) for name in names}
    every = {name: score for name, (score, _) in found.items()}
    first = every[names[0]]
    lines = ["| agent | score | 95% interval | minus the first | 95% interval |", "|---|---|---|---|---|"]
    for name, score in every.items():
        for key in ("world", "drawing", "seeds"):
            if score[key] != first[key]:
                raise UserError(f"{name} and {names[0]} were not scored on the same episodes: their {key} differ")
        lines.append(f"| {' | '.join([name, *compared(score, first)])} |")
    known = recipes([{"agent": name, "stages": stages, "score": score} for name, (score, stages) in found.items()])
    below = [recipe.sentence for recipe in known]
    for base in (recipe for recipe in known if names[0] in recipe.agents):
        others = (recipe for recipe in known if recipe is not base and recipe.seeds == base.seeds)
        below += [_difference(recipe, base, every) for recipe in others]
    return "\n".join([*lines, *(f"\n{line}" for line in below)])


def compared(found: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """Cells of a row: score, its interval, and the paired difference with its interval, both empty for the first."""
    cells = [f"{found['mean']:.0f} ± {found['std']:.0f}", _range(found)]
    if found is first:
        return [*cells, "", ""]
    difference = np.array(found["scores"]) - np.array(first["scores"])
    return [*cells, f"{difference.mean():+.0f}", _range(interval(difference), "+")]


def scores(name: str) -> dict[str, Any]:
    """What `evaluate` wrote about an agent.

    Raises:
        UserError: it has no score, or there is no such agent.
    """
    path = _path(name)
    if not path.exists():
        params.load().entry("agents", name)
        raise UserError(f"{name} has no score yet: run `wm run {name}` first")
    return history.sound(files.read_json(path), str(path))


def read(path: Path) -> dict[str, Any]:
    """A record that `wm.views.results` wrote.

    Raises:
        DamagedData: it is not whole.
    """
    try:
        return files.read_record(path)
    except DamagedData:
        raise DamagedData(f"{path} is no record of an agent: `git checkout {path}` brings it back") from None


def world_key(record: Mapping[str, Any]) -> str:
    """Which score of a record's curve is one of the world: "kept", or "rescored" where that is one of the dream."""
    return "rescored" if record.get("decides") == "dream" else "kept"


def digest(seeds: Sequence[int]) -> str:
    """The same for the same episodes."""
    return hashlib.sha256(" ".join(map(str, seeds)).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- what made them, and what they are


def stage_record(step: history.Step) -> dict[str, Any]:
    """A stage of a lineage, as records have it: its numbers, and which stages it read (runs/zero left out)."""
    folders = [Path(folder).parts for folder in step.inputs if not folder.startswith(history.ZERO)]
    return {
        "address": step.address,
        "params": dict(step.numbers),
        "reads": [f"{stage}@{name}" for _, name, stage in folders],
    }


def recipes(records: Sequence[Mapping[str, Any]]) -> list[Recipe]:
    """Two or more agents each, whose lineages have the same stages and numbers, but for `seed`; code is not compared.

    Args:
        records: {"agent", "stages" (of `stage_record`), "score": {"mean"}}; those without numbers are passed over.
    """
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in records:
        if has_numbers(one):
            seeds = groups.setdefault(_digest(one["stages"], without="seed"), {})
            seeds.setdefault(_digest(one["stages"]), one)  # the same under two names is one seed
    return [_recipe(list(seeds.values())) for seeds in groups.values() if len(seeds) > 1]


def has_numbers(record: Mapping[str, Any]) -> bool:
    """Whether it has the numbers of its stages: the oldest records do not."""
    return bool(record["stages"]) and "params" in record["stages"][0]


def parts(record: Mapping[str, Any]) -> str:
    """What of the world model acts, and how it was searched: "V alone, 40 hidden units"; empty if not `has_numbers`."""
    if not has_numbers(record):
        return ""
    own, stages = _evolve(record), {stage["address"]: stage["params"] for stage in record["stages"]}
    inputs = own["params"].get("inputs")
    alone, untrained = inputs == ["z"], own["params"].get("untrained")
    said = ["V alone" if alone else "V and an untrained M" if untrained else FULL]
    if inputs and not alone:
        said.append(f"C reads [{', '.join(inputs)}]")
    if hidden := own["params"].get("hidden"):
        said.append(f"{hidden} hidden units")
    if own["params"].get("dream"):
        said.append(f"evolved in the dream at tau {own['params'].get('tau', 1.0):g}")
    for start in (read for read in own["reads"] if read.startswith("evolve@")):
        dreamed = stages[start].get("dream")
        said.append("started in the dream" if dreamed else f"started from {start.partition('@')[2]}")
    return ", ".join(said)


def comparable(records: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Agents on one V and M that were scored on the same episodes, in one drawing; one without its scores is alone.

    In a group, the one with all of the paper's parts is the first.
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for one in records:
        key: tuple = (one["agent"],)
        if "test" in one:
            hashes = {stage["address"]: stage["md5"] for stage in one["stages"]}
            trained = [hashes.get(f"{stage}@{one['model']}") for stage in ("train_vae", "train_mdn")]
            key = (one["model"], *trained, one["score"]["drawing"], one["test"]["seeds"])
        groups.setdefault(key, []).append(one)
    return [sorted(group, key=lambda one: (parts(one) != FULL, one["agent"])) for group in groups.values()]


def _path(name: str) -> Path:
    return RUNS / name / "evaluate" / "scores.json"


def _scored(run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score and stages (of `stage_record`) of an agent: of a commit if named BRANCH:NAME, else of runs/, else as its
    record in results/ has them.

    Returns:
        ({"world", "drawing", "seeds" (their digest), "scores", "mean", "std", "ci95_low", "ci95_high", …}, [stages])
    """
    snapshot, name = history.split(run)
    path = RESULTS / f"{name}.json"
    if snapshot.rev is not None:
        steps = snapshot.steps(name)
        found = snapshot.json(steps[-1], "scores.json") if steps[-1].output else {}
        if not found:
            raise UserError(f"the score of {run} is not in DVC's cache: `git checkout {snapshot.rev} && dvc pull`")
    elif not _path(name).exists() and path.exists() and "test" in (record := read(path)):
        return {"world": record["world"], **record["score"], **record["test"]}, record["stages"]
    else:
        found = scores(name)
        if f"evaluate@{name}" in snapshot.lock and history.differs(snapshot.step("evaluate", name), snapshot.lock):
            print(
                f"warning: runs/{name}/evaluate is not what dvc.lock records: `dvc repro evaluate@{name}` makes it "
                "again, `dvc checkout` brings it back",
                file=sys.stderr,
            )
    return found | {"seeds": digest(found["seeds"])}, _stages(snapshot, name)


def _stages(snapshot: history.Snapshot, name: str) -> list[dict[str, Any]]:
    try:
        return [stage_record(step) for step in snapshot.steps(name)]
    except UserError:  # a score whose agent params.yaml no longer has can be compared, but nothing says how it was made
        return []


def _recipe(records: Sequence[Mapping[str, Any]]) -> Recipe:
    reads = ((one["stages"], read) for one in records for read in _evolve(one)["reads"])
    models = {
        _digest(stages, last=read) for stages, read in reads if read.startswith("train_vae@")
    }  # by what made them
    records = sorted(records, key=_numbers)
    return Recipe(
        name=min((one["agent"] for one in records), key=lambda name: (len(name), name)),
        agents=tuple(one["agent"] for one in records),
        scores=tuple((_seeds(one), one["score"]["mean"]) for one in records),
        search=len(models) == 1,
    )


def _difference(recipe: Recipe, base: Recipe, every: Mapping[str, Mapping[str, Any]]) -> str:
    """How far a recipe is from another with the same seeds: the interval is of episodes, for these seeds."""
    mine, theirs = (np.mean([every[name]["scores"] for name in one.agents], axis=0) for one in (recipe, base))
    difference = mine - theirs
    return (
        f"{recipe.title} minus {base.title}: {difference.mean():+.1f} ({_range(interval(difference), '+')}: 95%, over "
        f"{len(difference)} episodes, each averaged over these seeds; says nothing of other seeds)"
    )


def _evolve(record: Mapping[str, Any]) -> Mapping[str, Any]:
    name = record["agent"].rpartition(":")[2]  # of BRANCH:NAME
    (own,) = (stage for stage in record["stages"] if stage["address"] == f"evolve@{name}")
    return own


def _numbers(record: Mapping[str, Any]) -> list[int]:
    return sorted({stage["params"]["seed"] for stage in record["stages"] if "seed" in stage["params"]})


def _seeds(record: Mapping[str, Any]) -> str:
    found = _numbers(record)
    return f"seed{'s' if len(found) > 1 else ''} {' and '.join(map(str, found))}"


def _digest(stages: Sequence[Mapping[str, Any]], without: str | None = None, last: str | None = None) -> str:
    """Of what made the last stage, or the one at the address `last`: numbers and the order of stages, whatever the
    agents and models are called."""
    by_address = {stage["address"]: stage for stage in stages}

    @cache
    def of(address: str) -> str:
        stage = by_address[address]
        numbers = {key: value for key, value in stage["params"].items() if key not in (without, *history.ASIDE)}
        content = json.dumps([address.partition("@")[0], numbers, sorted(map(of, stage["reads"]))], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    return of(last or stages[-1]["address"])


def _range(found: Mapping[str, float], sign: str = "") -> str:
    return f"{found['ci95_low']:{sign}.0f} to {found['ci95_high']:{sign}.0f}"
