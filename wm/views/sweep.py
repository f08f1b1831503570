"""The temperature sweep: agents of one model, evolved in dreams of different temperatures (paper, section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

from wm.core import files
from wm.core.errors import UserError
from wm.params import Params
from wm.pictures import figures
from wm.records import tracking
from wm.run import RUNS
from wm.search.fitness import VIRTUAL_EPISODES
from wm.views.paper import TEMPERATURES
from wm.views.table import RESULTS


@dataclass(frozen=True)
class Row:
    """An agent's scores, each (mean, standard deviation) over episodes: 100 dreamed ones, `episodes` real ones."""

    tau: float
    agent: str
    virtual: tuple[float, float]
    actual: tuple[float, float]
    interval: tuple[float, float]
    episodes: int


def agents(everything: Params, model: str) -> list[str]:
    """The agents that were evolved in dreams of `model`, the coldest first.

    Raises:
        UserError: there are fewer than two, or no such model.
    """
    everything.entry("models", model)
    found = [
        (entry.tau, name)
        for name, entry in everything.agents.items()
        if entry.model == model and everything.experiments[entry.experiment].evolve.dream
    ]
    if len(found) < 2:
        raise UserError(
            f"model {model!r} has {len(found)} agents with `dream: true`: a sweep takes two or more entries in "
            "`agents` of params.yaml that differ in tau"
        )
    return [name for _, name in sorted(found)]


def read(everything: Params, model: str) -> list[Row]:
    """The scores of every agent of the sweep.

    Raises:
        UserError: an agent has not been evaluated yet.
    """
    rows = []
    for name in agents(everything, model):
        evolved, scored = RUNS / name / "evolve" / "summary.json", RUNS / name / "evaluate" / "scores.json"
        if not (evolved.exists() and scored.exists()):
            raise UserError(
                f"{name} has no score yet: run `wm run {model} --temperatures`, which makes what is missing"
            )
        dream, world = files.read_json(evolved), files.read_json(scored)
        rows.append(
            Row(
                tau=everything.agents[name].tau,
                agent=name,
                virtual=(dream["virtual_score"], dream["virtual_std"]),
                actual=(world["mean"], world["std"]),
                interval=(world["ci95_low"], world["ci95_high"]),
                episodes=len(world["scores"]),
            )
        )
    return rows


def table(rows: list[Row], world: str) -> str:
    """The rows in the paper's form, as Markdown, beside the paper's own where it has them."""
    paper = TEMPERATURES.get(world, {})
    head = ["tau", "virtual score", "actual score", "95% interval", "agent"]
    head += ["paper: virtual", "paper: actual"] if paper else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [
            f"{row.tau:.2f}",
            _pm(row.virtual),
            _pm(row.actual),
            "{:.0f} to {:.0f}".format(*row.interval),
            row.agent,
        ]
        cells += [_pm(score) for score in paper.get(row.tau, ())] or [""] * (2 if paper else 0)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(everything: Params, model: str) -> str:
    """Writes table and plot to results/<model>_tau/ and to MLflow; returns the table.

    Raises:
        UserError: as `read` says.
    """
    rows = read(everything, model)
    experiment = everything.models[model].experiment
    world = everything.models[model].world
    out, text = RESULTS / f"{model}_tau", table(rows, world)
    with tracking.stage_run(
        stage="sweep",
        name=model,
        world=world,
        experiment=experiment,
        config={"agents": [row.agent for row in rows]},
        inputs=[RUNS / row.agent / "evaluate" for row in rows],
        output=out,
    ) as run:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        counts = " or ".join(str(count) for count in sorted({row.episodes for row in rows}))
        words = f"Mean ± standard deviation, virtual over {VIRTUAL_EPISODES} dreamed episodes, actual over {counts}"
        files.write_bytes(out / "table.md", f"{text}\n\n{words}; `python -m flows.sweep {model}`\n".encode())
        figures.temperatures(
            [row.tau for row in rows],
            [row.virtual for row in rows],
            [row.actual for row in rows],
            out / "figures" / "tau.png",
        )
        summary = {f"{kind}/tau_{row.tau:g}": getattr(row, kind)[0] for row in rows for kind in ("virtual", "actual")}
        files.write_json(out / "summary.json", summary)
        run.add(note=text)
    return text


def _pm(score: tuple[float, float]) -> str:
    return "{:.0f} ± {:.0f}".format(*score)
