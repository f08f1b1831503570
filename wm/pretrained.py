"""Agents that come with the repository: V, M, C and their scores, with what made them.

`pretrained/NAME/` holds the agent as `evolve` writes it, the first frames that dreams start from, `scores.json` as
`evaluate` writes it, and `made.json`: the commit, the command, and the numbers of every stage.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from wm import files, models
from wm.checkpoints import fingerprint
from wm.errors import UserError
from wm.params import Params
from wm.stages.evaluate import EvaluateConfig, evaluate
from wm.stages.run import RUNS
from wm.workspace import Workspace

FOLDER = Path("pretrained")
AGENT = (models.VAE_KIND, models.MDNRNN_KIND, models.CONTROLLER_KIND)
SUMMARIES = ("collect", "train_vae", "train_mdn", "evolve", "evaluate")


def folder(name: str) -> Path:
    """Where the pretrained agent `name` lies.

    Raises:
        UserError: there is none of this name.
    """
    if not (FOLDER / name / "made.json").exists():
        known = sorted(path.parent.name for path in FOLDER.glob("*/made.json"))
        raise UserError(
            f"no pretrained agent {name!r} comes with this repository: there is {', '.join(known) or 'none'}"
        )
    return FOLDER / name


def keep(everything: Params, name: str, commit: str) -> Path:
    """Copies agent `name`, which has been scored, into pretrained/; returns its folder.

    Args:
        commit: of the repository when the agent was made.
    Raises:
        UserError: there is no such agent, or it has no score.
        DamagedData: a model is not whole.
    """
    if name not in everything.agents:
        raise UserError(f"{name!r} is not in `agents` of params.yaml: expected one of {', '.join(everything.agents)}")
    entry, agent, scored = everything.agents[name], RUNS / name / "evolve", RUNS / name / "evaluate" / "scores.json"
    if not scored.exists():
        raise UserError(f"{name} has no score yet: run `python -m flows.pipeline {name}` first")
    experiment, target = everything.experiments[entry.experiment], FOLDER / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for source, kind in [(agent, kind) for kind in AGENT] + [(RUNS / entry.model / "train_mdn", models.STARTS_KIND)]:
        models.load(source, kind)
        for end in ("safetensors", "json"):
            shutil.copyfile(source / f"{kind}.{end}", target / f"{kind}.{end}")
    shutil.copyfile(scored, target / "scores.json")
    owners = {stage: entry.model if stage in SUMMARIES[:3] else name for stage in SUMMARIES}
    made = {
        "name": name,
        "world": experiment.world,
        "commit": commit,
        "command": f"git checkout {commit} && python -m flows.pipeline {name}",
        "tau": entry.tau,
        "experiment": experiment.model_dump(),
        "summaries": {
            stage: files.read_json(path)
            for stage, owner in owners.items()
            if (path := RUNS / owner / stage / "summary.json").exists()
        },
    }
    files.write_record(target / "made.json", made)  # last: without it the folder is no agent
    return target


def score(name: str) -> str:
    """Plays the test episodes again and compares every score with the recorded one; resumable.

    Raises:
        UserError: there is no such agent, or a score differs; names the first.
    """
    agent = folder(name)
    made, recorded = files.read_record(agent / "made.json"), files.read_json(agent / "scores.json")
    config = EvaluateConfig(**{**made["experiment"]["evaluate"], "videos": False})
    digest = files.sha256(agent / f"{models.CONTROLLER_KIND}.json")
    key = fingerprint("evaluate", config.model_dump(), {"agent": digest}, "wm.stages.evaluate")
    with Workspace("evaluate", f"pretrained-{name}", key) as workspace:
        evaluate(config, made["world"], agent, workspace, workspace.folder / "metrics.json")
        found = files.read_json(workspace.out / "scores.json")
    shutil.rmtree(workspace.folder)
    text = f"{found['mean']:.4f} ± {found['std']:.4f} over {len(found['scores'])} episodes"
    same = np.array(found["scores"]) == np.array(recorded["scores"])
    if same.all():
        return f"{name}: {text}; every episode's score is the recorded one"
    first = int(np.argmin(same))
    raise UserError(
        f"{name}: {text}, recorded {recorded['mean']:.4f}; {int((~same).sum())} episodes differ, the first is seed "
        f"{recorded['seeds'][first]} with {found['scores'][first]:.4f} instead of {recorded['scores'][first]:.4f} "
        "(another type of processor, or other versions of the packages, may change the last bits)"
    )
