"""The page about a run, a Prefect artifact: stages and score, pictures in place, and where MLflow has the rest."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from flows import graph
from wm.core import files
from wm.records import earlier, history, provenance, run_notes

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


def metrics(agent: str) -> dict[str, Any]:
    """The agent's score, as `evaluate` wrote it, with the names that `dvc metrics` has: {"score.mean": 812.3, …}."""
    return dict(history.flat(files.read_json(Path("metrics") / f"{agent}.json")))


def summary(agent: str, results: dict[str, dict], missing: list[str]) -> str:
    """A page about a run, in Markdown."""
    lines = [f"# {agent}", ""]
    score = {} if missing else metrics(agent)
    if headline := run_notes.score(score):
        lines += [f"**{headline}**, mean and standard deviation of the score", ""]
    lines += ["| stage | verdict | seconds | outputs (md5) |", "| --- | --- | ---: | --- |"]
    for address, result in results.items():
        hashes = "<br>".join(f"`{path}` {md5[:12]}" for path, md5 in result["outputs"].items())
        lines.append(f"| {address} | {result['verdict']} | {result['seconds']} | {hashes} |")
    lines += [f"| {address} | not done | | |" for address in missing]
    if not missing:
        lines += ["", "| metric | value |", "| --- | ---: |"]
        lines += [f"| {key} | {value} |" for key, value in score.items()]
        lines += [
            "",
            f"The score is in `metrics/{agent}.json`, pictures and videos in "
            f"`runs/{agent}/{graph.TARGET}`; `make ui` opens curves, models and videos in MLflow, and "
            f"`python -m wm report {agent}` makes one page of all of it.",
        ]
    return "\n".join(lines)
