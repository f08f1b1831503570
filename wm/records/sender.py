"""Tells MLflow what a spool entry holds.

Every step can be repeated: the run is found again by its key, metrics that MLflow has are not stored twice, a
model whose weights it has is not registered twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from wm.core import files
from wm.core.locks import lock
from wm.records import measured, registered_models, run_notes, spool
from wm.records.spool import Entry

BATCH = 1000
"""Metrics in one request, MLflow's limit."""


class Sender:
    """One entry and MLflow."""

    def __init__(self, entry: Entry, client: Any):
        self.entry, self.run, self.client = entry, entry.run, client
        self.trial = registered_models.is_trial(self.run["experiment"])
        self.experiment_name = self.run["world"] + ("-smoke" if self.trial else "")

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.entry.sent["run_id"]

    # ------------------------------------------------------------ start

    def begin(self) -> None:
        """Makes the run, with everything that is known at its start; once."""
        if self.entry.sent.get("begun"):
            return
        with lock(self.entry.root / ".wm" / "mlflow.lock", timeout=60):
            run_id = self._find_or_make(self.run)
        from mlflow import entities

        params = [entities.Param(name, str(value)[:6000]) for name, value in self.run["config"].items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])
        datasets = measured.read(self.run)
        models = [entities.LoggedModelInput(registered_models.model_id(version)) for version in self._input_models()]
        if datasets or models:
            self.client.log_inputs(run_id, datasets=datasets, models=models)
        self.client.set_tag(run_id, "mlflow.note.content", run_notes.of_run(self.run, {}))
        self.entry.mark(run_id=run_id, begun=True)

    def _find_or_make(self, run: dict[str, Any]) -> str:
        experiment = self._experiment()
        found = self.client.search_runs([experiment], f"tags.`wm.key` = '{run['key']}'", max_results=1)
        if found:
            return found[0].info.run_id
        tags = {
            **{f"wm.{field}": run[field] for field in ("key", "stage", "name", "world", "experiment")},
            "wm.dirty": str(run["dirty"]).lower(),
            "wm.machine": run.get("machine", ""),
            "mlflow.user": run["user"],
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": run_notes.commands_again(run)[-1],
            **{f"wm.input.{path}": digest for path, digest in run["inputs"].items()},
        }
        if run["commit"]:
            tags["mlflow.source.git.commit"] = run["commit"]
        if run["parent"]:
            tags["mlflow.parentRunId"] = self._parent(run)
        made = self.client.create_run(
            experiment, start_time=run["start_ms"], tags=tags, run_name=f"{run['stage']}@{run['name']}"
        )
        return made.info.run_id

    def _parent(self, run: dict[str, Any]) -> str:
        """The pipeline's run; made here if its own sender has not come to it, or works on another machine."""
        path = self.entry.folder.parent / run["parent"] / "run.json"
        pipeline = (
            files.read_json(path)
            if path.exists()
            else {**run, "key": run["parent"], "stage": "pipeline", "inputs": {}, "parent": None}
        )
        return self._find_or_make(pipeline)

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment_name)
        if found:
            return found.experiment_id
        here, server = None, os.environ["MLFLOW_TRACKING_URI"]
        if not server.startswith("http"):  # beside the database, which may be another folder's
            top = Path(server.removeprefix("sqlite:///")).parent if server.startswith("sqlite:///") else self.entry.root
            here = (top.absolute() / "mlartifacts" / self.experiment_name).as_uri()
        about = "Trials with tiny numbers." if self.trial else "A world, learned, dreamed and driven in."
        return self.client.create_experiment(
            self.experiment_name,
            artifact_location=here,
            tags={
                "mlflow.experimentKind": "custom_model_development",  # or the UI takes it for a chatbot's
                "mlflow.note.content": f"{about} One run a pipeline, with a run a stage below it.",
            },
        )

    def _input_models(self) -> list[Any]:
        """Registered versions of V and M that the run reads."""
        return [version for kind, weights in self.run["models"] for version in self._versions(kind, weights)[:1]]

    # ------------------------------------------------------------ while it runs

    def pump(self) -> None:
        """Sends what the journal has grown by."""
        path = self.entry.journal
        if path is None or not path.exists():
            return
        sent = self.entry.sent
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            # A resumed run rewrites its journal: another file, to be read from the start.
            same = sent.get("inode") == about.st_ino and sent["position"] <= about.st_size
            position = sent["position"] if same else 0
            file.seek(position)
            whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        metrics = list(self._metrics(whole.decode()))
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + BATCH])
        if whole:
            self.entry.mark(position=position + len(whole), inode=about.st_ino)

    def _metrics(self, text: str) -> Iterator[Any]:
        from mlflow.entities import Metric

        for line in text.splitlines():
            fields = json.loads(line)
            step = int(fields.pop("step", 0))
            when = int(1000 * fields.pop("time", self.run["start_ms"] / 1000))
            for name, value in fields.items():
                if isinstance(value, (int, float)):
                    yield Metric(name, float(value), when, step)

    # ------------------------------------------------------------ end

    def finish(self, end: dict[str, Any]) -> None:
        """Figures, pictures, models, the note; then the run is over and the entry is deleted."""
        from mlflow.entities import Metric, RunTag

        run_id, output = self.run_id, self.entry.output
        tags, pictures, films = {}, [], []
        if end["status"] == spool.FINISHED:
            tags["wm.output"] = end.get("output_digest", "")
            for path in sorted(output.glob("*")) + sorted(output.glob("*/*")):
                relative = path.relative_to(output)
                if path.suffix in (".safetensors", ".json") and path.is_file():
                    tags[f"wm.file.{relative}"] = files.sha256(path)
                if path.is_file() and path.suffix not in (".safetensors", ".parquet"):
                    folder = relative.parent.as_posix()
                    self.client.log_artifact(run_id, str(path), None if folder == "." else folder)
                    pictures += [relative.as_posix()] if path.suffix == ".png" else []
                    films += [relative.as_posix()] if path.suffix in (".mp4", ".html") else []
            about = {"model_id": self._register(end), "run_id": run_id}
            if episodes := measured.tested(self.run, output):
                self.client.log_inputs(run_id, datasets=[episodes])
            if data := [one.dataset for one in ([episodes] if episodes else measured.read(self.run))][:1]:
                about |= {"dataset_name": data[0].name, "dataset_digest": data[0].digest}
            self.client.log_batch(
                run_id,
                metrics=[
                    Metric(name, float(value), end["end_ms"], 0, **about)
                    for name, value in end.get("summary", {}).items()
                    if isinstance(value, (int, float))
                ],
            )
        if end.get("message"):
            tags["wm.message"] = end["message"]
        shown = [(path, _address(run_id, path)) for path in pictures] or self._of_stages()
        page = f"#/experiments/{self._experiment()}/runs/{run_id}/artifacts/"  # of MLflow's server, which plays them
        linked = [(Path(path).stem, page + path) for path in films]
        tags["mlflow.note.content"] = run_notes.of_run(self.run, end, shown, linked)
        self.client.log_batch(run_id, tags=[RunTag(name, value[:5000]) for name, value in tags.items() if value])
        self.client.set_terminated(run_id, end["status"], end["end_ms"])
        self.entry.delete()

    def _of_stages(self) -> list[tuple[str, str]]:
        """Of a pipeline, which makes no picture itself: those of its agent's stages, whichever run made them."""
        found = []
        wanted = {"evaluate": "scores", "evolve": "curves", "train_mdn": "dream_strip"}
        for stage, picture in wanted.items() if self.run["kind"] == "pipeline" else ():
            asked = f"tags.`wm.stage` = '{stage}' and tags.`wm.name` = '{self.run['name']}' and status = 'FINISHED'"
            newest = ["attributes.start_time DESC"]
            runs = self.client.search_runs([self._experiment()], asked, max_results=1, order_by=newest)
            path = f"figures/{picture}.png"
            found += [(path, _address(run.info.run_id, path)) for run in runs]
        return found

    def _register(self, end: dict[str, Any]) -> str | None:
        """V, M or the agent as a version of its registered model; the logged model's id."""
        from mlflow.exceptions import MlflowException

        kind, folder = registered_models.OF_STAGE.get(self.run["stage"]), self.entry.model
        if kind is None or not all((folder / f"{part}.json").exists() for part in registered_models.PARTS[kind]):
            return None
        digest = registered_models.weights(kind, folder)
        same = self._versions(kind, digest)
        if same:
            self.client.set_tag(self.run_id, "wm.version", f"{same[0].name}/{same[0].version}")
            return registered_models.model_id(same[0])
        name = self._model_name(kind)
        with suppress(MlflowException):  # it is there already
            self.client.create_registered_model(
                name, description=run_notes.MODELS[kind], tags={"wm.world": self.run["world"], "wm.kind": kind}
            )
        info = registered_models.log(kind, folder, self.run, self.run_id)
        data = self._data()
        score = run_notes.score(end.get("summary", {}))
        tags = {
            "wm.weights": digest,
            "wm.data": data,
            "wm.name": self.run["name"],
            "wm.commit": self.run["commit"],
            "wm.score": score,
        }
        version = self.client.create_model_version(
            name,
            info.model_uri,
            run_id=self.run_id,
            model_id=info.model_id,
            tags={tag: value for tag, value in tags.items() if value},
            description=run_notes.of_version(self.run, end, data, self._picture(kind)),
        )
        self.client.set_tag(self.run_id, "wm.version", f"{name}/{version.version}")
        link = json.dumps([{"name": name, "version": version.version}])  # shown on the logged model's page
        self.client.set_logged_model_tags(
            info.model_id, {"mlflow.modelVersions": link, "mlflow.note.content": version.description}
        )
        return info.model_id

    def _picture(self, kind: str) -> str:
        path = run_notes.SHOWN[kind]
        return _address(self.run_id, path) if (self.entry.output / path).exists() else ""

    def _data(self) -> str:
        """The digest of the data that made the model: the data set read, or what V learned from."""
        datasets = [self.run["inputs"][path] for path in self.run["datasets"]]
        return (datasets + [version.tags.get("wm.data", "") for version in self._input_models()] + [""])[0]

    def _model_name(self, kind: str) -> str:
        return registered_models.model_name(self.run["world"], self.run["experiment"], kind)

    def _versions(self, kind: str, weights: str) -> list[Any]:
        """Registered versions with these weights, the newest first."""
        asked = f"name = '{self._model_name(kind)}' and tags.`wm.weights` = '{weights}'"
        return self.client.search_model_versions(asked, order_by=["version_number DESC"])


def _address(run_id: str, path: str) -> str:
    """Where MLflow's server, on whose page it is shown, has an artifact."""
    return f"get-artifact?run_uuid={run_id}&path={path}"
