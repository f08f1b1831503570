"""What a run leaves in MLflow, and how MLflow is reached.

The process that computes never talks to MLflow. It writes what there is to tell to the spool (`wm.records.spool`),
and a process beside it (`wm.records.delivery`) sends that: the stage's journal in batches while it runs,
pictures and models at the end. So a dead or slow server costs a stage a warning, and what was not sent is
sent beside the next run. A pipeline's stages have one sender, the pipeline's: a stage ends without waiting for it.

Environment:
    MLFLOW_TRACKING_URI   where to; without it `mlflow.db` and `mlartifacts/` of the project (`wm.records.store`)
    WM_TRACKING=off       nothing is tracked
    WM_PARENT_RUN         the key of the pipeline's run, set by `pipeline_run`, under which stages appear
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from wm.core import files
from wm.core.errors import without_password
from wm.core.locks import lock
from wm.records import git, provenance, spool, store
from wm.records.spool import Entry

PATIENCE = 20.0
"""Seconds that the end of a run waits for MLflow; 3 if that was unreachable or the run was interrupted."""
PARENT = "WM_PARENT_RUN"
_CALM = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
APP = "world-models"
"""The name under which MLflow finds `wm.records.mlflow_ui`."""


class Run:
    """A run under way; `add` says what else its page should show."""

    def __init__(self) -> None:
        self.extra: dict[str, Any] = {}
        self.key = ""

    def add(self, summary: Mapping[str, float] | None = None, note: str = "") -> None:
        """Final figures (beside those in the output's summary.json) and a Markdown note."""
        self.extra.setdefault("summary", {}).update(summary or {})
        self.extra["note"] = "\n\n".join(filter(None, [self.extra.get("note"), note]))


@contextlib.contextmanager
def stage_run(
    *,
    stage: str,
    name: str,
    world: str,
    experiment: str,
    config: Mapping[str, Any],
    inputs: Sequence[Path],
    output: Path,
    live: Path | None = None,
    root: Path | None = None,
) -> Iterator[Run]:
    """Tracks a stage while the block runs: finished, failed or killed as the block ends.

    Args:
        stage, name: as in `python -m wm <stage> <name>`.
        world: the MLflow experiment.
        experiment: key of `experiments` in params.yaml; one that ends in `smoke` goes to `<world>-smoke`.
        config: the stage's numbers, flat.
        inputs: the folders that it reads, relative to `root`; `evaluate` reads the agent that it scores.
        output: the folder that it writes; read when the block has ended.
        live: the journal that grows while it runs (`wm.core.journal`); deleted once sent.
        root: the repository's top; found from the current folder if None.
    """
    root = find_root() if root is None else Path(root)
    agent = next((path for path in inputs if (root / path / "controller.json").exists()), output)
    about = {
        "kind": "stage",
        "stage": stage,
        "name": name,
        "world": world,
        "experiment": experiment,
        "config": dict(config),
        **provenance.inputs(root, inputs),
        "output": str(output),
        "model": str(agent if stage == "evaluate" else output),
        "live": str(live) if live else None,
        "parent": os.environ.get(PARENT),
    }
    with _tracked(root, about) as run:
        yield run


@contextlib.contextmanager
def pipeline_run(
    *, name: str, world: str, experiment: str, config: Mapping[str, Any] | None = None, root: Path | None = None
) -> Iterator[Run]:
    """Tracks a pipeline run: stages started inside the block, here or in child processes, appear under it."""
    root = find_root() if root is None else Path(root)
    about = {
        "kind": "pipeline",
        "stage": "pipeline",
        "name": name,
        "world": world,
        "experiment": experiment,
        "config": dict(config or {}),
        **provenance.inputs(root, []),
        "output": None,
        "live": None,
        "parent": None,
        "model": None,
    }
    before = os.environ.get(PARENT)
    with _tracked(root, about) as run:
        try:
            if run.key:
                os.environ[PARENT] = run.key
            yield run
        finally:
            os.environ.pop(PARENT, None)
            if before:
                os.environ[PARENT] = before


def send_left_behind(root: Path) -> None:
    """Sends what earlier runs could not, and waits for it: ten minutes a run at most, on a busy machine."""
    if pipeline := spool.under_way(root, os.environ.get(PARENT)):
        _wait_for_stages(pipeline)
    for entry in spool.left_behind(root):
        if entry.end:
            sender = _start_sender(entry)
            try:
                sender.wait(600.0)
            except subprocess.TimeoutExpired:
                sender.kill()
                sender.wait()


def ui(port: int, root: Path | None = None) -> None:
    """Becomes MLflow's server on the loopback address: one worker, no job execution. Never returns."""
    root = (find_root() if root is None else Path(root)).resolve()
    connect(root)  # makes the database once
    store.correct(root)  # also where MLFLOW_TRACKING_URI is another
    address = f"http://127.0.0.1:{port}/#/models"  # where the address alone leads too (`wm.records.mlflow_ui`)
    print(f"MLflow: {address}   (Ctrl-C stops it)", flush=True)
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", store.address(root), "--default-artifact-root", store.files(root).as_uri()),
    ]
    if metadata.entry_points(group="mlflow.app", name=APP):  # not in an environment of an earlier version
        command += ["--app-name", APP]
    env = {**os.environ, **_CALM, "PYTHONWARNINGS": "ignore", "MLFLOW_TRACKING_URI": store.address(root)}
    os.execve(sys.executable, command, env)


def find_root() -> Path:
    """The repository's top: the nearest folder above with a dvc.yaml, else the current one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), here)


def uri(root: Path) -> str:
    """Where MLflow is: the server or database of MLFLOW_TRACKING_URI, or the project's own."""
    return os.environ.get("MLFLOW_TRACKING_URI") or store.address(root)


def place(root: Path) -> str:
    """The same for people to read, in logs too: without a password."""
    return without_password(uri(root))


def connect(root: Path) -> Any:
    """An MlflowClient; makes the database where there is none yet, one process at a time."""
    for name, value in _CALM.items():
        os.environ.setdefault(name, value)
    import mlflow

    scratch = store.home(root) / ".wm"
    scratch.mkdir(exist_ok=True)
    with lock(scratch / "mlflow.lock", timeout=60):
        store.make(uri(root))
        if uri(root) == store.address(root):
            store.correct(root)
        return mlflow.MlflowClient(tracking_uri=uri(root))


def declare(load: Any) -> None:
    """Tells MLflow, which is running a model's code, that `load(folder)` gives the model, with `predict`."""
    import mlflow

    class Model(mlflow.pyfunc.PythonModel):
        _skip_type_hint_validation = True  # it would warn about every load; the signature says what goes in

        def load_context(self, context: Any) -> None:
            self.model = load(Path(context.artifacts["model"]))

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return self.model.predict(model_input)

    mlflow.models.set_model(Model())


# ---------------------------------------------------------------- beside the run


@contextlib.contextmanager
def _tracked(root: Path, about: dict[str, Any]) -> Iterator[Run]:
    """An entry in the spool and a sender beside this process while the block runs."""
    run = Run()
    entry = sender = None
    if not off():
        try:
            spool.adopt(root)
            entry = spool.open_entry(root, {**about, **_origin(root)})
            run.key = entry.run["key"]
            if not spool.under_way(root, about["parent"]):
                sender = _start_sender(entry)
        except OSError as error:
            warn(f"this run is not tracked: {sentence(error)}")
    try:
        yield run
    except BaseException as error:
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
        if entry:
            entry.close(spool.KILLED if stopped else spool.FAILED, message=sentence(error), **run.extra)
            _leave(entry, sender, min(PATIENCE, 3.0) if stopped else PATIENCE)
        raise
    if entry:
        _end(entry, run)
        _leave(entry, sender, PATIENCE)


def _end(entry: Entry, run: Run) -> None:
    fields = dict(run.extra)
    if entry.run["output"]:
        output = entry.root / entry.run["output"]
        if (output / "summary.json").exists():
            fields["summary"] = {**files.read_json(output / "summary.json"), **fields.get("summary", {})}
        fields["output_digest"] = provenance.digest(output)
    entry.close(spool.FINISHED, **fields)


def _start_sender(entry: Entry) -> subprocess.Popen:
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    env = {
        **_CALM,
        **os.environ,
        "MLFLOW_TRACKING_URI": uri(entry.root),
        "PYTHONPATH": path,
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "wm.records.delivery", str(entry.folder), str(os.getpid())]
    with (entry.folder / "sender.log").open("ab") as log:
        return subprocess.Popen(command, env=env, cwd=entry.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _leave(entry: Entry, sender: subprocess.Popen | None, patience: float) -> None:
    """Leaves an ended run's entry to the pipeline's sender, or waits for its own."""
    if sender is None and spool.under_way(entry.root, entry.run["parent"]):
        with contextlib.suppress(OSError):  # of a full disk: the originals are there
            entry.keep()
            _drop_live(entry)
        entry.lock.release()
    else:
        stages = len(spool.children(entry))
        _hand_over(entry, sender or _start_sender(entry), patience * (1 + stages))
        if left := [stage for stage in spool.children(entry) if stage.end]:
            warn(f"MLflow did not take the reports of {len(left)} stages: they are sent with the next run")


def _drop_live(entry: Entry) -> None:
    if entry.run.get("live"):
        (entry.root / entry.run["live"]).unlink(missing_ok=True)


def _wait_for_stages(pipeline: Entry) -> None:
    """Waits until the pipeline's sender has sent its ended stages: for ten minutes, or until it is in trouble."""
    deadline, trouble = time.monotonic() + 600.0, pipeline.folder / "trouble.txt"
    while any(entry.end for entry in spool.children(pipeline)):
        if time.monotonic() > deadline or trouble.exists():
            return
        time.sleep(0.2)


def _hand_over(entry: Entry, sender: subprocess.Popen, patience: float) -> None:
    """Waits for the sender, not for long; what it cannot send stays in the spool."""
    trouble = entry.folder / "trouble.txt"
    try:
        if sender.poll() is not None and entry.folder.exists() and not trouble.exists():
            sender = _start_sender(entry)  # it was killed
        sender.wait(min(patience, 3.0) if trouble.exists() else patience)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if sender.poll() is None:
            sender.kill()
            sender.wait()
    if not (entry.folder / "run.json").exists():
        _drop_live(entry)
    else:
        reason = trouble.read_text() if trouble.exists() else "it was too slow"
        entry.keep()
        warn(
            f"MLflow at {place(entry.root)} did not take this run's report ({reason}): "
            f"it waits in {entry.folder.relative_to(entry.root)} and is sent with the next run"
        )
    entry.lock.release()


def _origin(root: Path) -> dict[str, Any]:
    """{"commit", "dirty" (whether the code has changes on top), "user", "machine"} of a run that begins now."""
    # Locks, metrics/ and plots/ change while a pipeline runs: they are its results, not its code.
    code = git.state(root, "dvc.lock", "trials/dvc.lock", "metrics", "plots")
    if code.trouble:
        warn(f"which code this run has is unknown: {code.trouble}")
    about = {"commit": code.commit, "dirty": code.dirty}
    return about | {"user": provenance.user(), "machine": provenance.machine()}


def off() -> bool:
    """Whether WM_TRACKING says that nothing is to be told to MLflow."""
    return os.environ.get("WM_TRACKING", "").lower() in ("off", "0", "no", "false")


def sentence(error: BaseException) -> str:
    """An error in one line."""
    text = without_password(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def warn(text: str) -> None:
    """Says on stderr what went wrong and does not matter to the result."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
