"""The numbers behind an agent as a table."""

from __future__ import annotations

from typing import Any

from wm.records.lineage import Lineage
from wm.stages import STAGES


def table(made: Lineage) -> dict[str, Any]:
    """What params.yaml sets, a row a key and a column a round: {"columns": [...], "rows": [(stage, key, [values])]}."""
    columns = list(dict.fromkeys(one.step.name for one in made.steps))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in made.steps:
        for key, value in one.step.numbers.items():
            shared = key in ("world", "seed")
            rows.setdefault(("", key) if shared else (one.step.stage, key), {})[one.step.name] = value
    order = {"": -1} | {stage: index for index, stage in enumerate(STAGES)}
    ordered = sorted(rows, key=lambda row: (order[row[0]], row[1] != "world", row[1]))
    return {"columns": columns, "rows": [(*row, [rows[row].get(column, "") for column in columns]) for row in ordered]}
