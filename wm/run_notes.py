"""The words on MLflow's pages: what a run is, what made it, how to make it again. Only Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

STAGES = {
    "collect": "Episodes of the world, driven by a random policy or by the last round's controller.",
    "train_vae": "**V**, the convolutional variational autoencoder: a frame becomes a small latent vector z.",
    "encode": "Every frame of the data set through V: the mean and log-variance of z, from which M learns.",
    "train_mdn": "**M**, the mixture density LSTM: z, action and memory give a mixture over the next z.",
    "evolve": "**C**, the controller: a linear layer on z and M's memory, found by CMA-ES.",
    "evaluate": "The whole agent on test episodes that no stage has seen, drawn as the world's makers do.",
    "pipeline": "A run of the whole line, from nothing to a scored agent. Its stages are the runs below it.",
}
MODELS = {
    "vae": "**V** of a world model (Ha & Schmidhuber 2018): frames [B, 64, 64, 3] in, the latent's mean and "
    "log-variance out.",
    "mdnrnn": "**M** of a world model (Ha & Schmidhuber 2018): z, action and state in, a mixture over the next z out.",
    "agent": "**V, M and C together**: frames in, actions out. A request carries M's state, and the reply "
    "the next one; the model keeps none.",
}


def of_run(run: dict[str, Any], end: dict[str, Any], pictures: Sequence[str] = (), picture_url: str = "") -> str:
    """The note of a run.

    Args:
        run, end: a spool entry's run.json and end.json.
        pictures: artifact paths of pictures to show in place, below `picture_url` + path.
    """
    stage = run["stage"]
    lines = [STAGES.get(stage, ""), ""]
    if end.get("message"):
        lines += [f"> {end['message']}", ""]
    if end.get("summary"):
        lines += [_figures(end["summary"]), ""]
    if end.get("note"):
        lines += [end["note"], ""]
    for path in pictures:
        lines += [f"![{path}]({picture_url}{path})", ""]
    lines += ["**Make it again**", "```", *again(run), "```", ""]
    if run["inputs"] or end.get("output_digest"):
        lines += ["| | sha256 |", "|---|---|"]
        lines += [f"| reads `{path}` | `{digest[:16]}…` |" for path, digest in run["inputs"].items()]
        if end.get("output_digest"):
            lines += [f"| wrote `{run['output']}` | `{end['output_digest'][:16]}…` |"]
    return "\n".join(lines)


def of_version(run: dict[str, Any], end: dict[str, Any], data: str) -> str:
    """The description of a model's version."""
    return "\n".join(
        [
            f"`{run['stage']}@{run['name']}` at commit `{(run['commit'] or 'unknown')[:12]}`"
            + (" with changes" if run["dirty"] else "")
            + f", data `{data[:16]}…`.",
            "",
            _figures(end.get("summary", {})),
            "",
            "```",
            *again(run),
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


def again(run: dict[str, Any]) -> list[str]:
    """The commands that reproduce a run."""
    target = f"evaluate@{run['name']}" if run["stage"] == "pipeline" else f"{run['stage']}@{run['name']}"
    changes = "   # the run had changes on top" if run["dirty"] else ""
    checkout = [f"git checkout {run['commit'][:12]}{changes}"] if run["commit"] else []
    return [*checkout, f"dvc repro {target}"]


def _figures(summary: dict[str, float]) -> str:
    return " · ".join(f"{name.replace('_', ' ')} **{_figure(value)}**" for name, value in summary.items())


def _figure(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
