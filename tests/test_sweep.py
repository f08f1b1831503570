"""The temperature sweep's table: the right agents, their scores, and what is missing in a sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import tiny_world
from conftest import make_project

from wm import params
from wm.cli import main
from wm.core import files
from wm.core.errors import UserError
from wm.records import tracking
from wm.views import sweep

ROOT = Path(__file__).parent.parent
ENTRY = "experiment: dreaming, world: tiny, code: tiny_world.py, model: tiny, after: zero, seed: 3"
VARIANTS = "".join(f"  tiny-tau{tau}: {{{ENTRY}, tau: {tau / 100}}}\n" for tau in (130, 10, 115))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = make_project(tmp_path)
    text = tiny_world.PARAMS
    first = text.index("  tiny:\n    collect")
    section = text[first : text.index("models:")]
    dreaming = section.replace("  tiny:", "  dreaming:").replace("evolve: {", "evolve: {dream: true, ")
    text = text.replace("models:\n", dreaming + "models:\n", 1) + VARIANTS
    (folder / "params.yaml").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WM_TRACKING", "off")
    return folder


def put(name: str, virtual: float, actual: float) -> None:
    for stage in ("evolve", "evaluate"):
        (Path("runs") / name / stage).mkdir(parents=True)
    files.write_json(Path("runs") / name / "evolve/summary.json", {"virtual_score": virtual, "virtual_std": 2.0})
    scores = {"mean": actual, "std": 3.0, "ci95_low": actual - 1, "ci95_high": actual + 1, "scores": [actual] * 7}
    files.write_json(Path("runs") / name / "evaluate/scores.json", scores)


def test_it_compares_the_agents_that_dream_in_the_model_coldest_first(project, capsys):
    for name, virtual, actual in (("tiny-tau10", 30, 5), ("tiny-tau115", 20, 15), ("tiny-tau130", 10, 12)):
        put(name, virtual, actual)
    assert main(["results", "temperatures", "tiny"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[2:] == [
        "| 0.10 | 30 ± 2 | 5 ± 3 | 4 to 6 | tiny-tau10 |",
        "| 1.15 | 20 ± 2 | 15 ± 3 | 14 to 16 | tiny-tau115 |",
        "| 1.30 | 10 ± 2 | 12 ± 3 | 11 to 13 | tiny-tau130 |",
    ]
    out = Path("results/tiny_tau")
    text = (out / "table.md").read_text()
    assert (out / "figures/tau.png").stat().st_size > 5000 and lines[2] in text
    assert "virtual over 100 dreamed episodes, actual over 7;" in text
    assert files.read_json(out / "summary.json")["actual/tau_1.15"] == 15


def test_table_and_plot_are_in_mlflow(project, monkeypatch):
    for name in ("WM_TRACKING", "MLFLOW_TRACKING_URI", tracking.PARENT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracking, "PATIENCE", 60.0)
    for name, virtual, actual in (("tiny-tau10", 30, 5), ("tiny-tau115", 20, 15), ("tiny-tau130", 10, 12)):
        put(name, virtual, actual)
    assert main(["results", "temperatures", "tiny"]) == 0
    client = tracking.connect(project)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`wm.stage` = 'sweep'")
    assert run.info.status == "FINISHED" and run.data.metrics["virtual/tau_0.1"] == 30
    assert "| 1.15 | 20 ± 2 | 15 ± 3 |" in run.data.tags["mlflow.note.content"]
    (picture,) = client.list_artifacts(run.info.run_id, "figures")
    assert picture.path == "figures/tau.png"


def test_an_agent_without_a_score_is_named_with_what_to_do(project, capsys):
    put("tiny-tau10", 30, 5)
    assert main(["results", "temperatures", "tiny"]) == 2
    assert "tiny-tau115 has no score yet: run `wm run tiny --temperatures`" in capsys.readouterr().err
    assert not Path("results").exists()


def test_a_model_in_which_nobody_dreams_has_no_sweep(project):
    with pytest.raises(UserError, match="model 'tiny-2' has 0 agents with `dream: true`"):
        sweep.agents(params.load(), "tiny-2")
    with pytest.raises(UserError, match="'tony' is not in `models`"):
        sweep.agents(params.load(), "tony")


def test_the_papers_scores_stand_beside_those_of_its_world_alone():
    rows = [sweep.Row(1.15, "x", (900.0, 1.0), (1000.0, 1.0), (990.0, 1010.0), 100)]
    assert "| 1.15 | 900 ± 1 | 1000 ± 1 | 990 to 1010 | x | 918 ± 546 | 1092 ± 556 |" in sweep.table(rows, "take_cover")
    assert "paper" not in sweep.table(rows, "car_racing")


RUN = """
import sys
from flows import claim, sweep
claim.watch_over()
sys.exit(sweep.run(["timeit", "-n1", "-r1", "print('sleeps', flush=True); __import__('time').sleep(60)"]))
"""


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_ends_with_its_sweep(project, death):
    command = [sys.executable, "-c", RUN]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              start_new_session=True)  # fmt: skip
    assert parent.stdout.readline() == b"sleeps\n"
    (child,) = (one for one in psutil.Process(parent.pid).children() if "timeit" in one.cmdline())
    os.killpg(parent.pid, death) if death == signal.SIGINT else parent.send_signal(death)  # as a terminal does
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()
    parent.wait(10)
    parent.stdout.close()
