"""What tests share: a project folder with a tiny world, in which stages run for real."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from wm.stages import STAGES

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ["WM_PLAIN"] = "1"  # what a library puts into this process is no person's setting, of which a note would tell
os.environ.setdefault("WM_WORKERS", "1")  # what is so small is played faster without processes of its own
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background job's; tests start what should hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

STAGES = tuple(STAGES)
ZERO = ("collect", "train_vae", "train_mdn", "evolve")
"""What runs/zero holds: the stages that go on from an earlier round."""

LONG = (
    "flow",
    "stages",
    "workers",
    "variants",
    "server_loss",
    "scale_out",
    "up",
    "tracking",
    "improve",
    "gate",
    "serving",
)
"""Files whose tests start servers and wait for them, the longest first, so that none is left over at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))  # stable


def make_project(folder: Path) -> Path:
    """A folder with params.yaml of the tiny world and runs/zero, as a clone has them."""
    import tiny_world

    for stage in ZERO:
        (folder / "runs" / "zero" / stage).mkdir(parents=True)
        (folder / "runs" / "zero" / stage / "empty.json").write_text("{}\n")
    (folder / "params.yaml").write_text(tiny_world.PARAMS)
    shutil.copy(tiny_world.__file__, folder)
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The current folder is a new project; nothing is tracked."""
    monkeypatch.setenv("WM_TRACKING", "off")
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A project of the flow tests in which DVC has made everything; to be copied."""
    from tests.flow_project import Project

    project = Project(tmp_path_factory.mktemp("made") / "project")
    code, output = project.run("dvc", "repro", "evaluate@tiny")
    assert code == 0, output
    return project


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A Prefect server, so that most tests need not start one each; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/api"
    for _ in range(3000):
        time.sleep(0.1)
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None
    yield address
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
