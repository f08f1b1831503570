"""What stages leave for `dvc plots`, and the page that it makes of that without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wm.core import files, plots
from wm.stages import STAGES

ROOT = Path(__file__).parent.parent
ENV = os.environ | {"PYTHONPATH": str(ROOT)}


def journal(folder: Path, *lines: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def text(stage: str, out: Path) -> str:
    plots.write(stage, out, out / "new" / "table.tsv")
    return (out / "new" / "table.tsv").read_text()


def test_a_curve_is_a_row_a_point(tmp_path):
    lines = [
        {"step": 5, "train/loss": 30.123456789, "train/kl": 1.0, "held_out/loss": None},
        {"step": 10, "train/loss": 1e-9, "held_out/loss": 31, "unknown": 3},
    ]
    assert text("train_vae", journal(tmp_path, *lines)) == (
        "step\tpanel\tseries\tvalue\n"
        "5\tLoss\ttrain\t30.12346\n"
        "10\tLoss\ttrain\t1e-09\n"
        "10\tLoss\theld out\t31\n"
        "5\tKL divergence\ttrain\t1\n"
    )


def test_scores_are_a_row_an_episode_and_no_step_is_no_row(tmp_path):
    files.write_json(tmp_path / "scores.json", {"scores": [1.5, -0.25]})
    assert text("evaluate", tmp_path) == "episode\tscore\n0\t1.5\n1\t-0.25\n"
    assert text("train_mdn", tmp_path) == "step\tpanel\tseries\tvalue\n", "M was not trained further in this round"


def test_stages_leave_what_their_journals_have(project):
    from wm.cli import main

    for stage in STAGES:
        assert main([stage, "tiny"]) == 0
    tables = {path.stem: path.read_text() for path in Path("plots/tiny").iterdir()}
    assert set(tables) == {"train_vae", "train_mdn", "evolve", "evaluate"}
    assert tables["evaluate"].count("\n") == 1 + len(files.read_json(Path("runs/tiny/evaluate/scores.json"))["scores"])
    for stage, (panels, series) in {
        "train_vae": ({"Loss", "Reconstruction", "KL divergence"}, {"train", "held out"}),
        "train_mdn": ({"Negative log-likelihood", "Reward", "Done"}, {"train", "held out"}),
        "evolve": ({"Score", "Step size"}, {"best candidate", "mean", "worst candidate", "rescored, world", "sigma"}),
    }.items():
        rows = [line.split("\t") for line in tables[stage].splitlines()[1:]]
        assert {row[1] for row in rows} == panels and {row[2] for row in rows} >= series


@pytest.fixture
def drawn(tmp_path) -> Path:
    """A project with smoke's four tables, of which the page is drawn; its folder."""
    for name in ("dvc.yaml", "params.yaml", ".dvc/config", ".dvc/.gitignore", ".dvc/plots"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    folder = journal(tmp_path / "made", *({"step": n, "train/loss": 9 - n, "best": n, "mean": 1} for n in range(9)))
    files.write_json(folder / "scores.json", {"scores": [100.0, 101.0, 500.0]})
    for stage in plots.STAGES:
        plots.write(stage, folder, tmp_path / "plots/smoke" / f"{stage}.tsv")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_the_page_needs_no_network(drawn):
    pytest.importorskip("vl_convert", reason="the page needs vl-convert-python: pip install -e '.[plots]'")
    command = [sys.executable, "-m", "flows.plots"]
    done = subprocess.run(command, cwd=drawn, env=ENV, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    page = (drawn / "dvc_plots/index.html").read_text()
    assert page.count("<script src") == page.count("<link") == 0, "the page loads something"
    for title in ("V of smoke", "C of smoke", "Scores of smoke"):
        assert f'"title": "{title}"' in page
    assert "{plot_divs}" not in page and page.count("vegaEmbed('#") >= 3
    ignored = subprocess.run(["git", "check-ignore", ".dvc/tmp/plots.html", ".dvc/config.local"], cwd=drawn, text=True,
                             capture_output=True)  # fmt: skip
    assert len(ignored.stdout.split()) == 2, "nothing of it is committed"
