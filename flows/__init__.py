"""Orchestration: the only place that imports Prefect or calls DVC. It wires, it does not compute."""

import os
from pathlib import Path

SCRATCH = Path(".wm")
"""What a run leaves on this machine only: logs, locks, checkpoints, Prefect's local database."""

# Before Prefect or DVC is imported anywhere: nobody is told what runs here.
os.environ.setdefault("PREFECT_HOME", str((SCRATCH / "prefect").absolute()))
# Where a script calls the flow, Prefect starts a server itself, and gives it 20 seconds to make its database.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "true")
