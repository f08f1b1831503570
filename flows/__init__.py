"""Orchestration: the only place that imports Prefect or calls DVC. It wires, it does not compute."""

import os
from pathlib import Path

from wm import surroundings
from wm.records import store

SCRATCH = Path(".wm")
"""What a run leaves on this machine only: logs, locks, checkpoints, Prefect's local database."""


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it is gone: every command says so
        return Path()


DEFAULTS = {
    "PREFECT_HOME": str(store.plain(_here()) / SCRATCH / "prefect"),
    # Where a script calls the flow, Prefect starts a server itself, and gives it 20 seconds to make its database.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "true",
}
os.environ.update({**DEFAULTS, **os.environ})  # before Prefect or DVC is imported anywhere


def prepare() -> None:
    """Makes the surroundings of a command plain; every command calls it first, before anything imports Prefect."""
    for name, value in DEFAULTS.items():
        if os.environ.get(name) == value:  # ours, which is not to be named among settings that are taken away
            del os.environ[name]
    surroundings.prepare("DASK_", "MLFLOW_", "PREFECT_")
    os.environ.update({**DEFAULTS, **os.environ})
