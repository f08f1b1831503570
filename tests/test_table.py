"""Agents side by side: paired differences, and a sentence where there is nothing to compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import make_project

from wm.cli import main
from wm.core import files
from wm.records import dvcfiles
from wm.stages.evaluate import interval
from wm.views import table


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
    assert main(["results", "table", "a", "b"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[2].startswith("| a | 500 ± 243 |") and lines[2].endswith("|  |  |")
    assert lines[3].startswith("| b | 502 ± 243 |") and lines[3].endswith("| +2 | +2 to +2 |")


def test_what_cannot_be_compared_is_a_sentence(runs, capsys):
    put(runs, "a", [1.0, 2.0])
    put(runs, "b", [1.0, 2.0], drawing="other")
    assert main(["results", "table", "a", "nobody"]) == 2
    assert (
        "params.yaml is not here: run this in the top folder of a checkout of the repository" in capsys.readouterr().err
    )
    make_project(runs.parent)
    assert main(["results", "table", "a", "nobody"]) == 2
    assert "'nobody' is not in `agents` of params.yaml: expected one of tiny" in capsys.readouterr().err
    assert main(["results", "table", "a", "tiny"]) == 2
    assert "tiny has no score yet" in capsys.readouterr().err
    assert main(["results", "table", "a", "b"]) == 2
    assert "b and a were not scored on the same episodes: their drawing differ" in capsys.readouterr().err


def test_scores_that_are_not_those_on_record_are_doubted(runs, capsys):
    put(runs, "a", [1.0, 2.0])
    put(runs, "b", [1.0, 2.0])
    entry = "  evaluate@{name}: {{cmd: x, outs: [{{path: runs/{name}/evaluate, md5: {md5}}}]}}\n"
    md5 = {name: dvcfiles.md5(runs / name / "evaluate") for name in "ab"}
    Path("dvc.lock").write_text("stages:\n" + "".join(entry.format(name=name, md5=md5[name]) for name in "ab"))
    put(runs, "c", [1.0, 2.0])
    assert main(["results", "table", "a", "b", "c"]) == 0 and not capsys.readouterr().err
    scores = runs / "b/evaluate/scores.json"
    scores.write_text(scores.read_text().replace("2.0", "900.0"))
    assert main(["results", "table", "a", "b", "c"]) == 0
    assert capsys.readouterr().err.startswith("warning: runs/b/evaluate is not what dvc.lock records: `dvc repro ")


def test_recipes_with_the_same_seeds_are_compared_track_by_track_over_all_of_them(runs, monkeypatch, capsys):
    """Tracks differ by hundreds and seeds by tens; the gain is 10 with one seed and 30 with the other, whatever their
    order. A recipe with other seeds is not compared, and nothing is where the first agent is of no recipe."""
    tracks, made = np.linspace(100, 900, 20), {}
    for name, seed, generations, more in [
        ("a", 0, 4, 0),
        ("a_seed11", 11, 4, 50),
        ("b_seed11", 11, 8, 60),
        ("b", 0, 8, 30),
        ("c", 0, 9, 500),
        ("c_seed2", 2, 9, 500),
        ("d", 0, 2, 0),
    ]:
        put(runs, name, (tracks + more).tolist())
        numbers = {"seed": seed, "generations": generations}
        own = {"address": f"evolve@{name}", "params": numbers, "reads": ["train_vae@v"]}
        vae = {"address": "train_vae@v", "params": {}, "reads": []}
        made[name] = [vae, own, {"address": f"evaluate@{name}", "params": {}, "reads": [f"evolve@{name}"]}]
    monkeypatch.setattr(table, "_stages", lambda here, name: made[name])

    def below(*names):
        assert main(["results", "table", *names]) == 0
        return capsys.readouterr().out.strip().split("\n\n")[1:]

    recipes = [f"{name}, 2 seeds of the search" for name in "abc"]
    said = below(*made)
    assert [line.split(":")[0] for line in said[:3]] == recipes
    assert "(mean ± standard deviation between seeds; seed 0: 500, seed 11: 550)" in said[0]
    of = "(+20 to +20: 95%, over 20 episodes, each averaged over these seeds; says nothing of other seeds)"
    assert said[3:] == [f"{recipes[1]} minus {recipes[0]}: +20.0 {of}"]
    (one,) = below("b", "a", "a_seed11", "b_seed11")[2:]
    assert one.startswith(f"{recipes[0]} minus {recipes[1]}: -20.0 (-20 to -20")
    assert len(below("d", "a", "a_seed11", "b_seed11", "b")) == 2
