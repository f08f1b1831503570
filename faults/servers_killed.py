"""A server is killed in the middle of a run: Dask's, Prefect's, MLflow's, PostgreSQL.

Four of the five are tests of `make test` already, which are run here as they are.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from faults import postgres
from faults.project import ROOT
from faults.row import Outcome, Row

TESTS = {
    "a worker of Dask": "test_scale_out.py -k same_bits_though_one_is_killed",
    "Dask's scheduler": "test_scale_out.py -k scheduler_that_dies",
    "Prefect's server": "test_server_loss.py -k prefect_killed",
    "MLflow's server": "test_server_loss.py -k mlflow_killed",
}
SAID = {
    "a worker of Dask": "nothing; its jobs are played by others",
    "Dask's scheduler": "error: the Dask scheduler is gone; the same command goes on",
    "Prefect's server": "error: Prefect's server went away during the run; the same command goes on from there",
    "MLflow's server": "warning: MLflow did not take this run's report; it is sent with the next run",
}
"""What the tests look for."""


def _test(each: str) -> Outcome:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *f"tests/{TESTS[each]}".split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout[-3000:] if done.returncode else done.stdout[-100:], flush=True)
    last = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))]
    return Outcome(lost=last[-1:] or ["the test failed"] if done.returncode else (), said=[SAID[each]])


def _postgres(folder: Path) -> Outcome:
    """Killed while workers run schedules, and started again."""
    lost = []
    with postgres.stack(folder) as it:
        it.servers()
        clones = postgres.team(it, folder / "team")
        scores = [clone.folder / "metrics/tiny.json" for clone in clones]
        postgres.until("a worker has run a schedule", lambda: any(score.exists() for score in scores), 900)
        before = postgres.seen(it)
        it.database.stop("immediate")  # as a kill: no checkpoint, recovery at the next start
        time.sleep(10)
        it.database.start()
        more = before["completed"] + 3
        postgres.until("three more runs are completed", lambda: postgres.seen(it)["completed"] >= more, 600)
        after = postgres.seen(it)
        lost += [f"{key}: {before[key]}, then {after[key]}" for key in before if not postgres.kept(key, before, after)]
    return Outcome(lost=lost, said=["nothing; schedules go on when it is back"])


def run(each: str, folder: Path) -> Outcome:
    if each == "PostgreSQL":
        return (
            Outcome(tries=0, said=[f"PostgreSQL not tried: {reason}"])
            if (reason := postgres.lacks())
            else _postgres(folder)
        )
    return _test(each)


ROW = Row(
    fault="a worker or the scheduler of Dask, Prefect's server, MLflow's server, PostgreSQL killed during a run",
    tries=(*TESTS, "PostgreSQL"),
    run=run,
    limit=1800,
)
