"""The gate in the flow: after `evaluate`, `python -m wm agent gate` decides whether the new agent becomes champion.

An agent is due for it (`flows.due`) from the moment that a run may change it until MLflow has heard the decision, so
that neither a kill nor a dead server lets one slip.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed, State

from flows import due, graph
from flows.repro import environment, pull
from wm.records import run_notes, tracking

STAGES = ("evolve", "evaluate")
"""Whose outputs make an agent a new one."""


def expect(agent: str) -> None:
    """Notes what the agent is now, before a run that may change it."""
    path = due.path(agent)
    if not tracking.off() and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_outputs(agent)))


def decide(agent: str, fetch: bool = False) -> State[str]:
    """Lets the gate decide on an agent whose stages are all done, if there is anything to decide.

    The state's name is the outcome: Promoted, Kept, Skipped, or Undecided where MLflow could not be asked or the agent
    not be fetched, which is no failure: the next run asks again. Its data are one line about it.

    Args:
        fetch: a worker made the agent, so that it is in the DVC remote, and here none or an older one.
    """
    path = due.path(agent)
    if why := due.idle(agent):
        return _said("Skipped", why)
    if json.loads(path.read_text()) == _outputs(agent):
        path.unlink()
        return _said("Skipped", "nothing new was evaluated")
    return _gate.with_options(task_run_name=f"gate@{agent}")(agent, fetch, return_state=True)


def left_out() -> State[str]:
    """What `decide` says of a run that is no candidate for champion."""
    return _said("Skipped", "a run on a branch of its own, which nobody asked to make champion (--gate)")


@task(name="gate", persist_result=False, cache_policy=NO_CACHE)
def _gate(agent: str, fetch: bool) -> State[str]:
    log, path, last = get_run_logger(), due.path(agent), ""
    if fetch:
        made = f"evolve@{agent}"
        pulled = pull(f"gate@{agent}", [made], log.info)
        if pulled.failed:
            why = f"the agent could not be fetched from the DVC remote: see that `dvc pull {made}` works here"
            return _said("Undecided", f"the next run asks again, since {why} (log: {pulled.log})")
    command = [sys.executable, "-m", "wm", "agent", "gate", agent]
    with subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        for line in filter(None, map(str.rstrip, process.stdout or ())):
            log.info(line)
            last = line
    if process.returncode == 2:  # a sentence for the user: MLflow does not answer, or does not have the agent
        return _said("Undecided", f"the next run asks again, since {last.removeprefix('error: ')}")
    if process.returncode:
        return Failed(message=f"the gate of {agent} failed: {last}")
    decision = json.loads((path.parent / "decision.json").read_text())
    _page(agent, decision, path.parent / "differences.png")
    path.unlink()
    return _said(decision["decision"].capitalize(), decision["why"])


def _said(name: str, why: str) -> State[str]:
    line = f"gate: {name.lower()}: {why}"
    get_run_logger().log(logging.WARNING if name == "Undecided" else logging.INFO, line)
    return Completed(name=name, message=line, data=line)


def _page(agent: str, decision: dict, picture: Path) -> None:
    """The decision as an artifact, its picture inside."""
    data = base64.b64encode(picture.read_bytes()).decode() if "difference" in decision else ""
    create_markdown_artifact(
        key=re.sub("[^a-z0-9]+", "-", f"gate-{agent}".lower()),
        markdown=f"# {decision['model']}\n\n{run_notes.of_gate(decision, f'data:image/png;base64,{data}')}",
        description=f"Whether {agent} became champion, and why",
    )


def _outputs(agent: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for stage in STAGES:
        try:
            found |= graph.outputs(f"{stage}@{agent}")
        except KeyError:  # never run yet
            continue
    return found
