"""Agents side by side: their scores, and how far each is from the first on the same episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wm import files
from wm.errors import UserError
from wm.stages.evaluate import interval

RUNS = Path("runs")


def table(names: list[str]) -> str:
    """A Markdown table, a row an agent; differences are paired, episode by episode, with a 95% interval (bootstrap).

    Raises:
        UserError: an agent has no score, or was scored on other episodes or in another drawing than the first.
    """
    every = [scores(name) for name in names]
    lines = ["| agent | score | 95% interval | minus the first | 95% interval |", "|---|---|---|---|---|"]
    for name, found in zip(names, every, strict=True):
        cells = [name, f"{found['mean']:.0f} ± {found['std']:.0f}", _range(found)]
        if found is every[0]:
            cells += ["", ""]
        else:
            for key in ("world", "drawing", "seeds"):
                if found[key] != every[0][key]:
                    raise UserError(f"{name} and {names[0]} were not scored on the same episodes: their {key} differ")
            difference = np.array(found["scores"]) - np.array(every[0]["scores"])
            cells += [f"{difference.mean():+.0f}", _range(interval(difference), "+")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def scores(name: str) -> dict[str, Any]:
    """What `evaluate` wrote about an agent.

    Raises:
        UserError: it has no score.
    """
    path = RUNS / name / "evaluate" / "scores.json"
    if not path.exists():
        raise UserError(f"{name} has no score yet: run `python -m flows.pipeline {name}` first")
    return files.read_json(path)


def _range(found: dict[str, float], sign: str = "") -> str:
    return f"{found['ci95_low']:{sign}.0f} to {found['ci95_high']:{sign}.0f}"
