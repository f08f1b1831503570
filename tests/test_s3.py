"""What docs/teams.md says: DVC's data and MLflow's artifacts in a bucket. moto's server is the S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow_project import ROOT, Project
from tests.test_server_loss import free_port, kill, wait_for
from wm.core import files
from wm.records import tracking

WHY = "needs S3: pip install -c constraints.txt -e '.[s3,s3test]'"
pytest.importorskip("dvc_s3", reason=WHY)
pytest.importorskip("moto.server", reason=WHY)
boto3 = pytest.importorskip("boto3", reason=WHY)


def start(command: list[str], address: str, folder: Path, **env: str) -> subprocess.Popen:
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **env}, stdout=log, stderr=log, start_new_session=True
        )
    wait_for(address)
    return process


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """An S3 with an empty bucket, as environment variables and a client."""
    port, folder = free_port(), tmp_path_factory.mktemp("s3")
    address = f"http://127.0.0.1:{port}"
    process = start([sys.executable, "-m", "moto.server", "-p", str(port)], f"{address}/moto-api/", folder)
    env = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "MLFLOW_S3_ENDPOINT_URL": address,
    }
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="bucket")
    yield env, client
    kill(process)


def keys(client, prefix: str) -> list[str]:
    return [one["Key"] for one in client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])]


def test_another_checkout_has_the_data_without_computing(s3, tmp_path):
    env, client = s3
    project = Project(tmp_path / "project", **env)
    address = env["AWS_ENDPOINT_URL"]
    assert project.run("dvc", "remote", "add", "--default", "storage", "s3://bucket/data")[0] == 0
    assert project.run("dvc", "remote", "modify", "storage", "endpointurl", address)[0] == 0
    assert project.run("dvc", "repro", "train_vae@tiny")[0] == 0
    code, output = project.run("dvc", "push", "--run-cache", "train_vae@tiny")
    assert code == 0 and keys(client, "data/"), output
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "made")

    other = project.clone(tmp_path / "other")
    code, output = other.run("dvc", "pull", "train_vae@tiny")
    assert code == 0, output
    made = json.loads((other.folder / "runs/tiny/train_vae/out.json").read_text())
    assert made == ["train_vae", "tiny", 1, 1]
    code, output = other.run("dvc", "status", "train_vae@tiny")
    assert code == 0 and "up to date" in output


def test_what_a_run_leaves_in_mlflow_lies_in_the_bucket_and_runs_need_no_key(s3, tmp_path, monkeypatch):
    env, client = s3
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()
    address = f"http://127.0.0.1:{port}"
    words = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "s3://bucket/mlflow"]
    command = [sys.executable, "-m", "mlflow", "server", *words, "--port", str(port), "--workers", "1"]
    server = start(command, f"{address}/health", folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **env)
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.delenv("WM_TRACKING", raising=False)
        monkeypatch.setattr(tracking, "PATIENCE", 120.0)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        about = {"stage": "encode", "name": "a", "world": "w", "experiment": "e", "config": {}, "inputs": []}
        with tracking.stage_run(**about, output=Path("runs/a/encode"), root=tmp_path):
            (tmp_path / "runs/a/encode").mkdir(parents=True)
            files.write_json(tmp_path / "runs/a/encode/summary.json", {"steps": 3})
        (key,) = keys(client, "mlflow/")
        assert key.endswith("/artifacts/summary.json")
        assert json.loads(client.get_object(Bucket="bucket", Key=key)["Body"].read()) == {"steps": 3}
    finally:
        kill(server)
