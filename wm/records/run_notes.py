"""The words on MLflow's pages: what a run is, what made it, how to make it again. Only Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wm.stages import STAGES

KINDS = {
    **{name: f"{stage.description[0].upper()}{stage.description[1:]}." for name, stage in STAGES.items()},
    "sweep": "Agents of one model, evolved in dreams of different temperatures: virtual beside actual scores.",
    "pipeline": "A run of the whole line, from nothing to a scored agent. Its stages are the runs below it.",
}
MODELS = {
    "vae": "**V** of a world model (Ha & Schmidhuber 2018): frames [B, 64, 64, 3] in, the latent's mean and "
    "log-variance out.",
    "mdnrnn": "**M** of a world model (Ha & Schmidhuber 2018): z, action and state in, a mixture over the next z out.",
    "agent": "**V, M and C together**: frames in, actions out. A request carries M's state, and the reply "
    "the next one; the model keeps none.",
}


PICTURES = {
    "figures/scores.png": "Scores of the test episodes",
    "figures/curves.png": "Learning curves",
    "figures/reconstructions.png": "Frames above, what V makes of them below",
    "figures/traversal.png": "A row a latent dimension, from low to high",
    "figures/dream_strip.png": "The world above, M's dream below, with the same actions",
    "figures/episodes.png": "Frames of the episodes",
    "figures/checks.png": "What the checks found, a row a check",
    "figures/gauge.png": "Disturbed controllers: scores in the dream and in the world",
    "figures/tau.png": "Scores in the dream and in the world by temperature",
}
"""Artifact path -> what it shows, for people who do not see it."""
SHOWN = {"vae": "figures/reconstructions.png", "mdnrnn": "figures/dream_strip.png", "agent": "figures/scores.png"}
"""Kind of model -> the picture on its version's page."""


def of_run(
    run: dict[str, Any],
    end: dict[str, Any],
    pictures: Sequence[tuple[str, str]] = (),
    films: Sequence[tuple[str, str]] = (),
) -> str:
    """The note of a run.

    Args:
        run, end: a spool entry's run.json and end.json.
        pictures: (artifact path, address) of what is shown in place.
        films: (name, address) of what is linked.
    """
    stage = run["stage"]
    lines = [KINDS.get(stage, ""), ""]
    if end.get("message"):
        lines += [f"> {end['message']}", ""]
    if end.get("summary"):
        lines += [_figures(end["summary"]), ""]
    if end.get("note"):
        lines += [end["note"], ""]
    if films:
        lines += ["Films: " + " · ".join(f"[{name}]({address})" for name, address in films), ""]
    for path, address in pictures:
        lines += [f"![{PICTURES.get(path, path)}]({address})", ""]
    lines += ["**Make it again**", "```", *commands_again(run), "```", ""]
    if run["inputs"] or end.get("output_digest"):
        lines += ["| | digest |", "|---|---|"]
        lines += [f"| reads `{path}` | `{digest[:16]}…` |" for path, digest in run["inputs"].items()]
        if end.get("output_digest"):
            lines += [f"| wrote `{run['output']}` | `{end['output_digest'][:16]}…` |"]
    return "\n".join(lines)


def of_version(run: dict[str, Any], end: dict[str, Any], data: str, picture: str = "") -> str:
    """The description of a model's version; `picture` is the address of one to show in place."""
    return "\n".join(
        [
            f"`{run['stage']}@{run['name']}` at commit `{(run['commit'] or 'unknown')[:12]}`"
            + (" with changes" if run["dirty"] else "")
            + f", data `{data[:16]}…`.",
            "",
            _figures(end.get("summary", {})),
            "",
            *([f"![what it does]({picture})", ""] if picture else []),
            "```",
            *commands_again(run),
            "```",
        ]
    )


def of_gate(decision: dict[str, Any], picture: str) -> str:
    """What the gate decided and why, as a paragraph, with the picture at that address where the agents played."""
    lines = [f"{decision['decision']}: {decision['why']}."]
    if "difference" in decision:
        numbers = {name: value for name, value in decision.items() if isinstance(value, (int, float))}
        lines += ["", _figures(numbers), "", f"![paired differences]({picture})"]
    return "\n".join(lines)


def commands_again(run: dict[str, Any]) -> list[str]:
    """The commands that reproduce a run."""
    if run.get("command"):
        return [run["command"]]
    if run["stage"] == "sweep":
        command = f"python -m flows.sweep {run['name']}"
    else:
        command = f"dvc repro {'evaluate' if run['stage'] == 'pipeline' else run['stage']}@{run['name']}"
    changes = "   # the run had changes on top" if run["dirty"] else ""
    checkout = [f"git checkout {run['commit'][:12]}{changes}"] if run["commit"] else []
    return [*checkout, command]


def score(summary: dict[str, float]) -> str:
    """`853.7 ± 61.3` of the figures of an evaluation, or of a pipeline's; empty for others."""
    figures = {name.removeprefix("score."): value for name, value in summary.items()}
    return f"{figures['mean']:.1f} ± {figures['std']:.1f}" if {"mean", "std"} <= figures.keys() else ""


def _figures(summary: dict[str, float]) -> str:
    figures = {name.removeprefix("score."): value for name, value in summary.items()}
    if score(summary) and {"episodes", "ci95_low", "ci95_high", "min", "max"} <= figures.keys():
        return (
            f"**{score(summary)}** over {figures['episodes']} episodes, 95% interval of the mean "
            f"{figures['ci95_low']:.1f} to {figures['ci95_high']:.1f}, worst {figures['min']:.1f}, "
            f"best {figures['max']:.1f}"
        )
    return " · ".join(f"{name.replace('_', ' ')} **{_figure(value)}**" for name, value in summary.items())


def _figure(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
