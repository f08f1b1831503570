"""Leaves nothing behind: ends every process of a run when the flow is gone, `kill -9` included.

Every process that a run starts inherits WM_WATCH=<ticket> in its environment, so all of them can be found
whoever their parent is by then: DVC, the stage, its workers, Prefect's temporary server. (Jenkins finds the
processes of a build in the same way.) The guard reads from a pipe whose other end only the flow holds: the end of
the file is the flow's end, with no delay and no recycled pid to be mistaken about.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Container

import psutil

from flows import SCRATCH
from wm.core import watchdog

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a run in order."""
PATIENCE = 5.0
"""Seconds between asking (SIGTERM) and killing (SIGKILL)."""


def start(ticket: str) -> subprocess.Popen:
    """Starts a guard over this process; it holds for as long as this process lives."""
    env = {key: value for key, value in os.environ.items() if key != watchdog.VARIABLE}  # it must not find itself
    return subprocess.Popen(
        [sys.executable, "-m", "flows.guard", ticket], stdin=subprocess.PIPE, env=env, start_new_session=True
    )  # Ctrl-C is not for the guard


def sweep(*tickets: str, patience: float = PATIENCE, variable: str = watchdog.VARIABLE) -> int:
    """Ends all processes with one of these tickets and waits until they are gone; returns how many there were."""
    found: set[int] = set()
    deadline = time.monotonic() + patience
    while processes := _with_ticket(tickets, variable):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if time.monotonic() > deadline:
                    process.kill()
                elif process.pid not in found:
                    process.terminate()
            found.add(process.pid)
        time.sleep(0.1)
    return len(found)


def _with_ticket(tickets: Container[str], variable: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["environ", "status"])
        if (process.info["environ"] or {}).get(variable) in tickets
        and process.info["status"] != psutil.STATUS_ZOMBIE
        and process.pid != os.getpid()
    ]


def listen() -> None:
    """Lets Ctrl-C, SIGTERM and a terminal that is closed end the run."""
    for number in ENDS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` leaves it
            signal.signal(number, stop)


def stop(number: int, *_: object) -> None:
    """One of these signals: ends what the run started, says so in one sentence, and leaves."""
    for each in ENDS:
        signal.signal(each, lambda *_: None)  # not SIG_IGN, which a child would inherit
    try:
        _end_run()
    finally:  # whatever went wrong: the signal may have come in the middle of an import, or of a line being printed
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, b"\nStopped; the same command goes on from the last checkpoint.\n")
        os._exit(128 + number)  # not SystemExit: Prefect would report a crash to a server that is gone


def _end_run() -> None:
    logging.disable()  # what is ended now will be reported as failed
    with contextlib.suppress(Exception):  # in the middle of an import of Prefect, there is nothing to tell
        if os.environ.get("PREFECT_API_URL") and "prefect" in sys.modules:
            from prefect.runtime import flow_run

            # A server that outlives us should know; a moment is enough, and no answer is no reason to stay.
            thread = threading.Thread(target=_cancelled, args=(flow_run.id,), daemon=True)
            thread.start()
            thread.join(timeout=3)
    if os.environ.get(watchdog.VARIABLE) == watchdog.ticket():
        sweep(watchdog.ticket())


def _cancelled(run_id: str | None) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    if run_id:
        # The server may have got the same signal, and a thread's error is printed with all its lines.
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            client.set_flow_run_state(run_id, Cancelled(message="Stopped by a signal"), force=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    if count := sweep(sys.argv[1]):
        SCRATCH.mkdir(exist_ok=True)
        with open(SCRATCH / "guard.log", "a") as file:
            print(f"{time.strftime('%F %T')} ended {count} processes of the run {sys.argv[1]}", file=file)
