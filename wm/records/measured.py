"""What a run's figures were measured on, as MLflow states it: the data that were read or played, and the machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm.core import files

EVERY = 10.0
"""Seconds between two looks at the machine."""


def read(run: Mapping[str, Any]) -> list[Any]:
    """The data sets that a stage reads, as inputs of its run.

    Args:
        run: a spool entry's run.json.
    """
    return [_input(run, path, about["md5"], path, about["numbers"]) for path, about in run["datasets"].items()]


def tested(run: Mapping[str, Any], output: Path) -> Any:
    """The episodes that an evaluation has played, which are the data set that its scores are of; None of another run.

    The same episodes have the same digest, whoever drove them: MLflow shows the scores of agents on them side by side.

    Args:
        output: the folder of the run's results.
    """
    path = output / "scores.json"
    if run["stage"] != "evaluate" or not path.exists():
        return None
    scores = files.read_json(path)
    digest = files.checksum({name: scores[name] for name in ("world", "drawing", "seeds")})[:32]
    numbers = {name: scores[name] for name in ("drawing", "episodes")}
    return _input(run, f"test episodes of {scores['world']}", digest, f"{run['output']}/scores.json", numbers)


def machine(run_id: str, uri: str) -> Any:
    """Begins to look at processor, memory, disk, network and GPU; `finish` of what is returned ends it.

    MLflow's own monitor: the figures are those of the whole machine, on the run's page under "System metrics".

    Args:
        uri: where MLflow is.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, EVERY, resume_logging=True, tracking_uri=uri)
    monitor.start()
    return monitor


def _input(run: Mapping[str, Any], name: str, digest: str, path: str, numbers: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(name, digest, "local", json.dumps({"uri": path}), profile=json.dumps(numbers))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", run["stage"])])
