"""Agents side by side: paired differences, and a sentence where there is nothing to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wm import files, table
from wm.cli import main
from wm.stages.evaluate import interval

STAGES: dict[str, list[dict]] = {}


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


def test_recipes_with_the_same_seeds_are_compared_track_by_track_over_all_of_them(runs, monkeypatch, capsys):
    """Tracks differ by hundreds and seeds by tens; the gain is 10 with one seed and 30 with the other, whatever their
    order. A recipe with other seeds is not compared."""
    tracks = np.linspace(100, 900, 20)
    for name, seed, generations, more in [
        ("a", 0, 4, 0),
        ("a_seed1", 1, 4, 50),
        ("b_seed1", 1, 8, 60),
        ("b", 0, 8, 30),
        ("c", 0, 9, 500),
        ("c_seed2", 2, 9, 500),
    ]:
        put(runs, name, (tracks + more).tolist())
        numbers = {"seed": seed, "generations": generations}
        made = [{"address": f"evolve@{name}", "params": numbers, "reads": []}]
        made.append({"address": f"evaluate@{name}", "params": {}, "reads": [f"evolve@{name}"]})
        monkeypatch.setitem(STAGES, name, made)
    monkeypatch.setattr(table, "_stages", lambda here, name: STAGES[name])
    assert main(["table", *STAGES]) == 0
    below = capsys.readouterr().out.strip().split("\n\n")[1:]
    assert [line.split(":")[0] for line in below[:3]] == ["a, 2 seeds", "b, 2 seeds", "c, 2 seeds"]
    assert below[3:] == [
        "b, 2 seeds minus a, 2 seeds: +20.0 (+20 to +20, 95%, over 20 episodes, each averaged over the seeds)"
    ]
