"""Agents that come with the repository: V, M, C and their scores, with what made them.

`pretrained/NAME/` holds the agent as `evolve` writes it, the first frames that dreams start from, `scores.json` as
`evaluate` writes it, and `made.json`: what made it (`_record`). V, M and the first frames lie there once: an agent that
has those of an earlier one lies without them, and its made.json says whose they are.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import wm
from wm.core import files, weights
from wm.core.errors import DamagedData, UserError
from wm.params import Params
from wm.records import dvcfiles, gitfiles, lineage, provenance
from wm.records.lineage import Lineage, Made
from wm.run import RUNS
from wm.stages.evaluate import EvaluateConfig

FOLDER = Path("pretrained")
CARRIED = Path(wm.__file__).parent / FOLDER
"""Where they lie in an installed wheel."""
WHOLE = Path(".wm", "pretrained")
"""Where an agent is put together whose V and M lie with another."""
MODELS = (weights.VAE_KIND, weights.MDNRNN_KIND, weights.STARTS_KIND)
"""What agents of one model share."""
KNOWN = weights.SURPRISE_KINDS
"""What lies with V and M besides, where they were made by a version that kept it."""
PACKAGES = ("torch", "numpy", "gymnasium", "opencv-python-headless")
"""What every score is computed with; gymnasium pins the physics and the drawing of its worlds."""
PACKAGES_OF = {"take_cover": ("vizdoom",)}
"""World -> what its scores are computed with besides."""


def folder(name: str) -> Path:
    """Where the whole pretrained agent `name` lies, as `whole` gives it.

    Raises:
        UserError: there is none of this name.
        DamagedData: one of its files is missing or not whole.
    """
    for place in (FOLDER / name, _beside(name, "old")):  # the second where `keep` was killed between its two renames
        if (weights.packaged(place) / "made.json").exists():
            return whole(weights.packaged(place))
    known = ", ".join(names()) or "none"
    raise UserError(f"no pretrained agent {name!r} comes with this repository: there is {known}")


def names() -> list[str]:
    """The agents that `folder` finds."""
    return sorted({path.parent.name for top in (FOLDER, CARRIED) for path in top.glob("[!.]*/made.json")})


def whole(place: Path) -> Path:
    """A folder with all files of the agent that was kept in `place`, each of which has been read.

    That is `place`, or, where its V and M lie with another agent, a copy of both in `WHOLE`.

    Raises:
        DamagedData: one of its files is missing, not whole, or not the one that the agent was scored with.
    """
    with _kept_by_git(place):
        models = files.read_record(place / "made.json").get("models")
        files.read_json(place / "scores.json")
        for kind in (weights.CONTROLLER_KIND, *(() if models else MODELS)):
            weights.load(place, kind)
    if models is None:
        return place
    source, target = place.parent / models["from"], WHOLE / place.name
    with _kept_by_git(source):
        for kind in MODELS:
            if weights.load(source, kind)[0]["sha256"] != models[kind]:
                raise DamagedData(f"{source / kind}.safetensors is not the one that {place} was scored with: …")
    target.mkdir(parents=True, exist_ok=True)
    known = [kind for kind in KNOWN if weights.exists(source, kind)]
    for path in (*place.iterdir(), *_files(source, (*MODELS, *known))):
        data, there = path.read_bytes(), target / path.name
        if not there.is_file() or there.read_bytes() != data:  # else another command may be reading it
            files.write_bytes(there, data)
    return target


@contextlib.contextmanager
def _kept_by_git(folder: Path) -> Iterator[None]:
    """Damage found inside the block is told with what mends it."""
    try:
        yield
    except DamagedData as error:
        damage = str(error).partition(":")[0]  # what follows is for runs/, which DVC keeps
        cure = "install the package again" if folder.is_absolute() else f"`git checkout {folder}` brings it back"
        raise DamagedData(f"{damage}: {cure}") from None


def _files(folder: Path, kinds: Iterable[str]) -> list[Path]:
    return [folder / f"{kind}.{end}" for kind in kinds for end in ("safetensors", "json")]


# ---------------------------------------------------------------- keeping one


def keep(everything: Params, name: str, commit: str | None = None) -> Path:
    """Copies agent `name`, which has been scored, into pretrained/; returns its folder.

    An earlier agent of this name stays until the new one is whole: a kill leaves one of the two, and the next call
    clears up.

    Args:
        commit: a commit-ish of the repository that made the agent; None for what its lineage says.
    Raises:
        UserError: there is no such agent, it has no score, git does not know `commit`, without it the lineage has no
            commit or doubts, or agents that are kept here have another V or M of this one.
        DamagedData: a model is not whole, or a stage behind the score has no summary here.
    """
    tau = everything.entry("agents", name).tau
    if not (RUNS / name / "evaluate" / "scores.json").exists():
        raise UserError(f"{name} has no score yet: run `wm run {name}` first")
    behind = lineage.trace(name)
    made = _record(behind, _commit(behind, commit), tau)
    evolve = _step(behind, "evolve")
    starts = next(Path(path) for path in evolve.step.inputs if path.endswith("/train_mdn"))
    agent = (weights.VAE_KIND, weights.MDNRNN_KIND, weights.CONTROLLER_KIND)
    sources = {**dict.fromkeys(agent, Path(evolve.step.folder)), weights.STARTS_KIND: starts}
    sources |= {kind: Path(evolve.step.folder) for kind in KNOWN if weights.exists(Path(evolve.step.folder), kind)}
    # whole, or an error before anything is written
    digests = {kind: weights.load(source, kind)[0]["sha256"] for kind, source in sources.items()}
    models = {kind: digests[kind] for kind in MODELS}
    if holder := _holder(name, models):
        made["models"] = {"from": holder, **models}
        sources = {weights.CONTROLLER_KIND: sources[weights.CONTROLLER_KIND]}

    target, new = FOLDER / name, _beside(name, "begun")
    shutil.rmtree(new, ignore_errors=True)  # of an earlier call, that was killed
    new.mkdir(parents=True)
    for path in (path for kind, source in sources.items() for path in _files(source, [kind])):
        shutil.copyfile(path, new / path.name)
    shutil.copyfile(RUNS / name / "evaluate" / "scores.json", new / "scores.json")
    files.write_record(new / "made.json", made)
    files.replace_folder(new, target)
    return target


def record(name: str, tau: float) -> dict[str, Any]:
    """What made agent `name` of params.yaml, as made.json says it.

    Raises:
        UserError: its lineage has no commit, or doubts; or it has no score.
        DamagedData: a stage behind the score has no summary here.
    """
    if not (RUNS / name / "evaluate" / "scores.json").exists():
        raise UserError(f"{name} has no score yet")
    behind = lineage.trace(name)
    return _record(behind, _commit(behind, None), tau)


def _holder(name: str, models: Mapping[str, str]) -> str:
    """The kept agent with which these V and M lie already; empty if they are to lie with agent `name`.

    Args:
        models: kind -> sha256.
    """
    records = {path.parent.name: path for path in sorted(FOLDER.glob("[!.]*/made.json")) if path.parent.name != name}
    holder = ""
    for other, path in records.items():
        with _kept_by_git(path.parent):
            shared = files.read_record(path).get("models")
            if shared and shared["from"] == name:
                if {"from": name, **models} != shared:
                    raise UserError(
                        f"{path.parent} has V and M of {FOLDER / name}, and {name} has others now: "
                        f"delete {path.parent}, and keep {other} again after {name}"
                    )
                return ""
            own = {} if shared else {kind: files.read_record(path.parent / f"{kind}.json")["sha256"] for kind in MODELS}
        if own == models:
            holder = holder or other
    return holder


def _beside(name: str, part: str) -> Path:
    """A folder for the time of a `keep`: git ignores it, and no agent's name begins with a dot."""
    return FOLDER / f".{name}.{part}"


def _commit(behind: Lineage, asked: str | None) -> str:
    """The full hash of the commit that made it."""
    if asked is not None:
        if commit := gitfiles.full_hash(asked):
            return commit
        raise UserError(f"--commit {asked!r} is no commit that git knows here: look at `git log`, or run `git fetch`")
    if behind.doubts:
        raise UserError(
            f"it is not certain which commit made {behind.name} ({'; '.join(behind.doubts)}): name it with --commit"
        )
    return behind.commit


def _record(behind: Lineage, commit: str, tau: float) -> dict[str, Any]:
    """What made.json says.

    Args:
        tau: where the record of `evolve` has none.
    Returns:
        {"name", "world", "commit", "command" (that makes it again), "tau", "experiment": {"evaluate": numbers},
        "stages": of every round, the first first, {"address", "commit" (empty if unknown), "numbers" (as params.yaml
        had them; the rest are the commit's defaults), "output" (DVC's md5), "summary"},
        "processor": that scored it, as MLflow says, else this one, "packages": {name: version} installed here};
        where V and M lie with another agent, `keep` adds "models": {"from": its name, kind: sha256}
    """
    evaluation, name = _step(behind, "evaluate"), behind.name
    world = files.read_json(Path(evaluation.step.folder, "scores.json"))["world"]
    numbers = {key: value for key, value in evaluation.step.numbers.items() if key not in ("world", "seed")}
    try:
        config = EvaluateConfig(**numbers)
    except ValidationError:
        raise UserError(
            f"{name} was scored with numbers that `evaluate` does not take today ({numbers}): "
            f"run `dvc repro evaluate@{name}` first"
        ) from None
    machine = (evaluation.run or {}).get("machine") or provenance.machine()
    return {
        "name": name,
        "world": world,
        "commit": commit,
        "command": f"git checkout {commit} && python -m flows.pipeline {name}",
        "tau": _step(behind, "evolve").step.numbers.get("tau", tau),
        "experiment": {"evaluate": config.model_dump()},
        "stages": [_stage(made) for made in behind.steps],
        "processor": processor(machine),
        "packages": {package: version(package) for package in (*PACKAGES, *PACKAGES_OF.get(world, ()))},
    }


def _stage(made: Made) -> dict[str, Any]:
    step = made.step
    return {
        "address": step.address,
        "commit": made.commit,
        "numbers": step.numbers,
        "output": dvcfiles.md5(step.folder) if made.elsewhere else step.output,
        "summary": files.read_json(Path(step.folder, "summary.json")),
    }


def _step(behind: Lineage, stage: str) -> Made:
    """The agent's own `evolve` or `evaluate`."""
    return next(made for made in behind.steps if made.step.address == f"{stage}@{behind.name}")


def processor(machine: str) -> str:
    """Of `provenance.machine`'s text, which goes on with the number of cores."""
    return re.split(r", \d+ cores\b", machine)[0]


def version(package: str) -> str:
    """Of an installed package; "none" where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
