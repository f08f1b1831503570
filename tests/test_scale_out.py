"""collect, evolve and evaluate on a Dask cluster that exists: other processes, named by an address alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_world
from conftest import make_project

from wm.play import rollout

ROOT = Path(__file__).parent.parent
PROGRAM = Path(tiny_world.__file__)
ENV = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}{os.pathsep}{PROGRAM.parent}",
    "WM_TRACKING": "off",
    "OMP_NUM_THREADS": "1",
}
GENERATIONS = 60
ALL = "collect tiny -- train_vae tiny -- encode tiny -- train_mdn tiny -- evolve tiny -- evaluate tiny".split()


class Dask:
    """A scheduler and two workers, each a process of its own, as `dask scheduler` and `dask worker` start them."""

    def __init__(self, folder: Path):
        self.file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.workers = [  # one of them with threads that would share its environments
            self._start("worker", "--nthreads", threads, "--no-nanny", "--no-dashboard", "--preload", "tiny_world")
            for threads in ("1", "3")
        ]
        deadline = time.monotonic() + 120
        while not self.file.exists():
            assert time.monotonic() < deadline and self.scheduler.poll() is None
            time.sleep(0.1)
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, what: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "distributed.cli.dask_" + what, "--scheduler-file", str(self.file), *options]
        return subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, function, workers: int) -> dict:
        """function() in every worker, once there are so many."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=120)
            return client.run(function)

    def close(self) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()


@pytest.fixture
def dask(tmp_path):
    made = Dask(tmp_path)
    yield made
    made.close()


def start(folder: Path, *words: str, stderr: int | None = None, **env: str) -> subprocess.Popen:
    """`python -m wm` with the tiny world; several commands are separated by `--`."""
    return subprocess.Popen([sys.executable, str(PROGRAM), *words], cwd=folder, env=ENV | env, stderr=stderr, text=True)


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for top in ("runs/tiny", "metrics", "plots")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file()
    }


def environments() -> int:
    """How many environments a worker has played in."""
    return sum(len(made) for made in rollout._ENVIRONMENTS.values())


def project(folder: Path) -> Path:
    """A project of the tiny world with a longer search."""
    params = make_project(folder) / "params.yaml"
    params.write_text(params.read_text().replace("generations: 5", f"generations: {GENERATIONS}"))
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A project in which all stages have run, without a scheduler of anybody's."""
    folder = project(tmp_path_factory.mktemp("here"))
    assert start(folder, *ALL).wait(timeout=300) == 0
    return folder


def test_a_cluster_of_other_processes_gives_the_same_bits_though_one_is_killed_in_evolve(tmp_path, dask, here):
    project(tmp_path / "there")
    expected = outputs(here)
    for stage in ("train_vae", "train_mdn"):
        assert expected.pop(f"plots/tiny/{stage}.tsv"), "written where the stage runs"

    for stage in ("train_vae", "encode", "train_mdn"):  # they play no episodes
        shutil.copytree(here / "runs/tiny" / stage, tmp_path / "there/runs/tiny" / stage)
    assert list(dask.ask(environments, workers=2).values()) == [0, 0]
    assert start(tmp_path / "there", "collect", "tiny", WM_DASK=dask.address).wait(timeout=300) == 0
    assert min(dask.ask(environments, workers=2).values()) > 0, "a worker was left out"
    stage = start(tmp_path / "there", "evolve", "tiny", WM_DASK=dask.address)
    while not list((tmp_path / "there/.wm").glob("work/evolve-tiny-*/checkpoints/latest")):
        assert stage.poll() is None
        time.sleep(0.01)
    dask.workers[0].kill()
    assert not (tmp_path / "there/runs/tiny/evolve").exists(), "too late: evolve had ended"
    assert stage.wait(timeout=300) == 0
    assert start(tmp_path / "there", "evaluate", "tiny", WM_DASK=dask.address).wait(timeout=300) == 0
    assert outputs(tmp_path / "there") == expected
    assert len(dask.ask(environments, workers=1)) == 1


def test_a_scheduler_that_dies_is_a_sentence_and_its_stage_goes_on_without_it(tmp_path, dask, here):
    folder = project(tmp_path / "project")
    for made in ("collect", "train_vae", "encode", "train_mdn"):
        shutil.copytree(here / "runs/tiny" / made, folder / "runs/tiny" / made)
    stage = start(folder, "evolve", "tiny", WM_DASK=dask.address, stderr=subprocess.PIPE)
    while not list((folder / ".wm").glob("work/evolve-tiny-*/checkpoints/latest")):
        assert stage.poll() is None
        time.sleep(0.01)
    dask.scheduler.kill()
    _, said = stage.communicate(timeout=300)
    assert stage.returncode == 2 and f"the Dask scheduler at {dask.address} is gone" in said
    assert start(folder, "evolve", "tiny").wait(timeout=300) == 0
    assert len((folder / "runs/tiny/evolve/metrics.jsonl").read_text().splitlines()) == GENERATIONS
