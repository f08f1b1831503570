"""Too little memory for a stage: a limit on its address space, or the kernel's SIGKILL when it has much."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from pathlib import Path

import psutil

from faults import forks
from faults.row import Outcome, Row
from wm.stages import STAGES

MIBIBYTES = (0, 1, 4, 16, 64, 256)
"""Of address space beyond what the process has before the stage."""
SEED = 28


def _limit(more: int) -> None:
    now = psutil.Process().memory_info().vms + more * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (now, now))


def _killed_after(seconds: float) -> None:
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def run(stage: str, folder: Path) -> Outcome:
    base, lost, said = forks.project(folder / "base", stage), [], []
    whole, rng = forks.expected(base, stage), random.Random(f"{SEED} {stage}")
    kinds = [(f"{more} MiB more", lambda more=more: _limit(more)) for more in MIBIBYTES]
    moments = [round(rng.uniform(0.02, 0.8), 3) for _ in range(3)]
    kinds += [(f"killed after {moment} s", lambda moment=moment: _killed_after(moment)) for moment in moments]
    for kind, before in kinds:
        log = folder / "log"
        with forks.copy(base, folder / "work"):
            code = forks.fork(lambda before=before: forks.run(stage, before), log)
            if code == -9 and not kind.startswith("killed"):
                lost.append(f"{stage}, {kind}: killed")
            if code not in (0, -9):
                said.append(forks.last(log)[:120])
                if not forks.is_sentence(log):
                    lost.append(f"{stage}, {kind}: exit {code}: {forks.last(log)}")
            log.unlink(missing_ok=True)
            if code := forks.fork(lambda: forks.run(stage), log):
                lost.append(f"{stage}, {kind}: with more memory it ends with {code}: {forks.last(log)}")
            elif forks.made(stage) != whole:
                lost.append(f"{stage}, {kind}: other bits")
            log.unlink(missing_ok=True)
    return Outcome(tries=len(kinds), lost=lost, said=said, seeds=(SEED,))


def unguarded() -> None:
    """Nothing knows how a lack of memory looks."""
    from wm import failures

    failures._of_memory = lambda _: None


ROW = Row(
    fault="out of memory: a limit on the address space, six a stage; killed by the kernel, three moments a stage",
    tries=tuple(STAGES),
    run=run,
    limit=600,
    unguarded=unguarded,
)
