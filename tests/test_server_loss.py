"""A server that is killed in the middle of a run: what was computed is whole, and MLflow hears all of it later."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.flow_project import ROOT, STAGES, Project
from wm.core.journal import Journal
from wm.records import spool, tracking


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(address: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, f"{address} does not answer"
            time.sleep(0.1)


def kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def servers():
    started: list[subprocess.Popen] = []

    def start(command: list[str], cwd: Path, **env: str) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **env}, start_new_session=True, **quiet)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            kill(process)


def test_mlflow_killed_during_a_stage_has_every_metric_once_after_the_next_run(tmp_path, servers, monkeypatch, capfd):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", f"from wm.records import tracking; tracking.ui({port})"]
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.delenv("WM_TRACKING", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "PATIENCE", 60.0)
    mlflow = servers(command, tmp_path, PYTHONPATH=f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    wait_for(f"{address}/health")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

    def stage(name: str):
        return tracking.stage_run(
            stage=name,
            name="a",
            world="w",
            experiment="e",
            config={},
            inputs=[],
            output=Path("runs", name),
            live=Path(".wm", f"{name}.jsonl"),
            root=tmp_path,
        )

    with stage("train_vae") as run:
        (tmp_path / "runs/train_vae").mkdir(parents=True)
        journal = Journal(tmp_path / "runs/train_vae/metrics.jsonl", tmp_path / ".wm/train_vae.jsonl")
        for step in range(5):
            journal.log(step, {"loss": float(step)})
        entry = spool.Entry(tmp_path / ".wm/spool" / run.key)
        deadline = time.monotonic() + 120
        while not entry.sent.get("position"):  # MLflow has the first half
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run_id = entry.sent["run_id"]
        kill(mlflow)
        for step in range(5, 10):
            journal.log(step, {"loss": float(step)})
    warning = capfd.readouterr().err
    assert f"MLflow at {address} did not take this run's report" in warning and "sent with the next run" in warning
    assert len((tmp_path / "runs/train_vae/metrics.jsonl").read_text().splitlines()) == 10  # the output is whole

    servers(command, tmp_path, PYTHONPATH=f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", MLFLOW_TRACKING_URI="")
    wait_for(f"{address}/health")
    with stage("encode"):
        (tmp_path / "runs/encode").mkdir()
        deadline = time.monotonic() + 120
        while entry.folder.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
    client = tracking.connect(tmp_path)
    found = client.get_run(run_id)
    losses = client.get_metric_history(run_id, "loss")
    assert [(metric.step, metric.value) for metric in losses] == [(step, float(step)) for step in range(10)]
    assert found.info.status == "FINISHED" and not list((tmp_path / ".wm/spool").glob("*/run.json"))


def test_prefect_killed_during_a_stage_is_one_sentence_and_no_stage_is_lost(tmp_path, servers):
    port = free_port()
    address = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
    server = servers(command, tmp_path, PREFECT_HOME=str(tmp_path / "prefect"), DO_NOT_TRACK="true")
    wait_for(f"{address}/health")
    project = Project(tmp_path / "project", PREFECT_API_URL=address, PREFECT_CLIENT_MAX_RETRIES="1")
    project.set("collect", seconds=5)
    run = project.start("flows.pipeline", "tiny")
    output = ""
    for line in run.stdout:
        output += line
        if "Task run 'collect@tiny' - working" in line:
            kill(server)
            break
    rest, _ = run.communicate(timeout=300)
    assert run.returncode == 1
    sentence = f"error: Prefect's server at {address} went away during the run"
    assert sentence in rest and "the same command goes on from there" in rest
    assert "did not take the page" in rest
    code, output = project.run("dvc", "status", "evaluate@tiny")
    assert code == 0 and "up to date" in output  # the stages after it went on
    for stage in STAGES:
        assert json.loads((project.folder / f"runs/tiny/{stage}/out.json").read_text()) == [stage, "tiny", 1, 1]
    assert not project.processes()
