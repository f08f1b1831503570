"""Agents side by side: paired differences, and a sentence where there is nothing to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wm import files
from wm.cli import main
from wm.stages.evaluate import interval


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def put(runs: Path, name: str, scores: list[float], **more) -> None:
    found = np.array(scores)
    (runs / name / "evaluate").mkdir(parents=True)
    about = {"world": "w", "drawing": "d", "seeds": list(range(len(scores))), **more}
    numbers = {"scores": scores, "mean": found.mean(), "std": found.std(), **interval(found)}
    files.write_json(runs / name / "evaluate" / "scores.json", {**about, **numbers})


def test_differences_are_paired(runs, capsys):
    """Means that differ by 2 with a spread of hundreds: only pairs can tell."""
    tracks = np.linspace(100, 900, 20)
    put(runs, "a", tracks.tolist())
    put(runs, "b", (tracks + 2).tolist())
    assert main(["table", "a", "b"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[2].startswith("| a | 500 ± 243 |") and lines[2].endswith("|  |  |")
    assert lines[3].startswith("| b | 502 ± 243 |") and lines[3].endswith("| +2 | +2 to +2 |")


def test_what_cannot_be_compared_is_a_sentence(runs, capsys):
    put(runs, "a", [1.0, 2.0])
    put(runs, "b", [1.0, 2.0], drawing="other")
    assert main(["table", "a", "nobody"]) == 2
    assert "nobody has no score yet" in capsys.readouterr().err
    assert main(["table", "a", "b"]) == 2
    assert "b and a were not scored on the same episodes: their drawing differ" in capsys.readouterr().err
