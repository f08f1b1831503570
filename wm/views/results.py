"""The results page: scores, costs and curves of finished agents, each figure from the files and runs that made it.

Outputs of stages hold no times, since they have to be the same bits on every run: durations and machines come from
MLflow's runs, and are empty where it does not know an output.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wm import params, worlds
from wm.core import files, journal
from wm.core.errors import DamagedData, UserError
from wm.pictures import style
from wm.records import earlier, lineage
from wm.records.history import ZERO
from wm.records.lineage import Lineage, Made
from wm.stages import STAGES
from wm.views import paper, results_page, table


@dataclass(kw_only=True)
class Cost:
    """What a stage took.

    Attributes:
        address: as in dvc.yaml: "evolve@car_racing".
        seconds: of wall time, stopped attempts included; None where no run in MLflow wrote this output.
        cores: processes or threads that it was given, but no more than the machine has.
        episodes, steps: of the world, collected, searched with or tested on.
        selection: episodes of the world on which searches looked at means, best candidates, what they inherit, and the
            contenders of a final selection; their steps are not recorded.
        dreamed_episodes, dreamed_steps: inside M.
    """

    address: str
    seconds: float | None
    cores: int
    machine: str
    commit: str
    episodes: int = 0
    steps: int = 0
    selection: int = 0
    dreamed_episodes: int = 0
    dreamed_steps: int = 0


@dataclass(frozen=True)
class _Part:
    """A stage of a lineage: its cost, and what generations took."""

    made: Made
    cost: Cost
    generations: dict[int, float] = field(default_factory=dict)


def write(names: Sequence[str], out: Path = table.RESULTS, machine: str = "") -> Path:
    """Writes NAME.json and NAME.png of each agent, and README.md of all whose NAME.json is in `out`; returns README.md.

    Without names it is written from those records alone, which needs no runs/. Deleting NAME.json takes an agent out.

    Args:
        machine: where runs were made that do not say it themselves.
    Raises:
        UserError: there is no such agent, it has no score, there is no record at all, or `out` cannot be a folder.
        DamagedData: an output of a stage behind a score is not here, or a record is not whole.
    """
    everything = params.load()
    if not out.parent.is_dir() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} cannot be a folder: name another --out")
    models = {name: everything.entry("agents", name).model for name in names}
    new = {name: record(name, model, machine) for name, model in models.items()}
    records = _kept(out, renewed=names) | new
    if not records:
        raise UserError(f"{out} has no record of an agent: name agents that have been scored")
    page = results_page.page([records[name] for name in sorted(records)], _sweeps(everything, out))
    out.mkdir(exist_ok=True)
    for name, one in new.items():
        files.write_record(out / f"{name}.json", one)
    for name, one in records.items():
        if name in new or not (out / f"{name}.png").exists():
            picture(one, out / f"{name}.png")
    files.write_bytes(out / "README.md", page.encode())
    return out / "README.md"


def _kept(out: Path, renewed: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The records of earlier calls, but for those that are written anew."""
    found = {}
    for path in (path for path in out.glob("*.json") if path.stem not in renewed):
        found[path.stem] = table.read(path)
    return found


def _sweeps(everything: params.Params, out: Path) -> list[tuple[str, str, str]]:
    """(world, model, table) of each temperature sweep (`wm.views.sweep`) in `out`."""
    found = []
    for path in sorted(out.glob("*_tau/table.md")):
        model = path.parent.name.removesuffix("_tau")
        if model not in everything.models:
            raise UserError(f"{path.parent} is of a model that params.yaml does not have: delete it, or add the model")
        found.append((everything.models[model].world, model, path.read_text()))
    return found


def record(name: str, model: str, machine: str = "") -> dict[str, Any]:
    """What is known about a scored agent, as NAME.json has it.

    Returns:
        {"agent", "world", "model" (by name), "commit", "again" (a command), "doubts", "machines",
        "score": {"mean", "std", "ci95_low", "ci95_high", "median", "episodes", "drawing", "selection"},
        "test": {"seeds" (a digest: the same for the same episodes), "scores" (to 0.0001)},
        "cost": {"training_seconds", "test_seconds", "core_hours" (of training), "unrecorded": [addresses], and sums of
        `Cost`'s counts over the stages of training},
        "stages": [`Cost`, `table.stage_record` and "md5" (the output's in dvc.lock) of each, first to last],
        "decides": "world" or "dream", where the search chose what it kept,
        "curve": a point a look at the selection episodes, over all agents that the search goes back to: {"agent",
        "generation", "kept" (the best score so far where the choice is made) and "rescored" (the world's, of the
        distribution's mean), and since the first episode of all: "seconds" (None where unknown), "episodes", "steps"
        (real and dreamed)}}
    """
    scores = table.scores(name)
    made = lineage.trace(name)
    parts = [_part(one, machine) for one in made.steps]
    values = np.array(scores["scores"])
    curve = list(_curve(made, parts))
    kept = files.read_json(Path(f"runs/{name}/evolve/summary.json"))["selection_score"]
    return {
        "agent": name,
        "world": scores["world"],
        "model": model,
        "commit": made.commit,
        "again": made.again,
        "doubts": made.doubts,
        "machines": list(dict.fromkeys(part.cost.machine for part in parts if part.cost.machine)),
        "score": {key: scores[key] for key in ("mean", "std", "ci95_low", "ci95_high", "drawing")}
        | {"median": float(np.median(values)), "episodes": len(values), "selection": kept},
        "test": {"seeds": table.digest(scores["seeds"]), "scores": [round(value, 4) for value in scores["scores"]]},
        "cost": _sum([part.cost for part in parts]),
        "decides": "dream" if _dream_decides(made.steps, name) else "world",
        "stages": [
            asdict(part.cost) | table.stage_record(part.made.step) | {"md5": part.made.step.output} for part in parts
        ],
        "curve": curve,
    }


# ---------------------------------------------------------------- what it took


def _part(made: Made, machine: str) -> _Part:
    step, run = made.step, made.run
    seconds, generations = earlier.cost(run) if run else (None, {})
    machine = (run or {}).get("machine") or machine
    cores = _workers(made) if "play" in STAGES[step.stage].code else _number(made, "threads")
    if has := re.search(r"(\d+) cores?\b", machine):
        cores = min(cores, int(has[1]))
    cost = Cost(
        address=step.address,
        seconds=None if seconds is None else round(seconds, 1),
        cores=cores,
        machine=machine,
        commit=made.commit,
    )
    summary = files.read_json(Path(step.folder, "summary.json"))
    if step.stage == "collect":
        before = [files.read_json(Path(folder, "summary.json")) for folder in _read(made, "collect")]
        cost.episodes = summary["new_episodes"]
        cost.steps = summary["steps"] - sum(one["steps"] for one in before)
    elif step.stage == "evaluate":
        cost.episodes, cost.steps = summary["episodes"], summary["steps"]
    elif step.stage == "evolve":
        if _number(made, "dream"):
            cost.dreamed_episodes, cost.dreamed_steps = summary["episodes"], summary["steps"]
        else:
            cost.episodes, cost.steps = summary["episodes"], summary["steps"]
        lines = _lines(made)
        looks = 2 * sum("rescored_best" in line for line in lines)  # the mean, and the generation's best
        looks += any(line["step"] == 0 for line in lines)  # what it inherits, unless that was nothing it could take
        cost.selection = looks * _number(made, "rescore_episodes") + summary.get("final_episodes", 0)
    return _Part(made, cost, generations)


def _workers(made: Made) -> int:
    """Processes that played, as its run in MLflow says; where none is known, so are no seconds to multiply them by."""
    return int((made.run or {}).get("params", {}).get("workers", 1))


def _number(made: Made, key: str) -> Any:
    """A number of a stage, from its record or, where params.yaml leaves it out, the default."""
    return made.step.numbers.get(key, params.config_of(made.step.stage).model_fields[key].default)


def _read(made: Made, stage: str) -> list[str]:
    """Folders of a stage that this one read, without runs/zero."""
    return [path for path in made.step.inputs if path.endswith(f"/{stage}") and not path.startswith(ZERO)]


def _lines(made: Made) -> list[dict[str, Any]]:
    path = Path(made.step.folder, "metrics.jsonl")
    if not path.is_file():
        raise DamagedData(f"{path} is missing: run `dvc checkout {made.step.target}`, or the stage again")
    return journal.read(path)


def _sum(costs: Sequence[Cost]) -> dict[str, Any]:
    training = [cost for cost in costs if not cost.address.startswith("evaluate@")]
    test = [cost for cost in costs if cost.address.startswith("evaluate@")]
    counts = ("selection", "dreamed_episodes", "dreamed_steps")
    collected = [cost for cost in training if cost.address.startswith("collect@")]
    searched = [cost for cost in training if cost.address.startswith("evolve@")]
    known = [cost for cost in training if cost.seconds is not None]
    return {
        "training_seconds": _seconds(training),
        "test_seconds": _seconds(test),
        "core_hours": round(sum(cost.seconds * cost.cores for cost in known) / 3600, 3) if known else None,
        "unrecorded": [cost.address for cost in costs if cost.seconds is None],
        "collected_episodes": sum(cost.episodes for cost in collected),
        "searched_episodes": sum(cost.episodes for cost in searched),
        "steps": sum(cost.steps for cost in training),
        **{key: sum(getattr(cost, key) for cost in training) for key in counts},
    }


def _seconds(costs: Sequence[Cost]) -> float | None:
    """The sum of what is recorded; None if nothing is."""
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    return round(sum(known), 1) if known else None


# ---------------------------------------------------------------- the curve


def _dream_decides(steps: Sequence[Made], name: str) -> bool:
    (own,) = (made for made in steps if made.step.folder == f"runs/{name}/evolve")
    gauged = Path(own.step.folder, "gauge.json")  # earlier searches have none
    trusted = not gauged.exists() or files.read_record(gauged)["trusted"]
    return bool(_number(own, "dream")) and _number(own, "select") == "dream" and trusted


def _curve(made: Lineage, parts: Sequence[_Part]) -> Iterator[dict[str, Any]]:
    parts_by_folder = {part.made.step.folder: part for part in parts}

    @cache
    def behind(folder: str) -> set[str]:
        before = [path for path in parts_by_folder[folder].made.step.inputs if path in parts_by_folder]
        return set(before).union(*map(behind, before))

    chain = [f"runs/{made.name}/evolve"]
    while before := _read(parts_by_folder[chain[0]].made, "evolve"):
        chain.insert(0, before[0])
    for folder in chain:
        part = parts_by_folder[folder]
        costs = [one.cost for path, one in parts_by_folder.items() if path in behind(folder)]
        seconds = math.fsum(math.nan if cost.seconds is None else cost.seconds for cost in costs)
        episodes = sum(cost.episodes + cost.dreamed_episodes for cost in costs)
        steps = sum(cost.steps + cost.dreamed_steps for cost in costs)
        each = _number(part.made, "population") * _number(part.made, "episodes")
        for line in _lines(part.made):
            seconds += part.generations.get(line["step"], math.nan)
            if line["step"] == 0:  # the look at what it starts from
                continue
            episodes += each
            steps += line["steps"]
            if line.get("kept") is not None:
                yield {
                    "agent": part.made.step.name,
                    "generation": line["step"],
                    "seconds": round(seconds, 1) if math.isfinite(seconds) else None,
                    "episodes": episodes,
                    "steps": steps,
                    "kept": line["kept"],
                    "rescored": line["rescored"],
                }


def picture(record: dict[str, Any], path: Path) -> None:
    """The curve as a PNG, the same bytes for the same record: over episodes and, where recorded, over time."""
    curve, score, world, key = record["curve"], record["score"], record["world"], table.world_key(record)
    title = "Best selection score so far" if key == "kept" else "Mean of the distribution, looked at in the world"
    axes_of = {"training episodes" + (", dreamed ones included" if record["cost"]["dreamed_episodes"] else ""): [
        point["episodes"] for point in curve
    ]}  # fmt: skip
    if all(point["seconds"] is not None for point in curve):
        unit, seconds = ("hours", 3600) if curve[-1]["seconds"] > 7200 else ("minutes", 60)
        axes_of[f"{unit} of training"] = [point["seconds"] / seconds for point in curve]
    agents = list(dict.fromkeys(point["agent"] for point in curve))
    with style.styled():
        figure, axes = style.subplots(len(axes_of), "", size=(4.9 * len(axes_of) + 1.2, 4.2))
        for ax, (label, xs) in zip(axes, axes_of.items(), strict=True):
            for number, agent in enumerate(agents):
                own = [(x, point[key]) for x, point in zip(xs, curve, strict=True) if point["agent"] == agent]
                colour = style.CYCLE[number % len(style.CYCLE)]
                ax.plot(*zip(*own, strict=True), color=colour, marker="o", markersize=4, label=f"evolve of {agent}")
            errors = [[score["mean"] - score["ci95_low"]], [score["ci95_high"] - score["mean"]]]
            test = f"test, {score['episodes']} episodes, 95% interval"
            ax.errorbar(xs[-1], score["mean"], errors, fmt="D", color=style.INK, markersize=5, capsize=3, label=test)
            for row in paper.SCORES.get(world, ())[:1]:
                style.reference_line(ax, f"{row.method}, paper", row.mean, style.GREY)
            for name, score_to_reach in worlds.get(world).spec.references.items():
                style.reference_line(ax, name, score_to_reach, style.INK)
            style.finish(ax, title, label, "linear", legend=False)
            ax.set_xlim(left=0)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        style.save(figure, path)
