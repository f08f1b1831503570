"""Which agents the gate has still to decide on: `.wm/gate/NAME/due.json` holds an agent's outputs of before."""

from __future__ import annotations

from pathlib import Path

from flows import SCRATCH
from wm.records import tracking


def path(agent: str) -> Path:
    """Its file; there from the moment that a run may change the agent until MLflow has heard the decision."""
    return SCRATCH / "gate" / agent / "due.json"


def idle(agent: str) -> str | None:
    """Why there is nothing to decide; None where there may be something."""
    if tracking.off():
        return "nothing is tracked (WM_TRACKING=off)"
    return None if path(agent).exists() else "nothing new was evaluated"
