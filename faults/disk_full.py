"""The disk fills up under a stage (a small tmpfs): a sentence; with more room the same bits come out."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from faults import forks
from faults.row import Outcome, Row
from wm.core import files
from wm.stages import STAGES

PARTS = (0.1, 0.35, 0.6, 0.85, 0.97)
"""Of the room that an undisturbed run takes beyond what is there before it."""


def _mount(place: Path, size: int, again: bool = False) -> None:
    options = f"{'remount,' if again else ''}size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, capture_output=True)


def lacks() -> str:
    with tempfile.TemporaryDirectory() as place:
        try:
            _mount(Path(place), 2**20)
        except (OSError, subprocess.CalledProcessError):
            return "no file system may be mounted here: it needs root, and a container that may mount"
        subprocess.run(["umount", place], check=True)
    return ""


def _room(folder: Path) -> int:
    """Bytes that a folder takes on a tmpfs: whole pages, and a page a folder."""
    return sum(4096 * (1 + path.stat().st_size // 4096) for path in folder.rglob("*"))


def run(stage: str, folder: Path) -> Outcome:
    base, lost, said = forks.project(folder / "base", stage), [], []
    whole = forks.expected(base, stage)
    before, needs = _room(base), 0
    with forks.copy(base, folder / "measured") as measured:
        assert forks.fork(lambda: forks.run(stage)) == 0
        needs = max(_room(measured) - before, 16 * 4096)
    place = folder / "small"
    for part in PARTS:
        place.mkdir()
        size = (before + int(part * needs)) // 4096 * 4096 + 8192
        _mount(place, size)
        log = folder / "log"
        try:
            shutil.copytree(base, place / "project")
            os.chdir(place / "project")
            code = forks.fork(lambda: forks.run(stage), log)
            what = f"{stage}, {size >> 10} KiB of {(before + needs) >> 10}"
            if code and not forks.is_sentence(log):
                lost.append(f"{what}: exit {code}: {forks.last(log)}")
            if code:
                said.append(forks.last(log).partition("(")[0].strip())
            _mount(place, 2**28, again=True)
            log.unlink(missing_ok=True)
            if code := forks.fork(lambda: forks.run(stage), log):
                lost.append(f"{what}: with more room it ends with {code}: {forks.last(log)}")
            elif forks.made(stage) != whole:
                lost.append(f"{what}: other bits")
        finally:
            os.chdir(folder)
            subprocess.run(["umount", "-l", str(place)], check=True)
            place.rmdir()
            log.unlink(missing_ok=True)
    return Outcome(tries=len(PARTS), lost=lost, said=said)


def unguarded() -> None:
    """What is written is taken for written."""

    def write_bytes(path: Path, data: bytes) -> str:
        try:
            Path(path).write_bytes(data)
        except OSError:
            pass
        return files.hashlib.sha256(data).hexdigest()

    files.write_bytes = write_bytes


ROW = Row(
    fault="the disk is full: a tmpfs with too little room for a stage, five sizes a stage",
    tries=tuple(STAGES),
    run=run,
    limit=600,
    lacks=lacks,
    unguarded=unguarded,
)
