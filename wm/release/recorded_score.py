"""A kept agent's test episodes once more: is every score the recorded one, and if not, what else differs?"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from wm import params, worlds
from wm.core import files, weights
from wm.core.checkpoints import fingerprint
from wm.core.errors import UserError
from wm.core.workspace import Workspace
from wm.records import history, provenance
from wm.release import pretrained
from wm.stages import STAGES
from wm.stages.evaluate import EvaluateConfig, evaluate


def check(name: str, agent: Path | None = None) -> str:
    """Plays the test episodes again and compares every score with the recorded one; resumable.

    Args:
        name: what it is called.
        agent: where it lies whole, as `wm.release.places` has checked it; None for pretrained/NAME.
    Raises:
        UserError: there is no such agent, it has no score on record, or a score differs; names the first, and what
            differs from the record of the machine and the packages.
    """
    agent = agent or pretrained.folder(name)
    if not ((agent / "made.json").exists() and (agent / "scores.json").exists()):
        raise UserError(f"{agent} has no score on record (made.json, scores.json) that could be compared with")
    made, recorded = files.read_record(agent / "made.json"), files.read_json(agent / "scores.json")
    numbers = {key: value for key, value in made["experiment"]["evaluate"].items() if key not in history.ASIDE}
    try:
        config = EvaluateConfig(**{**numbers, "videos": False})
    except ValidationError as error:
        raise UserError(f"{agent / 'made.json'} has numbers that `evaluate` does not take: {_first(error)}") from None
    digest = files.sha256(agent / f"{weights.CONTROLLER_KIND}.json")
    code = [params.code_path(path) for path in STAGES["evaluate"].code_of(_world_code(made["world"]))]
    key = fingerprint("evaluate", config.model_dump(), {"agent": digest}, code)
    with Workspace("evaluate", f"pretrained-{name}", key) as workspace:
        evaluate(config, made["world"], agent, workspace, workspace.folder / "metrics.json")
        found = files.read_json(workspace.out / "scores.json")
    shutil.rmtree(workspace.folder)
    if len(found["scores"]) != len(recorded["scores"]):
        raise UserError(
            f"{agent} has {len(recorded['scores'])} scores, and its made.json says {len(found['scores'])} episodes: "
            "there is nothing to compare"
        )
    text = f"{found['mean']:.4f} ± {found['std']:.4f} over {len(found['scores'])} episodes"
    same = np.array(found["scores"]) == np.array(recorded["scores"])
    if same.all():
        return f"{name}: {text}; every episode's score is the recorded one"
    first = int(np.argmin(same))
    raise UserError(
        f"{name}: {text}, recorded {recorded['mean']:.4f}; {int((~same).sum())} episodes differ, the first is seed "
        f"{recorded['seeds'][first]} with {found['scores'][first]:.4f} instead of {recorded['scores'][first]:.4f} "
        f"({_why(made)})"
    )


def _first(error: ValidationError) -> str:
    one = error.errors()[0]
    return f"{'.'.join(map(str, one['loc']))}: {one['msg']}"


def _world_code(world: str) -> str:
    """The files that play a world: its class's package, or its module where it is in none."""
    module = Path(inspect.getfile(type(worlds.get(world)))).absolute()
    return str(module.parent if (module.parent / "__init__.py").exists() else module)


def _why(made: dict[str, Any]) -> str:
    """What may have changed the scores of an agent with this made.json."""
    if "packages" not in made:  # kept before they were recorded
        return "another type of processor, or other versions of the packages, may change the last bits"
    if differences := list(_differences(made)):
        return f"recorded with {'; '.join(differences)}"
    return (
        "the processor's name and the packages are the recorded ones: "
        f"`git diff {made['commit'][:12]} -- wm` shows what has changed in the code"
    )


def _differences(made: dict[str, Any]) -> Iterator[str]:
    """`torch 2.12.0, here 2.13.0` for the processor and each package that is another here."""
    here = {
        "processor": pretrained.processor(provenance.machine()),
        **{package: pretrained.version(package) for package in made["packages"]},
    }
    for part, recorded in {"processor": made["processor"], **made["packages"]}.items():
        if recorded != here[part]:
            yield f"{part} {recorded}, here {here[part]}"
