"""One HTML page about an agent, with everything inside: no file beside it, no request to anywhere.

It reads what the stages left in runs/, and asks MLflow for times where MLflow knows them. What is not made yet is a
sentence on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wm import params, worlds
from wm.core import files, journal, verdicts
from wm.core.errors import UserError
from wm.records import history, lineage
from wm.records.lineage import Made
from wm.stages import STAGES
from wm.stages.evolve import EvolveConfig
from wm.views import charts, numbers, paper, report_pictures


def write(name: str, out: Path, dream: Path | None = None) -> Path:
    """Writes the page of agent `name`; returns `out`.

    Args:
        dream: a page that `wm agent demo` wrote, to be put inside.
    Raises:
        UserError: there is no such agent, `out` is in a folder that is not there, or `dream` is no such page.
    """
    params.load().entry("agents", name)
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file with --out")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is no folder: make it first, or name another --out")
    files.write_bytes(out, html(name, dream).encode())
    return out


def html(name: str, dream: Path | None = None) -> str:
    """The page; arguments as `write`."""
    everything = params.load()
    world = everything.agents[name].world
    made = lineage.trace(name)
    rounds = {stage: [one for one in made.steps if one.step.stage == stage] for stage in STAGES}
    scores = history.Snapshot().json(made.steps[-1].step, "scores.json")
    solved = worlds.get(world).spec.solved
    environment = Environment(
        loader=PackageLoader("wm.views", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        name=name,
        world=world,
        scores=_score(scores, solved),
        films=report_pictures.films(made.steps[-1]),
        dream=framed(dream, name) if dream else "",
        table=_table(world, scores),
        citation=paper.CITATION,
        search=_search(world, made.steps),
        charts=_charts(rounds, scores, solved),
        pictures=report_pictures.of(rounds),
        gauge=report_pictures.gauge(made.steps),
        checks=_checks(made.steps),
        stages=[_stage(one) for one in made.steps],
        numbers=numbers.table(made),
        lineage=made,
        text=lineage,
    )


def framed(page: Path, name: str) -> Markup:
    """A page that `wm agent demo` wrote, as a frame of another one: it keeps its own content policy, which allows no
    request.

    Raises:
        UserError: it is no such page.
    """
    text = page.read_text(errors="replace") if page.is_file() else ""
    if '<script type="application/octet-stream" id="agent">' not in text:
        raise UserError(
            f"{page} is no page that `wm agent demo` wrote: run `python -m wm agent demo {name} --out {page}`"
        )
    frame = Markup('<iframe class="dream" loading="lazy" title="A dream of {}" srcdoc="{}"></iframe>')
    return frame.format(name, text)


# ---------------------------------------------------------------- the score


def _score(scores: dict[str, Any], solved: float | None) -> dict[str, Any]:
    if not scores:
        return {}
    values = np.array(scores["scores"])
    return scores | {
        "median": float(np.median(values)),
        "solved": solved,
        "reached": None if solved is None else int((values >= solved).sum()),
    }


def _table(world: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Rows with bars, the best first; empty where the paper has no such world."""
    rows: list[dict[str, Any]] = [
        {
            "method": row.method,
            "mean": row.mean,
            "std": row.std,
            "from": row.source,
        }
        for row in paper.SCORES.get(world, ())
    ]
    if rows and scores:
        rows.append({"method": "this agent", "mean": scores["mean"], "std": scores["std"], "from": "here"})
    rows.sort(key=lambda row: -row["mean"])
    top = max((row["mean"] + row["std"] for row in rows), default=1.0)
    for row in rows:
        low, high = max(row["mean"] - row["std"], 0), row["mean"] + row["std"]
        row["at"], row["low"], row["span"] = (100 * value / top for value in (max(row["mean"], 0), low, high - low))
    return {"rows": rows, "ours": bool(scores)}


# ---------------------------------------------------------------- curves


def _charts(rounds: dict[str, list[Made]], scores: dict[str, Any], solved: float | None) -> dict[str, str]:
    found = {
        "evolution": _evolution(rounds["evolve"], solved),
        "reconstruction": _learning(
            rounds["train_vae"], "Reconstruction error of a frame", ["train/reconstruction", "held_out/reconstruction"]
        ),
        "kl": _learning(rounds["train_vae"], "KL divergence of z", ["train/kl", "held_out/kl"]),
        "nll": _learning(rounds["train_mdn"], "Negative log-likelihood of the next z", ["train/nll", "held_out/nll"]),
        "reward": _learning(rounds["train_mdn"], "Error of the predicted reward", ["train/reward", "held_out/reward"]),
        "scores": "",
    }
    if scores:
        found["scores"] = charts.histogram(
            "Scores of the test episodes",
            f"A histogram of {len(scores['scores'])} scores from {scores['min']:.0f} to {scores['max']:.0f} "
            f"with their mean {scores['mean']:.0f}.",
            scores["scores"],
            interval=(scores["ci95_low"], scores["ci95_high"]),
            reference=None if solved is None else ("solved", solved),
        )
    return {key: Markup(svg) for key, svg in found.items()}


def _journals(steps: Sequence[Made]) -> list[list[dict[str, Any]]]:
    paths = [Path(made.step.folder, "metrics.jsonl") for made in steps]
    return [journal.read(path) if path.is_file() else [] for path in paths]


def _along(
    journals: list[list[dict[str, Any]]], word: str = "round"
) -> tuple[list[float], list[tuple[float, float, str]]]:
    """Where each round begins on an axis on which they follow one another, and (first, last, label) of each."""
    starts, spans, at = [], [], 0.0
    for number, lines in enumerate(journals, 1):
        starts.append(at)
        end = at + max((line["step"] for line in lines), default=0)
        if lines:
            spans.append((at, end, f"{word} {number}"))
        at = end
    return starts, spans


def _points(lines: list[dict[str, Any]], metric: str, start: float) -> list[tuple[float, float]]:
    return [(start + line["step"], line[metric]) for line in lines if line.get(metric) is not None]


def _learning(steps: Sequence[Made], title: str, metrics: Sequence[str], xlabel: str = "step") -> str:
    journals = _journals(steps)
    starts, spans = _along(journals)
    drawn = []
    for metric, colour in zip(metrics, ("a", "b"), strict=False):
        parts = [_points(lines, metric, start) for lines, start in zip(journals, starts, strict=True)]
        label = {"train": "training", "held_out": "held out"}.get(metric.split("/")[0], metric)
        drawn.append(charts.Line(label, [part for part in parts if part], colour, dots=metric.startswith("held_out")))
    drawn = [line for line in drawn if line.parts]
    ends = ", ".join(f"{line.label} ends at {line.parts[-1][-1][1]:.4g}" for line in drawn)
    return charts.lines(title, f"{title} by {xlabel}: {ends}.", drawn, xlabel=xlabel, rounds=spans)


def _evolution(steps: Sequence[Made], solved: float | None) -> str:
    journals = _journals(steps)
    starts, spans = _along(journals, "search")

    def parts(metric: str) -> list[list[tuple[float, float]]]:
        found = [_points(lines, metric, start) for lines, start in zip(journals, starts, strict=True)]
        return [part for part in found if part]

    dreamed = [any("rescored_dream" in line for line in lines) for lines in journals]

    def means(dream: bool) -> list[list[tuple[float, float]]]:
        chosen = [index for index, own in enumerate(dreamed) if own == dream]
        found = [_points(journals[index], "mean", starts[index]) for index in chosen]
        return [part for part in found if part]

    drawn = [
        charts.Line("population's mean" + " in the world" * any(dreamed), means(dream=False), "a"),
        charts.Line("population's mean in the dream", means(dream=True), "d"),
        charts.Line("the distribution's mean" + (" in the world" if any(dreamed) else ", looked at again"),
                    parts("rescored"), "b", dots=True),
        charts.Line("the same in the dream", parts("rescored_dream"), "c", dots=True),
    ]  # fmt: skip
    drawn = [line for line in drawn if line.parts]
    best = max((y for part in parts("rescored") for _, y in part), default=float("nan"))
    return charts.lines(
        "Evolution of C",
        f"Scores by generation over {len(spans)} searches; the best look at a distribution's mean is {best:.0f}"
        + (" in the world." if any(dreamed) else "."),
        drawn,
        xlabel="generation" + f", {len(spans)} searches one after another" * (len(spans) > 1),
        rounds=spans,
        band=list(zip(parts("worst"), parts("best"), strict=False)),
        reference=None if solved is None else ("solved", solved),
    )


def _search(world: str, steps: Sequence[Made]) -> str:
    """What C is and how the agent's own search chose it, in a few words."""
    own = next((made for made in reversed(steps) if made.step.stage == "evolve"), None)
    if own is None:
        return ""
    config = EvolveConfig.model_construct(**own.step.numbers)
    inputs = config.inputs or worlds.get(world).spec.controller_inputs
    reads = {"z": "V's z", "h": "M's output h", "c": "M's cells c"}
    said = [
        "C is a single linear layer" if not config.hidden else f"C has a hidden layer of {config.hidden} units",
        f" on {' and '.join(reads[part] for part in inputs)}. CMA-ES samples a population of them a "
        f"generation, {config.population} in the last search; every {config.rescore_every} generations the mean of its "
        "distribution and the generation's best are looked at on more episodes, and the best of them is kept.",
    ]
    if config.final_episodes:
        said.append(f" At the end the best few and the average of the means meet on {config.final_episodes} others.")
    return "".join(said)


# ---------------------------------------------------------------- checks and stages


def _checks(steps: Sequence[Made]) -> list[dict[str, Any]]:
    """What the checks found, a table a set of data or latents, with a picture."""
    found = []
    for one in steps:
        folder = Path(one.step.folder)
        if (folder / verdicts.FILE).is_file():
            words = "Frames around what each check found most" if one.step.stage == "collect" else "What z says"
            picture = report_pictures.picture(one, "checks.png", words)
            found.append({"of": one.step.target, "rows": verdicts.rows(verdicts.read(folder)), "picture": picture})
    return found


def _stage(made: Made) -> dict[str, Any]:
    summary = Path(made.step.folder, "summary.json")
    figures = files.read_json(summary) if summary.is_file() else {}
    return {
        "stage": made.step.stage,
        "name": made.step.name,
        "words": STAGES[made.step.stage].description,
        "seconds": lineage.duration(made.run["seconds"]) if made.run else "",
        "figures": [(key.replace("held_out/", "held-out ").replace("_", " "), _figure(figures[key]))
                    for key in figures if key not in ("ci95_high", "ci95_low", "nan")],
        "made": made.step.output is not None,
    }  # fmt: skip


def _figure(value: float) -> str:
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
