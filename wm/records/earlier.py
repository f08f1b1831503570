"""Earlier runs, as MLflow knows them: who made an output, when, and what it took.

All of this is extra: where MLflow holds nothing or does not answer, the answer is None and a warning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm.records import store, tracking

_SILENT: set[str] = set()
"""Where MLflow did not answer this process: each question would cost its time limit again."""


def run_of(output_digest: str, root: Path | None = None) -> dict[str, Any] | None:
    """The last finished run that wrote an output with this `provenance.digest`: who made a folder, and when.

    Returns:
        {"run_id", "experiment_id", "url" (empty without a server), "stage", "name", "version" (of a registered model,
        or empty), "machine", "commit", "dirty" (whether the code had changes on top), "start_ms", "seconds",
        "inputs": {folder: digest}, "output": digest, "params": {key: text}, "metrics": {key: last value}}, or None
        where there is no such run or MLflow did not answer.
    """
    root = tracking.find_root() if root is None else Path(root)

    def ask(client: Any) -> dict[str, Any] | None:
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        asked = f"tags.`wm.output` = '{output_digest}' and attributes.status = 'FINISHED'"
        found = client.search_runs(everywhere, asked, max_results=1, order_by=["attributes.start_time DESC"])
        return _about(found[0], root) if found else None

    return _ask(root, ask)


def cost(run: Mapping[str, Any], root: Path | None = None) -> tuple[float, dict[int, float]]:
    """What it took to make an output, with the attempts that its `run` (of `run_of`) went on from.

    Those are the runs directly before it of the same stage, name, commit, inputs and numbers (but for `generations`,
    which a budget shortens, and `workers`) that did not finish.

    Returns:
        Seconds of wall time in all, and seconds of each step of the journal that has them: {generation: seconds}.
    """
    root = tracking.find_root() if root is None else Path(root)

    def numbers(run: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in run["params"].items() if key not in ("generations", "workers")}

    def ask(client: Any) -> tuple[float, dict[int, float]]:
        asked = (
            f"tags.`wm.stage` = '{run['stage']}' and tags.`wm.name` = '{run['name']}' "
            f"and attributes.start_time < {run['start_ms']}"
        )
        newest = ["attributes.start_time DESC"]
        attempts = [run]
        for found in client.search_runs([run["experiment_id"]], asked, max_results=100, order_by=newest):
            before = _about(found, root)
            same = all(before[key] == run[key] for key in ("commit", "inputs")) and numbers(before) == numbers(run)
            if found.info.status == "FINISHED" or not same:
                break
            attempts.insert(0, before)
        steps: dict[int, Any] = {}
        for attempt in attempts:  # a later attempt did what it did again from the last checkpoint on
            told = client.get_metric_history(attempt["run_id"], "seconds")
            steps |= {one.step: one.value for one in sorted(told, key=lambda one: one.timestamp)}
        return sum(attempt["seconds"] for attempt in attempts), steps

    return _ask(root, ask) or (run["seconds"], {})


def version(name: str, number: str, root: Path | None = None) -> dict[str, Any] | None:
    """The run that made a registered model, as `run_of` gives it.

    Args:
        number: of the version, or an alias after `@`: "3", "@champion".
    """
    root = tracking.find_root() if root is None else Path(root)

    def ask(client: Any) -> dict[str, Any] | None:
        from mlflow.exceptions import MlflowException

        alias = number.startswith("@")
        get = client.get_model_version_by_alias if alias else client.get_model_version
        try:
            found = get(name, number.removeprefix("@"))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return {**_about(client.get_run(found.run_id), root), "version": f"{found.name}/{found.version}"}

    return _ask(root, ask)


def _ask(root: Path, question: Any) -> Any:
    """The answer of a function of a client; None where MLflow holds nothing or does not answer."""
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    if tracking.off() or tracking.uri(root) in _SILENT or (local and not store.exists(root)):
        return None
    try:
        return question(tracking.connect(root))
    except Exception as error:  # MLflow's are of many kinds
        _SILENT.add(tracking.uri(root))
        tracking.warn(
            f"MLflow at {tracking.place(root)} could not be asked for earlier runs ({tracking.sentence(error)})"
        )
        return None


def _about(run: Any, root: Path) -> dict[str, Any]:
    info, tags, server = run.info, run.data.tags, tracking.place(root)
    page = f"{server}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
    return {
        "run_id": info.run_id,
        "experiment_id": info.experiment_id,
        "url": page if server.startswith("http") else "",
        **{field: tags.get(f"wm.{field}", "") for field in ("stage", "name", "output", "version", "machine")},
        "commit": tags.get("mlflow.source.git.commit", ""),
        "dirty": tags.get("wm.dirty") == "true",
        "start_ms": info.start_time,
        "seconds": ((info.end_time or info.start_time) - info.start_time) / 1000,
        "inputs": {key.removeprefix("wm.input."): text for key, text in tags.items() if key.startswith("wm.input.")},
        "params": dict(run.data.params),
        "metrics": dict(run.data.metrics),
    }
