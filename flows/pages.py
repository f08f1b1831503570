"""What the Prefect artifact of a run shows beside its table: pictures in place, and where MLflow has the rest."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from wm.records import earlier, provenance, run_notes

LARGEST = 200_000
"""Bytes of a picture that goes into an artifact, which lives in Prefect's database."""


def pictures(outputs: list[str]) -> str:
    """Markdown with the pictures in `outputs`, folders that stages wrote: the score's, evolution's, the dream's."""
    shown = []
    for name in ("scores", "curves", "dream_strip"):
        for path in (Path(folder, "figures", f"{name}.png") for folder in reversed(outputs)):
            stage = path.parent.parent.name
            if path.is_file() and path.stat().st_size <= LARGEST and (name != "curves" or stage == "evolve"):
                data = base64.b64encode(path.read_bytes()).decode()
                alt = run_notes.PICTURES[f"figures/{name}.png"]
                shown.append(f"![{alt}](data:image/png;base64,{data})")
                break
    return "\n\n".join(["", *shown])


def links(outputs: list[str]) -> str:
    """Markdown with the address of the MLflow page of each stage's run; empty where MLflow is no server."""
    if not os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
        return ""
    found = []
    for folder in map(Path, outputs):
        run = earlier.run_of(provenance.digest(folder)) if folder.is_dir() else None
        if run:
            found.append(f"[{run['stage']}@{run['name']}]({run['url']})")
    return "MLflow: " + " · ".join(found) if found else ""
