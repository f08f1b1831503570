"""One at a time in a folder, pipelines and stages of a worker alike: the second waits, and says for whom."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import BaseFileLock, Timeout

from flows import SCRATCH, guard
from wm.core import locks, watchdog

RWLOCK = Path(".dvc/tmp/rwlock")

_held: BaseFileLock | None = None
_guard: subprocess.Popen | None = None


@contextlib.contextmanager
def workspace(name: str, kind: str = "pipeline") -> Iterator[None]:
    """Holds the current folder for a run; inside a run that already does, it does nothing.

    What an earlier run left behind when it was killed is ended first, and every process that is started inside
    ends with this process (see flows/guard.py).

    Args:
        name: of the run, for those who wait.
        kind: runs of another kind do not wait: a pipeline waits for its stages on workers, which may be here.
    """
    global _held
    if _held:
        yield
        return
    SCRATCH.mkdir(exist_ok=True)
    turn, note = locks.lock((SCRATCH / f"{kind}.lock").absolute(), thread_local=False), _note(kind)
    _wait(turn, kind)
    try:
        _held = turn
        _clear_up(kind)
        about = {"name": name, "pid": os.getpid(), "ticket": watch_over(), "since": time.strftime("%F %T")}
        note.write_text(json.dumps(about))
        yield
    finally:
        note.unlink(missing_ok=True)
        _held = None
        turn.release()


def _note(kind: str) -> Path:
    """Who holds the folder."""
    return (SCRATCH / f"{kind}.json").absolute()


def _wait(lock: BaseFileLock, kind: str) -> None:
    told = None
    while True:
        try:
            lock.acquire(timeout=0 if told is None else 1)
            return
        except Timeout:
            holder = _holder(kind)
            if holder and holder != told:
                print(
                    f"Waiting for the {kind} {holder['name']} (process {holder['pid']}, "
                    f"since {holder['since']}), which runs in this folder.",
                    flush=True,
                )
            told = holder or {}


def _holder(kind: str) -> dict | None:
    try:
        return json.loads(_note(kind).read_text())
    except (OSError, ValueError):  # none, or it is being written
        return None


def watch_over() -> str:
    """Every process that is started from now on ends with this one (see flows/guard.py); returns this one's ticket."""
    global _guard
    ticket = watchdog.ticket()
    os.environ[watchdog.VARIABLE] = ticket
    _guard = _guard or guard.start(ticket)
    return ticket


def _clear_up(kind: str) -> None:
    """After a kill: ends what is left of the last run, and removes DVC's read-write lock if its writers are dead.

    DVC drops the entries of dead processes itself, but not those whose pid belongs to somebody else by now, and
    a file that was cut off while it was written stops every later command.
    """
    if last := _holder(kind):
        guard.sweep(last["ticket"])
    if not RWLOCK.exists():
        return
    try:
        entries = json.loads(RWLOCK.read_text())
        readers = (info for infos in entries.get("read", {}).values() for info in infos)
        infos = [*entries.get("write", {}).values(), *readers]
    except ValueError:
        infos = []
    if not any(_is_dvc(info["pid"]) for info in infos):
        RWLOCK.unlink(missing_ok=True)


def _is_dvc(pid: int) -> bool:
    try:
        return any("dvc" in Path(word).name or "flows" in word for word in psutil.Process(pid).cmdline()[:4])
    except psutil.Error:
        return False
