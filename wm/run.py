"""Runs one stage by name: finds its numbers and inputs, gives it a workspace, publishes what it made.

What a stage reads, and the code that it is made of, is `wm.stages.STAGES`'s to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm import params
from wm.core import device, files, plots, verdicts
from wm.core.checkpoints import fingerprint, modules
from wm.core.errors import DamagedData, UserError
from wm.core.workspace import Workspace
from wm.play import cluster
from wm.records import tracking
from wm.search.budget import OutOfTime
from wm.stages import STAGES

RUNS = Path("runs")
METRICS = Path("metrics")
PLOTS = Path("plots")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A stage, its numbers, what it reads and where it writes.

    Attributes:
        code: the files and folders that decide its bits.
    """

    stage: str
    name: str
    experiment: str
    world: str
    config: Any
    arguments: dict[str, Any]
    inputs: dict[str, Path]
    code: tuple[Path, ...]

    @property
    def output(self) -> Path:
        """runs/NAME/<stage>."""
        return RUNS / self.name / self.stage


def plan(everything: params.Params, stage: str, name: str) -> Plan:
    """What `stage` of `name` is made of.

    Raises:
        UserError: there is no such entry in params.yaml.
    """
    known = STAGES[stage]
    entry = everything.entry(known.of, name)
    return Plan(
        stage=stage,
        name=name,
        experiment=entry.experiment,
        world=entry.world,
        config=getattr(everything.experiments[entry.experiment], stage),
        arguments={key: getattr(entry, key) for key in known.own},
        inputs={
            argument: RUNS / (name if whose == "own" else getattr(entry, whose)) / before
            for argument, (whose, before) in known.reads.items()
        },
        code=tuple(params.code_path(path) for path in known.code_of(entry.code)),
    )


def run_stage(stage: str, name: str) -> None:
    """Runs a stage to its end and publishes its outputs; goes on where a killed run of the same stage was.

    Raises:
        UserError, DamagedData: as the stage does, or what it is made from has changed meanwhile; nothing is published
            then.
    """
    everything = params.load()
    todo = plan(everything, stage, name)
    function = getattr(importlib.import_module(f"wm.stages.{stage}"), stage)
    device.prepare(getattr(todo.config, "device", "cpu"), f"experiments.{todo.experiment}.{stage}.device")
    for folder in todo.inputs.values():
        if not folder.is_dir():
            made_by = everything.address(folder.name, folder.parent.name)
            raise UserError(f"{folder} is not here: run `dvc repro {made_by}` first, or `dvc pull`")
    numbers = todo.config.model_dump() | todo.arguments
    before = _made_from(everything, todo)
    with (
        Workspace(stage, name, _fingerprint(everything, todo)) as workspace,
        tracking.stage_run(
            stage=stage,
            name=name,
            world=todo.world,
            experiment=todo.experiment,
            config=numbers | ({"workers": cluster.workers()} if "play" in STAGES[stage].code else {}),
            inputs=list(todo.inputs.values()),
            output=todo.output,
            live=workspace.live,
        ) as run,
    ):
        whole = files.checksum(before)
        if (summary := workspace.finished(whole)) is None:
            more = {"metrics": workspace.metrics} if stage == "evaluate" else {}
            try:
                summary = function(todo.config, **todo.arguments, **todo.inputs, **more, workspace=workspace)
            except OutOfTime as ended:
                ended.write(workspace.folder)
                raise
        if (workspace.out / verdicts.FILE).exists():
            run.add(note=verdicts.table(verdicts.read(workspace.out)))
        try:
            _check_unchanged(todo, before)
            if stage in plots.STAGES:
                plots.write(stage, workspace.out, PLOTS / name / f"{stage}.tsv")
            workspace.publish(todo.output, summary, METRICS / f"{name}.json" if stage == "evaluate" else None)
        except (OSError, UserError):
            with contextlib.suppress(OSError):  # a full disk takes no note either: the last checkpoint is there
                workspace.keep(summary, whole)
            raise
    print(f"{stage} {name}: " + ", ".join(f"{key} {value:.6g}" for key, value in summary.items()))


def _fingerprint(everything: params.Params, todo: Plan) -> str:
    """What the run is a function of."""
    identity = todo.config.model_dump() | todo.arguments
    if "world" in identity:
        identity["world"] = [todo.world, _world(everything, todo)]
    if todo.stage == "evolve":
        identity["generations"] = 0  # a long search begins as a short one does; `Search` knows where it may go on
    return fingerprint(todo.stage, identity, {key: digest(path) for key, path in todo.inputs.items()}, todo.code)


def _made_from(everything: params.Params, todo: Plan) -> dict[str, Any]:
    """All that a stage is a function of, by the name that a person knows: keys of params.yaml, folders, modules."""
    numbers = {f"{todo.stage}.{key}": value for key, value in todo.config.model_dump().items()}
    world = {f"worlds.{todo.world}": _world(everything, todo)} if "world" in todo.arguments else {}
    folders = {str(path): digest(path) for path in todo.inputs.values()}
    return numbers | todo.arguments | world | folders | modules(todo.code)


def _world(everything: params.Params, todo: Plan) -> dict[str, Any]:
    """The entry of a stage's world, and what identifies its recordings where it has some."""
    entry = everything.worlds[todo.world]
    recorded = {"digest": digest(Path(entry.recordings))} if entry.recordings else {}
    return entry.model_dump() | recorded


def _check_unchanged(todo: Plan, before: dict[str, Any]) -> None:
    """Raises UserError where what the stage was made from has changed since it began: DVC looks at it when the stage
    has ended, and would record the new for what the old made."""
    try:
        everything = params.load()
        now = _made_from(everything, plan(everything, todo.stage, todo.name))
        changed = next((key for key in sorted(before | now) if before.get(key) != now.get(key)), None)
        reason = f"{changed} was changed" if changed else None
    except UserError as error:
        reason = f"something was changed ({error})"
    if reason:
        raise UserError(
            f"{reason} while {todo.stage} {todo.name} ran, so that what it made is not published: change it back, and "
            "the same command publishes what is kept in .wm; or run it as it is now, which begins anew"
        )


def digest(folder: Path) -> str:
    """What identifies an input: the sha256 of its manifest if it has one (that names those of its shards), else of all
    its files."""
    manifest = folder / "manifest.json"
    if manifest.exists():
        return files.sha256(manifest)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise DamagedData(f"{folder} is empty: run `dvc checkout`, or `git checkout runs/zero` where it is that")
    content = "".join(f"{path.relative_to(folder).as_posix()} {files.sha256(path)}\n" for path in paths)
    return hashlib.sha256(content.encode()).hexdigest()
