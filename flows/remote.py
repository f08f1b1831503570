"""A stage on another machine: what the pipeline's flow asks a worker of a Prefect work pool, and what it answers.

A worker has a checkout and the DVC remote's address, nothing else. The flow's `ask` sends it the entries of dvc.lock
that the stage needs; its `run_stage` fetches what they name, brings the stage up to date, pushes what it made, and
answers with the stage's new entry, which the flow puts into its own dvc.lock.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, State

from flows import checkout, claim, graph, lockfile
from flows.repro import FAILED, pull, push, repro
from wm.core import files
from wm.core.errors import UserError
from wm.records import tracking

FLOW = "run-stage"
ANSWER = "stage"
"""The type of the artifact that carries a worker's answer: results of Prefect stay on the machine that made them."""
POLL = 1.0
"""Seconds between two looks at a stage's run."""


@dataclass(frozen=True)
class Outcome:
    """state is Cached, Restored or Completed; or one of FAILED, with a sentence."""

    state: str
    message: str = ""


# ---------------------------------------------------------------- the flow


def ask(address: str, upstream: Sequence[str], pool: str, say: Callable[[str], None]) -> Outcome:
    """Has a stage brought up to date by a worker of `pool`; dvc.lock is then as if it had been done here.

    Args:
        upstream: the stages that it reads from, which dvc.lock knows.
    """
    _look_for_a_worker(pool, say)
    parameters = {
        "address": address,
        "lock": lockfile.entries([address, *upstream]),
        "code": checkout.here().model_dump(),
        "tracked_under": os.environ.get(tracking.PARENT),
    }
    try:
        run = run_deployment(f"{FLOW}/{pool}", parameters=parameters, flow_run_name=address, poll_interval=POLL)
    except ObjectNotFound:
        return Outcome("Failed", _nobody(pool))
    state = run.state
    if state.is_completed():
        _take(address, run)
        return Outcome(state.name)
    message = f"{address} on {pool}: {state.message or state.name}"
    return Outcome("Transient" if state.is_crashed() else state.name if state.name in FAILED else "Failed", message)


def _look_for_a_worker(pool: str, say: Callable[[str], None]) -> None:
    with get_client(sync_client=True) as client:
        try:
            workers = client.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            return
    if not any(worker.status == WorkerStatus.ONLINE for worker in workers):
        say(f"Waiting for a worker: {_nobody(pool)}")


def _nobody(pool: str) -> str:
    return f"nobody works for the pool {pool!r}: start a worker with `wm up worker {pool}` in a checkout"


def _take(address: str, run: FlowRun) -> None:
    """Puts what a worker answered where a run in place would have left it."""
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), type=ArtifactFilterType(any_=[ANSWER]))
    with get_client(sync_client=True) as client:
        answers = client.read_artifacts(artifact_filter=mine)
    content = json.loads(max(answers, key=lambda each: each.created).data)  # two where the run was tried again
    for path in graph.kept_by_git(address):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(Path(path), content["files"][path].encode())
    lockfile.put([address], content["lock"])


# ---------------------------------------------------------------- the worker


@flow(name=FLOW, flow_run_name="{address}", persist_result=False)
def run_stage(address: str, lock: str, code: checkout.Checkout, tracked_under: str | None = None) -> State[Any]:
    """Brings one stage up to date in this worker's checkout, for a pipeline run somewhere else.

    Args:
        address: the stage in dvc.yaml, e.g. "train_vae@smoke".
        lock: what dvc.lock has to say about it and the stages that it reads from.
        code: the commit, the changed files and the parameters of the pipeline's checkout; another one is refused.
        tracked_under: the key of the pipeline's run in MLflow.
    """
    if tracked_under:
        os.environ[tracking.PARENT] = tracked_under
    say = get_run_logger().info
    say(f"In {Path.cwd()}")
    try:
        with claim.workspace(address, "stage"):
            checkout.expect(code)
            graph.check_remote()
            outcome = _bring(address, lock, say)
            if outcome.state in FAILED:
                return Failed(name=outcome.state, message=outcome.message)
            _answer(address, outcome.state)
    except UserError as error:
        return Failed(name="Refused", message=str(error))
    return Completed(name=outcome.state, message=f"in {Path.cwd()}")


def _bring(address: str, lock: str, say: Callable[[str], None]) -> Outcome:
    """Fetch, repro, push."""
    upstream = graph.upstream(address)
    lockfile.put([address, *upstream], lock)
    if not all(Path(path).exists() for path in graph.kept_by_git(address)):
        lockfile.put([address], "")  # unchanged for DVC, which has no copy: the run-cache may have one
    if upstream:  # also where an older version of them is here
        done = pull(address, upstream, say)
        if done.failed:
            missing = f"what {' and '.join(upstream)} made could not be fetched from the DVC remote"
            cure = (
                f"{done.why}; the same command goes on" if done.why else "run `dvc push --run-cache` where it was made"
            )
            return Outcome(done.state, f"{missing}: {cure} (log: {done.log})")
    result = repro(address, say, pull=True)
    if result.failed:
        return Outcome(result.state, f"{result.why}, in {Path.cwd()}")
    done = push(address, say)
    if done.failed:
        why = f": {done.why}; the same command goes on" if done.why else ""
        return Outcome(done.state, f"what {address} made could not be pushed to the DVC remote{why} (log: {done.log})")
    return Outcome(result.state)


def _answer(address: str, state: str) -> None:
    content = {
        "verdict": state,
        "checkout": str(Path.cwd()),
        "outputs": graph.outputs(address),
        "files": {path: Path(path).read_text() for path in graph.kept_by_git(address)},
        "lock": lockfile.entries([address]),
    }
    Artifact(
        type=ANSWER,
        key=re.sub("[^a-z0-9]+", "-", f"stage-{address}".lower()),
        description=f"What {address} made, and its entry in dvc.lock",
        data=content,
    ).create()
