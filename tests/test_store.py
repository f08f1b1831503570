"""MLflow's database and files are found wherever the project is, and whatever its path looks like."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from wm.core.errors import UserError
from wm.records import store, tracking

WRITE = """
import sys
from pathlib import Path
from wm.records import store, tracking
client = tracking.connect(Path.cwd())
experiment = client.get_experiment_by_name("e")
if experiment is None:
    location = (store.files(Path.cwd()) / "e").as_uri()
    experiment = client.get_experiment(client.create_experiment("e", artifact_location=location))
run = client.create_run(experiment.experiment_id)
client.log_artifact(run.info.run_id, "note.txt")
client.create_registered_model("m") if not client.search_registered_models() else None
client.create_model_version("m", run.info.artifact_uri, run.info.run_id)
"""
READ = """
from pathlib import Path
from wm.records import tracking
client = tracking.connect(Path.cwd())
runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
for run in runs:
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    folder = client.download_artifacts(run.info.run_id, "note.txt")
    print(Path(folder).read_text())
print({Path(version.source.removeprefix("file://")).parts[-4] for version in client.search_model_versions()})
"""


KILLED = """
import threading, time, os
from pathlib import Path
from wm.records import tracking

def size(name):
    return os.path.getsize(name) if os.path.exists(name) else 0

def kill():
    while max(size("mlflow.db"), size("mlflow.db.new")) < 150_000:
        time.sleep(0.001)
    os._exit(0)

threading.Thread(target=kill).start()
tracking.connect(Path.cwd())
"""


def run(folder: Path, script: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_TRACKING", "WM_"))}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path) -> Path:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "note.txt").write_text("hello")
    return folder


def test_a_project_that_was_moved_or_copied_keeps_its_files_where_it_is(project, tmp_path):
    run(project, WRITE)
    copy = shutil.copytree(project, tmp_path / "copy")
    project.rename(tmp_path / "second")
    for folder in (tmp_path / "second", copy):
        run(folder, WRITE)
        assert run(folder, READ).split()[:2] == ["hello", "hello"]
        assert len(list((folder / "mlartifacts").rglob("note.txt"))) == 2
    assert not project.exists()


def test_a_kill_while_the_database_is_made_leaves_none(project):
    run(project, KILLED)
    assert list(project.glob("mlflow.db.new*")) and not (project / "mlflow.db").exists()
    run(project, WRITE)
    assert run(project, READ).split()[0] == "hello"
    assert [path.name for path in project.glob("mlflow.db*")] == ["mlflow.db"]


def test_a_database_that_is_none_stops_only_who_asks_it(project, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (project / "mlflow.db").write_text("no database")
    assert tracking.uri(project) == f"sqlite:///{project / 'mlflow.db'}", "the address is known to who computes"
    with pytest.raises(sqlite3.DatabaseError):
        tracking.connect(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking.connect(project), "of a server it is no matter"


@pytest.mark.parametrize("name", ["what? is it", "50%20 off", "a#b", "grüße & more"])
def test_a_path_may_have_any_sign(project, tmp_path, name):
    folder = tmp_path / name / "project"
    shutil.copytree(project, folder)
    run(folder, WRITE)
    assert run(folder, READ).split()[0] == "hello"
    assert (folder / "mlflow.db").exists() and list((folder / "mlartifacts").rglob("note.txt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["first", name])
    assert sorted(path.name for path in folder.iterdir()) == [".wm", "dvc.yaml", "mlartifacts", "mlflow.db", "note.txt"]


def test_a_checkout_in_a_projects_scratch_tells_the_project(project, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for scratch in (".wm/run/tiny-seed1", ".dvc/tmp/exps/tmp123"):
        inner = project / scratch
        inner.mkdir(parents=True)
        (inner / "dvc.yaml").write_text("stages: {}\n")
        assert store.home(inner) == project and tracking.uri(inner) == f"sqlite:///{project / 'mlflow.db'}"
    assert store.home(project) == project
    other = project / "other"
    other.mkdir()
    (other / "dvc.yaml").write_text("stages: {}\n")
    assert store.home(other) == other


def test_a_link_in_somebody_elses_hands_is_not_used(tmp_path, monkeypatch):
    (tmp_path / f"world-models-{os.getuid()}").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UserError, match="rename the folder, or set TMPDIR"):
        store.plain(Path("/a?b"))
