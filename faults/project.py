"""Projects to make faults in: a clone with the tiny world and real stages, and one whose stages write a line."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.conftest import make_project  # noqa: E402
from tests.flow_project import Project, finish  # noqa: E402

__all__ = ["ROOT", "Project", "finish", "free_port", "hashes", "make_project", "wait_for"]


EXTRA: list[str] = []
"""Folders on PYTHONPATH of commands in a clone, before its own."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(address: str, seconds: float = 180) -> None:
    """Returns when a server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise AssertionError(f"{address} does not answer within {seconds:.0f} s") from None
            time.sleep(0.5)


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def clone(folder: Path) -> Path:
    """A clone of this repository as it is on disk, with the tiny world in place of all others, and no tracking."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    changed = subprocess.run(
        ["git", "ls-files", "-mo", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    for name in changed:  # what is not committed yet counts too
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    import tiny_world

    shutil.copy(tiny_world.__file__, folder)
    with (folder / "wm/worlds/__init__.py").open("a") as file:
        file.write('register("tiny", "tiny_world:Tiny")\n')
    (folder / "params.yaml").write_text(tiny_world.PARAMS)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "tiny")
    return folder


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True)


def environment(folder: Path) -> dict[str, str]:
    """For commands in a clone: its own code, nothing of this process's settings."""
    apart = ("DASK_", "MLFLOW_", "PREFECT_", "WM_", "DVC_", "GIT_")
    kept = {key: text for key, text in os.environ.items() if not key.startswith(apart)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    site = folder.with_name(f"{folder.name}.dvc")
    own = {
        "PYTHONPATH": os.pathsep.join([*EXTRA, str(folder)]),
        "PATH": path,
        "WM_TRACKING": "off",
        "WM_WORKERS": "1",
        "DVC_SITE_CACHE_DIR": str(site),
    }
    return kept | own | {"OMP_NUM_THREADS": "1"}


def wait_until_gone(folder: Path, seconds: float) -> str:
    """Waits until no process is left in a folder; the command line of one that is, else nothing."""
    deadline = time.monotonic() + seconds
    while left := in_folder(folder):
        if time.monotonic() > deadline:
            return left[0]
        time.sleep(0.2)
    return ""


def in_folder(folder: Path) -> list[str]:
    """Command lines of everything that runs in a folder or below it."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline", "status"]):
        cwd = process.info["cwd"] or ""
        if (cwd == str(folder) or cwd.startswith(f"{folder}/")) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(process.info["cmdline"] or []))
    return found
