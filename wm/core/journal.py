"""What a stage says while it runs: metrics for its output folder, timings for people, a progress bar.

A stage writes `metrics.jsonl`, one JSON object a line, into its output folder: deterministic numbers only. Timings
(steps a second, seconds) are different on every run, so they go to `live.jsonl` in the scratch folder, with the
metrics beside them; `wm.records.tracking` feeds MLflow from that file, so a dead MLflow server loses nothing.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Journal:
    """Appends metrics; on resume `rewind` drops what came after the checkpoint.

    Args:
        path: the deterministic file, usually `<output>/metrics.jsonl`.
        live: the same lines plus `time` and timings, outside the outputs; None writes none.
    """

    def __init__(self, path: Path, live: Path | None = None):
        self.path, self.live = Path(path), Path(live) if live else None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.live:
            self.live.parent.mkdir(parents=True, exist_ok=True)

    def log(self, step: int, metrics: dict[str, float], timings: dict[str, float] | None = None) -> None:
        """One line: `step` and metrics (finite or not; what is not is written as null)."""
        clean = {name: _number(value) for name, value in metrics.items()}
        _append(self.path, {"step": step, **clean})
        if self.live:
            _append(self.live, {"time": time.time(), "step": step, **clean, **(timings or {})})

    def rewind(self, step: int) -> None:
        """Forgets lines after `step` (a resumed run writes them again)."""
        for path in filter(None, (self.path, self.live)):
            if path.exists():
                kept = [line for line in read(path) if line["step"] <= step]
                temporary = path.with_suffix(".tmp")
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
                os.replace(temporary, path)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal, oldest first; a last line cut short by a kill is left out."""
    lines = []
    for text in Path(path).read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def bar(total: int, desc: str, unit: str, initial: int = 0) -> tqdm:
    """A progress bar on stderr with an estimate of the rest; a plain line each 10 s where there is no terminal."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        dynamic_ncols=terminal,
        unit_scale=total >= 10_000,
        mininterval=0.2 if terminal else 10.0,
        maxinterval=10.0 if terminal else 60.0,
        bar_format=None
        if terminal
        else "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]\n",
    )


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _number(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
