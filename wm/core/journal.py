"""What a stage says while it runs: metrics for its output folder, timings for people, a progress bar.

A stage writes `metrics.jsonl`, one JSON object a line, into its output folder: deterministic numbers only. Timings
(steps a second, seconds) are different on every run, so they go to `live.jsonl` in the scratch folder, with the
metrics beside them; `wm.records.tracking` feeds MLflow from that file, so a dead MLflow server loses nothing. Beside
that, `live.sums` has the sha256 of each line of `metrics.jsonl`: a run that goes on keeps no line that was damaged.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wm.core.errors import DamagedData


class Journal:
    """Appends metrics; on resume `rewind` drops what came after the checkpoint.

    Args:
        path: the deterministic file, usually `<output>/metrics.jsonl`.
        live: the same lines plus `time` and timings, outside the outputs; None writes none.
    """

    def __init__(self, path: Path, live: Path | None = None):
        self.path, self.live = Path(path), Path(live) if live else None
        self._sums = self.live.with_suffix(".sums") if self.live else None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.live:
            self.live.parent.mkdir(parents=True, exist_ok=True)

    def log(self, step: int, metrics: dict[str, float], timings: dict[str, float] | None = None) -> None:
        """One line: `step` and metrics (finite or not; what is not is written as null)."""
        clean = {name: _number(value) for name, value in metrics.items()}
        line = {"step": step, **clean}
        if self._sums:
            _append(self._sums, [step, _sum(line)])
        _append(self.path, line)
        if self.live:
            _append(self.live, {"time": time.time(), "step": step, **clean, **(timings or {})})

    def rewind(self, step: int) -> None:
        """Forgets lines after `step` (a resumed run writes them again).

        Raises:
            DamagedData: a line up to there is not as it was written.
        """
        if self._sums and self._sums.exists():
            sums = [line for line in read(self._sums) if isinstance(line, list) and line[0] <= step]
            lines = _until(self.path, step) if self.path.exists() else []
            if [[line["step"], _sum(line)] for line in lines] != sums:
                folder = self._sums.parent
                raise DamagedData(
                    f"{self.path} is damaged (a line differs from its checksum): delete {folder}, and the same command "
                    "begins anew"
                )
            _write(self._sums, sums)
        for path in filter(None, (self.path, self.live)):
            if path.exists():
                _write(path, _until(path, step))


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal, oldest first; a last line cut short by a kill is left out."""
    lines = []
    for text in Path(path).read_bytes().decode(errors="replace").splitlines():
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


def _until(path: Path, step: int) -> list[dict[str, Any]]:
    lines = [line for line in read(path) if isinstance(line, dict) and isinstance(line.get("step"), int)]
    return [line for line in lines if line["step"] <= step]


def _append(path: Path, line: Any) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _write(path: Path, lines: list[Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.replace(temporary, path)


def _sum(line: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line).encode()).hexdigest()


def _number(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
