"""Runs one stage by name: finds its numbers and inputs, gives it a workspace, publishes what it made.

This is the only place that knows which stage reads what; dvc.yaml says the same to DVC, and a test compares the two.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm import params
from wm.core import files
from wm.core.checkpoints import fingerprint
from wm.core.errors import DamagedData, UserError
from wm.core.workspace import Workspace
from wm.records import tracking

RUNS = Path("runs")
METRICS = Path("metrics")
OF_MODEL = ("collect", "train_vae", "encode", "train_mdn")
OF_AGENT = ("evolve", "evaluate")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A stage, its numbers, what it reads and where it writes."""

    stage: str
    name: str
    experiment: str
    world: str
    config: Any
    arguments: dict[str, Any]
    inputs: dict[str, Path]

    @property
    def output(self) -> Path:
        """runs/NAME/<stage>."""
        return RUNS / self.name / self.stage


def plan(everything: params.Params, stage: str, name: str) -> Plan:
    """What `stage` of `name` is made of.

    Raises:
        UserError: there is no such entry in params.yaml.
    """
    section = "models" if stage in OF_MODEL else "agents"
    entry = everything.entry(section, name)
    experiment = everything.experiments[entry.experiment]
    world, seed = {"world": experiment.world}, {"seed": entry.seed}
    own = RUNS / name
    arguments, inputs = {
        "collect": lambda: (
            world | seed,
            {"previous": RUNS / entry.after / "collect", "actor": RUNS / entry.actor / "evolve"},
        ),
        "train_vae": lambda: (world | seed, {"data": own / "collect", "previous": RUNS / entry.after / "train_vae"}),
        "encode": lambda: ({}, {"data": own / "collect", "vae": own / "train_vae"}),
        "train_mdn": lambda: (
            world | seed,
            {"latents": own / "encode", "vae": own / "train_vae", "previous": RUNS / entry.after / "train_mdn"},
        ),
        "evolve": lambda: (
            world | seed | {"tau": entry.tau},
            {
                "vae": RUNS / entry.model / "train_vae",
                "mdnrnn": RUNS / entry.model / "train_mdn",
                "latents": RUNS / entry.model / "encode",
                "previous": RUNS / entry.after / "evolve",
            },
        ),
        "evaluate": lambda: (world, {"agent": own / "evolve"}),
    }[stage]()
    return Plan(
        stage=stage,
        name=name,
        experiment=entry.experiment,
        world=experiment.world,
        config=getattr(experiment, stage),
        arguments=arguments,
        inputs=inputs,
    )


def run_stage(stage: str, name: str) -> None:
    """Runs a stage to its end and publishes its outputs; goes on where a killed run of the same stage was.

    Raises:
        UserError, DamagedData: as the stage does; nothing is published then.
    """
    todo = plan(params.load(), stage, name)
    function = getattr(importlib.import_module(f"wm.stages.{stage}"), stage)
    _prepare_device(todo)
    for folder in todo.inputs.values():
        if not folder.is_dir():
            raise UserError(
                f"{folder} is not here: run `dvc repro {folder.name}@{folder.parent.name}` first, or `dvc pull`"
            )
    numbers = todo.config.model_dump()
    identity = numbers | todo.arguments
    if stage == "evolve" and identity["generations"] % identity["rescore_every"] == 0:
        identity["generations"] = 0  # a long search begins as a short one does: with looks in the same generations
    print_key = fingerprint(
        stage, identity, {key: digest(path) for key, path in todo.inputs.items()}, function.__module__
    )
    more = {"metrics": METRICS / f"{name}.json"} if stage == "evaluate" else {}
    with (
        Workspace(stage, name, print_key) as workspace,
        tracking.stage_run(
            stage=stage,
            name=name,
            world=todo.world,
            experiment=todo.experiment,
            config=numbers | todo.arguments,
            inputs=list(todo.inputs.values()),
            output=todo.output,
            live=workspace.live,
        ),
    ):
        summary = function(todo.config, **todo.arguments, **todo.inputs, **more, workspace=workspace)
        workspace.publish(todo.output, summary)
    print(f"{stage} {name}: " + ", ".join(f"{key} {value:.6g}" for key, value in summary.items()))


def _prepare_device(todo: Plan) -> None:
    """Asks a GPU for the same bits every time: PyTorch's deterministic algorithms, and a warning where it has none."""
    device = getattr(todo.config, "device", "cpu")
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            f"{todo.stage}.device of {todo.experiment} is {device!r}, but this PyTorch finds no CUDA device: "
            "set it to cpu, or install a CUDA build of PyTorch"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a pass over memory that everything here overwrites


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
