"""BRANCH:NAME: commands about a run on a branch of its own; and a clone whose history is cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_lineage import commits, recorded, run  # noqa: F401  the first two are fixtures

from wm.cli import main
from wm.core import files
from wm.records import gitfiles, lineage
from wm.views import table

RUN = "run/tiny-short:tiny"


@pytest.fixture
def branch(commits) -> list[str]:  # noqa: F811
    """The first commit is that of a run on a branch; the folder here is at the second."""
    run("git", "branch", "run/tiny-short", commits[0])
    return commits


def score(folder: str = ".") -> str:
    found = files.read_json(Path(folder, "runs/tiny/evaluate/scores.json"))
    return f"{found['mean']:.1f} ± {found['std']:.1f}"


def test_lineage_of_a_branch_is_its_own_and_not_that_of_the_files_here(branch, capsys):
    assert main(["lineage", RUN]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{RUN}: ") and "generations 5" in said
    assert said.endswith(f"Make it again:\n  git checkout {branch[0][:12]} && dvc repro evaluate@tiny\n")
    assert lineage.trace("tiny").commit == branch[1]


def test_a_table_has_runs_of_branches_beside_those_here(branch, capsys):
    assert main(["results", "table", "tiny", RUN]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["agent", "tiny", RUN]
    shutil.rmtree(".dvc/cache")
    assert main(["results", "table", "tiny", RUN]) == 2
    assert "is not in DVC's cache: `git checkout run/tiny-short && dvc pull`" in capsys.readouterr().err


def test_a_page_is_made_from_the_branchs_folder_and_written_here(branch, capsys):
    assert main(["report", RUN]) == 2
    assert "run `git worktree add .wm/run/tiny-short run/tiny-short`" in capsys.readouterr().err
    run("git", "worktree", "add", ".wm/run/tiny-short", "run/tiny-short")
    shutil.copytree("runs", ".wm/run/tiny-short/runs", dirs_exist_ok=True)
    top = Path.cwd()
    assert main(["report", RUN]) == 0
    assert Path.cwd() == top and branch[0][:12] in Path("run-tiny-short-tiny.html").read_text()
    assert main(["report", RUN, "--out", "page.html"]) == 0 and Path("page.html").exists()
    assert main(["watch", RUN, "--steps", "2"]) == 0 and Path("watch.mp4").exists(), "here, not in the run's folder"


@pytest.mark.parametrize("command", ["lineage", "report", "watch"])
def test_a_branch_that_is_none_is_one_sentence(branch, capsys, command):
    assert main([command, "run/nobody:tiny"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'run/nobody' is no" in error


def test_a_clone_whose_history_is_cut_names_no_commit(commits, tmp_path, monkeypatch):  # noqa: F811
    top = Path.cwd()
    for depth in ("1", "2"):
        Path("later.txt").write_text(depth)
        run("git", "add", "later.txt")
        run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "later")
        run("git", "clone", "-q", "--depth", depth, f"file://{top}", str(tmp_path / depth))
        monkeypatch.chdir(tmp_path / depth)
        made = lineage.trace("tiny")
        assert made.commit == "" and any("git's history is cut here" in doubt for doubt in made.doubts)
        monkeypatch.chdir(top)
    gitfiles._lock_commits.cache_clear()  # of the clone
    assert lineage.trace("tiny").commit == commits[1]


def test_runs_whose_models_have_one_name_share_them_only_if_they_were_made_alike():
    def record(model_seed: int, seed: int) -> dict:
        trained = {"address": "train_vae@tiny", "params": {"seed": model_seed}, "reads": []}
        evolved = {"address": "evolve@tiny", "params": {"seed": seed}, "reads": ["train_vae@tiny"]}
        return {"agent": f"run/tiny-seed{seed}:tiny", "stages": [trained, evolved], "score": {"mean": 1.0}}

    for model_seeds, shared in (((1, 2), False), ((1, 1), True)):
        (recipe,) = table.recipes([record(model_seeds[0], 1), record(model_seeds[1], 2)])
        assert recipe.search is shared
