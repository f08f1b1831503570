"""Where an agent lies: by its name in params.yaml, or in a folder, which may come from anywhere and is checked first.

A folder holds V, M, C and the first frames that dreams start from, as `pretrained/NAME` does and as `wm agent card`
writes them. Nothing in it is run: tensors are safetensors, the rest is JSON; and no byte of a tensor is read before
names, sizes and shapes are those of the models that the JSON describes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from wm import params as parameters
from wm import worlds
from wm.core import files, weights
from wm.core.errors import UserError
from wm.models.controller import Layout
from wm.models.mdnrnn import MDNRNN, MDNConfig
from wm.models.surprise import Reference
from wm.models.vae import VAE, VAEConfig
from wm.play import agent as agents
from wm.release import pretrained
from wm.run import RUNS

KINDS = (weights.VAE_KIND, weights.MDNRNN_KIND, weights.CONTROLLER_KIND, weights.STARTS_KIND)
MADE, SCORES = "made.json", "scores.json"
LARGEST = 4_000_000
"""Bytes of a JSON file that is read."""


@dataclass(frozen=True)
class Place:
    """Where an agent's files lie.

    Attributes:
        name: what it is called.
        folder: of V, M and C.
        model: of the model that it dreams with: `folder`, or runs/NAME.
        tau: the temperature of its dreams.
    """

    name: str
    folder: Path
    model: Path
    tau: float

    @property
    def starts(self) -> Path:
        """The folder of the first frames that its dreams start from."""
        return self.model / "train_mdn" if (self.model / "train_mdn").is_dir() else self.model

    @property
    def scores(self) -> dict[str, Any] | None:
        """What `evaluate` wrote, where it has been run.

        Raises:
            DamagedData: it is not whole.
        """
        for path in (self.folder / SCORES, RUNS / self.name / "evaluate" / SCORES):
            if path.is_file():
                return files.read_json(path)
        return None


def find(name: str, kept: bool = False) -> Place:
    """An agent by its name in params.yaml or by its folder (pretrained/car_racing, or one that `wm agent card` wrote).

    Args:
        kept: the name is that of an agent in pretrained/.
    Raises:
        UserError: there is none, it has not been evolved, or the folder holds something else than an agent.
        DamagedData: one of its files is not what its checksum says.
    """
    folder, here = weights.packaged(Path(name)), parameters.FILE.exists()
    known = name in (pretrained.names() if kept else parameters.load().agents if here else ())
    if folder.is_dir() and not known:
        return _in_folder(folder)
    if kept:
        return _in_folder(weights.packaged(pretrained.FOLDER / name) if known else pretrained.folder(name))
    if "/" in name:
        raise UserError(f"{name} is no folder: name one that holds an agent, or an entry of `agents` in params.yaml")
    entry = parameters.load().entry("agents", name)
    folder = RUNS / name / "evolve"
    if not weights.exists(folder, weights.CONTROLLER_KIND):
        raise UserError(f"there is no agent in {folder}: run `dvc repro evolve@{name}` first")
    return Place(name, folder, RUNS / entry.model, entry.tau)


def _in_folder(folder: Path) -> Place:
    if parameters.FILE.exists():
        parameters.load()  # its world may be one that only params.yaml knows
    called, parent = folder.resolve().name, folder.resolve().parent
    if parent in (pretrained.FOLDER.resolve(), pretrained.CARRIED.resolve()):
        folder = pretrained.whole(folder)  # V and M may lie with another agent of this repository
    own = folder.resolve().parent == pretrained.WHOLE.resolve()
    return Place(called, folder, folder, check(folder, own))


# ---------------------------------------------------------------- what a folder must be


class _Said(BaseModel):
    """What a JSON file must say at least; it may say more."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Model(_Said):
    world: str = Field(max_length=200)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Vae(_Model):
    kind: Literal["vae"]
    config: VAEConfig


class _Mdnrnn(_Model):
    kind: Literal["mdnrnn"]
    config: MDNConfig
    z_size: int = Field(gt=0, le=1024)
    action_size: int = Field(gt=0, le=1024)
    reads_restart: bool
    end_shift: float = 0.0


class _Layout(_Said):
    model_config = ConfigDict(extra="forbid", strict=True)
    inputs: int = Field(gt=0, le=20_000)
    actions: int = Field(gt=0, le=1024)
    bias: bool
    hidden: int = Field(ge=0, le=8192)


class _Controller(_Model):
    kind: Literal["controller"]
    inputs: list[Literal["z", "h", "c"]] = Field(min_length=1, max_length=3)
    layout: _Layout
    sampled: bool
    tau: float | None = Field(None, gt=0)
    ends: Literal["expected", "drawn", "threshold"] | None = None  # null: it never dreamed


class _Starts(_Model):
    kind: Literal["starts"]


class _Surprise(_Model):
    kind: Literal["surprise_v", "surprise_m"]


class _Made(_Said):
    tau: float = Field(gt=0)
    world: str
    commit: str = Field(pattern="^[0-9a-f]{40}$")
    processor: str = ""
    packages: dict[str, str] = {}
    models: Any = None
    experiment: dict[str, dict[str, Any]]


class _Scores(_Said):
    world: str
    mean: float
    episodes: int = Field(gt=0)
    scores: list[float] = Field(min_length=1)
    seeds: list[int]


SCHEMAS: dict[str, Any] = dict(zip(KINDS, (_Vae, _Mdnrnn, _Controller, _Starts), strict=True))


def check(folder: Path, own: bool = False) -> float:
    """Looks at a whole agent before it is used; returns the temperature of its dreams.

    Args:
        own: it is one of this repository's, whose record may name the agent that it shares V and M with.
    Raises:
        UserError: a file is missing, too large, or says something that no agent can be; names the file.
        DamagedData: a file is not what its checksum says.
    """
    said: dict[str, Any] = {kind: _read(folder / f"{kind}.json", schema) for kind, schema in SCHEMAS.items()}
    vae, mdnrnn, controller = (said[kind] for kind in KINDS[:3])
    _agree(folder, vae, mdnrnn, controller)
    for kind, shapes in _shapes(vae, mdnrnn, controller).items():
        _look(folder / f"{kind}.safetensors", shapes)
    for kind in KINDS:
        _, tensors = weights.load(folder, kind)
        if not all(np.isfinite(tensor.numpy()).all() for tensor in tensors.values()):
            raise UserError(f"{folder / kind}.safetensors holds numbers that are not finite: this is no trained model")
    for kind in weights.SURPRISE_KINDS:  # which older agents do not know
        if weights.exists(folder, kind):
            _read(folder / f"{kind}.json", _Surprise)
            _look(folder / f"{kind}.safetensors", {"values": [-1], "episode": [-1]}, ("F32", "F64", "I32", "I64"))
            Reference.load(folder, kind)
    agents.load(folder)
    return _records(folder, own) or controller.tau or 1.0


def _records(folder: Path, own: bool) -> float | None:
    """What the folder says of how the agent was made and scored, where it does; the temperature of its dreams."""
    tau, controller = None, files.read_record(folder / f"{weights.CONTROLLER_KIND}.json")
    if (folder / MADE).exists():
        made = _read(folder / MADE, _Made)
        if made.models and not own:
            raise UserError(f"{folder / MADE} says that V and M lie with another agent: get a folder that holds them")
        tau = made.tau
    if (folder / SCORES).exists():
        scores = _read(folder / SCORES, _Scores, record=False)
        if not len(scores.scores) == len(scores.seeds) == scores.episodes:
            raise UserError(f"{folder / SCORES} has another number of scores than of episodes or seeds")
        if scores.world != controller["world"]:
            raise UserError(f"{folder / SCORES} is of the world {scores.world}, and the agent of {controller['world']}")
    return tau


def _read(path: Path, schema: type[_Said], record: bool = True) -> Any:
    if not path.is_file():
        raise UserError(f"{path} is missing: {path.parent} does not hold a whole agent")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes: an agent's has a few thousand")
    try:
        content = files.read_record(path) if record else files.read_json(path)
        return schema.model_validate(content)
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be an agent's") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} says nothing that an agent can be: {where or 'it'}: {first['msg']}") from None


def _agree(folder: Path, vae: _Vae, mdnrnn: _Mdnrnn, controller: _Controller) -> None:
    """The three models are one agent, of a world that is known here."""
    if controller.world not in worlds.names():
        raise UserError(
            f"{folder} is an agent of the world {controller.world}, which nothing here plays: make it an entry of "
            f"`worlds` in params.yaml; there are {', '.join(worlds.names())}"
        )
    actions = worlds.get(controller.world).spec.action_size
    sizes = {"z": mdnrnn.z_size, "h": mdnrnn.config.hidden, "c": mdnrnn.config.hidden}
    reads = sum(sizes[name] for name in controller.inputs)
    for what, found, expected in (
        ("the world of V", vae.world, controller.world),
        ("the world of M", mdnrnn.world, controller.world),
        ("the length of M's z", mdnrnn.z_size, vae.config.z_size),
        ("the length of M's actions", mdnrnn.action_size, actions),
        ("the length of C's actions", controller.layout.actions, actions),
        ("what C reads", controller.layout.inputs, reads),
        ("how often C reads a state", len(set(controller.inputs)), len(controller.inputs)),
    ):
        if found != expected:
            raise UserError(f"{folder} is no whole agent: {what} is {found}, and the rest of it needs {expected}")


def _shapes(vae: _Vae, mdnrnn: _Mdnrnn, controller: _Controller) -> Mapping[str, dict[str, list[int]]]:
    """The names and shapes that the tensors of each file must have; -1 is any."""
    with torch.device("meta"):
        sizes = mdnrnn.z_size, mdnrnn.action_size, mdnrnn.reads_restart
        modules: dict[str, Any] = {
            weights.VAE_KIND: VAE(vae.config),
            weights.MDNRNN_KIND: MDNRNN(mdnrnn.config, *sizes),
        }
    found = {
        kind: {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
        for kind, module in modules.items()
    }
    found[weights.CONTROLLER_KIND] = {"params": [Layout(**controller.layout.model_dump()).size]}
    found[weights.STARTS_KIND] = {name: [-1, mdnrnn.z_size] for name in ("mu", "logvar")}
    return found


def _look(path: Path, shapes: dict[str, list[int]], kinds: tuple[str, ...] = ("F32",)) -> None:
    """Names, types and shapes in a safetensors file, from its header alone."""
    if not path.is_file():
        raise UserError(f"{path} is missing: {path.parent} does not hold a whole agent")
    try:
        with safe_open(path, "np") as tensors:
            found = {name: tensors.get_slice(name) for name in tensors.keys()}
            told = {name: (part.get_dtype(), part.get_shape()) for name, part in found.items()}
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file ({error}): get it again") from None
    if told.keys() != shapes.keys():
        odd = ", ".join(sorted(told.keys() ^ shapes.keys())[:3])
        raise UserError(f"{path} holds other tensors than the model that its JSON describes ({odd})")
    for name, expected in sorted(shapes.items()):
        dtype, shape = told[name]
        same = len(shape) == len(expected) and all(e in (-1, s) for s, e in zip(shape, expected, strict=True))
        if dtype not in kinds or not same or not math.prod(shape):
            wanted = [size if size >= 0 else "any" for size in expected]
            raise UserError(f"{path}: {name} is {dtype} {list(shape)}, and its JSON describes {kinds[0]} {wanted}")
