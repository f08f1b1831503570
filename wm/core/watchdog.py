"""Ends this process when another one, on whose behalf it works, is gone: even after `kill -9`.

The one to watch is named by a ticket in the environment, `WM_WATCH=<pid>:<start time>`; the start time keeps a
recycled pid from being taken for the same process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

VARIABLE = "WM_WATCH"
INTERVAL = 1.0
LEFT_BEHIND: list[threading.Thread] = []
"""Threads of somebody else's that do not end; Python would wait for them for ever."""
_PROCESSES = Path("/proc")


def ticket(pid: int | None = None) -> str:
    """`<pid>:<start time>` of a process; of this one where pid is None."""
    pid = pid or os.getpid()
    return f"{pid}:{started(pid)}"


def started(pid: int) -> str:
    """The process's start time, or an empty string if it is gone or a zombie.

    On Linux in clock ticks since boot: psutil adds the time of the boot, which moves when somebody sets the clock.
    """
    if not (_PROCESSES / "self" / "stat").exists():
        return _started_elsewhere(pid)
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def _started_elsewhere(pid: int) -> str:
    """The same where there is no /proc, such as on macOS."""
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else str(process.create_time())
    except psutil.Error:
        return ""


def alive(what: str) -> bool:
    """Whether the process of a ticket is still there."""
    pid, _, start = what.partition(":")
    return start != "" and started(int(pid)) == start


def start() -> None:
    """Starts watching the process that WM_WATCH names, if it is set and not this one; returns at once."""
    what = os.environ.get(VARIABLE)
    if what and what != ticket():
        threading.Thread(target=_watch, args=(what,), daemon=True, name="watchdog").start()


def leave(code: int) -> NoReturn:
    """Ends this process, past threads that are left behind."""
    if any(thread.is_alive() for thread in LEFT_BEHIND):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _watch(what: str) -> None:
    while alive(what):
        time.sleep(INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3 * INTERVAL)
    os._exit(143)
