"""The process beside a run, which `wm.records.tracking` starts: it sends what the run has to tell until that has ended.

A pipeline's one also sends what its stages have to tell, which so need not wait for MLflow.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from wm.core.errors import without_password
from wm.records import measured, spool, tracking
from wm.records.sender import Sender
from wm.records.spool import Entry

EVERY = 10.0
"""Seconds between two looks at the journal."""


def main(folder: Path, parent: int) -> None:
    """Sends the entry in `folder` until the run has ended; goes at once when its parent has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends this process
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    entry, delivery = Entry(folder), None
    trouble, backlog, is_pipeline = folder / "trouble.txt", True, entry.run["kind"] == "pipeline"
    while True:
        end = entry.end
        try:
            delivery = delivery or Delivery(tracking.connect(entry.root), tracking.uri(entry.root))
            delivery.begin(entry)
            trouble.unlink(missing_ok=True)
            if is_pipeline and (failed := delivery.stages(entry)) and not end:
                raise failed
            if end:
                return delivery.finish(entry, end)
            if not is_pipeline:
                delivery.watch_machine(entry)
            if backlog:
                backlog = _send_left_behind(entry, delivery)
        except Exception as error:  # MLflow's are of many kinds; the run must not hear of any
            print(f"{time.strftime('%H:%M:%S')} {error!r}", flush=True)
            trouble.write_text(without_password(" ".join(str(error).split()))[:160] or type(error).__name__)
            if end:
                raise SystemExit(1) from None
        wait = time.monotonic() + EVERY
        while time.monotonic() < wait and not (folder / "end.json").exists():
            if is_pipeline and not trouble.exists() and _has_ended(entry):
                break
            time.sleep(0.1)


class Delivery:
    """Entries and the MLflow that they go to.

    Args:
        uri: where MLflow is.
    """

    def __init__(self, client: Any, uri: str):
        self.client, self.uri = client, uri
        self.machines: dict[Path, Any] = {}

    def begin(self, entry: Entry) -> None:
        """Sends what an entry has to tell so far."""
        sender = Sender(entry, self.client)
        sender.begin()
        sender.pump()

    def watch_machine(self, entry: Entry) -> None:
        """Sends the machine's figures from now on, as those of a run that goes on."""
        if entry.folder not in self.machines:
            self.machines[entry.folder] = measured.machine(Sender(entry, self.client).run_id, self.uri)

    def finish(self, entry: Entry, end: dict[str, Any]) -> None:
        """Sends the rest of an ended run."""
        if machine := self.machines.pop(entry.folder, None):
            machine.finish()
        Sender(entry, self.client).finish(end)

    def stages(self, pipeline: Entry) -> Exception | None:
        """Sends what a pipeline's stages have to tell; returns what went wrong with one of them, if anything did."""
        failed = None
        for entry in spool.children(pipeline):
            try:
                if end := entry.end:
                    with suppress(Timeout), entry.lock.acquire(timeout=0):  # held: its stage still writes to it
                        self.begin(entry)
                        self.finish(entry, end)
                elif entry.held:
                    self.begin(entry)
                    self.watch_machine(entry)
            except Exception as error:  # it stays for later; the others go on
                print(f"{entry.folder.name} could not be sent: {error!r}", flush=True)
                failed = error
        return failed


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(3)


def _has_ended(pipeline: Entry) -> bool:
    """Whether a stage of a pipeline waits to be sent."""
    return any((entry.folder / "end.json").exists() and not entry.held for entry in spool.children(pipeline))


def _send_left_behind(own: Entry, delivery: Delivery) -> bool:
    """Sends entries that earlier runs could not; whether there may be more (this run's end comes first)."""
    for entry in spool.left_behind(own.root):
        if (own.folder / "end.json").exists():
            return True
        if end := entry.end:
            try:
                delivery.begin(entry)
                delivery.finish(entry, end)
            except Exception as error:  # it stays for the next run; this run's own report goes on
                print(f"{entry.folder.name} could not be sent: {error!r}", flush=True)
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
