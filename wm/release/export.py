"""An agent as files that any ONNX runtime loads: four graphs and `agent.json`, which says how they go together.

`agent.json` describes everything that is not inside a graph: names and shapes, how a picture of the world becomes a
frame, what an action is, which z C reads, and how a dream goes on (start, sampling, end, reward). The page of
`wm/release/demo.py` reads the same description and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm import params as parameters
from wm.core import files, weights
from wm.core.errors import UserError
from wm.dream.engine import default_reward
from wm.models.mdnrnn import LOG_SIGMA_FLOOR
from wm.play import agent as agents
from wm.play.agent import Agent
from wm.release import onnx_models, pretrained
from wm.release.onnx_models import OnnxModel
from wm.run import RUNS
from wm.worlds.base import FRAME_SHAPE

ABOUT = "agent.json"


@dataclass(frozen=True)
class Place:
    """Where an agent's files lie.

    Attributes:
        name: what it is called.
        folder: of V, M and C.
        starts: the folder of the first frames that its dreams start from.
        tau: the temperature of its dreams.
    """

    name: str
    folder: Path
    starts: Path
    tau: float


def find(name: str) -> Place:
    """An agent by its folder (pretrained/car_racing) or by its name in params.yaml.

    Raises:
        UserError: there is none, or it has not been evolved.
        DamagedData: one of its records is not whole.
    """
    folder = weights.packaged(Path(name))
    if weights.exists(folder, weights.CONTROLLER_KIND):
        if parameters.FILE.exists():
            parameters.load()  # its world may be one that only params.yaml knows
        about = files.read_record(folder / f"{weights.CONTROLLER_KIND}.json")
        called, tau = folder.resolve().name, about.get("tau")
        if (folder / "made.json").exists():
            tau, folder = files.read_record(folder / "made.json")["tau"], pretrained.whole(folder)
        return Place(called, folder, folder, float(tau or 1.0))
    entry = parameters.load().entry("agents", name)
    folder = RUNS / name / "evolve"
    if not weights.exists(folder, weights.CONTROLLER_KIND):
        raise UserError(f"there is no agent in {folder}: run `dvc repro evolve@{name}` first")
    return Place(name, folder, RUNS / entry.model / "train_mdn", entry.tau)


def export(place: Place, out: Path) -> str:
    """Writes the four graphs and agent.json into the folder `out`, which is whole or not there.

    Returns:
        a sentence a file: size and the largest difference from torch.
    Raises:
        UserError: `out` is there and not an earlier export, packages are missing, or a graph is not exact.
        DamagedData: the agent is not whole.
    """
    if out.exists() and not (out / ABOUT).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and is no exported agent: name another folder")
    agent, params, about = agents.load(place.folder)
    made = onnx_models.make(agent, params)
    new, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    for left_behind in (new, old):
        shutil.rmtree(left_behind, ignore_errors=True)
    new.mkdir(parents=True)
    for name, model in made.items():
        files.write_bytes(new / f"{name}.onnx", model.data)
    files.write_record(new / ABOUT, describe(place, agent, about, made))
    if out.exists():
        os.replace(out, old)
    os.replace(new, out)
    shutil.rmtree(old, ignore_errors=True)
    lines = [f"{out}: {place.name} of {agent.world.spec.name}"]
    for name, model in made.items():
        errors = ", ".join(f"{output} {error:.1g}" for output, error in model.errors.items())
        lines.append(f"  {name}.onnx  {len(model.data) / 1e6:.2f} MB  differs from torch by: {errors}")
    return "\n".join(lines)


def describe(place: Place, agent: Agent, about: dict[str, Any], made: dict[str, OnnxModel]) -> dict[str, Any]:
    """agent.json: what is known of an agent beside its graphs; `about` is controller.json."""
    low, high = agent.world.action_bounds
    spec, mdnrnn = agent.world.spec, agent.mdnrnn
    return {
        "format": "world-models agent 1",
        "name": place.name,
        "world": spec.name,
        "sizes": {
            "z": mdnrnn.z_size,
            "h": mdnrnn.config.hidden,
            "act": spec.action_size,
            "mixtures": mdnrnn.config.mixtures,
        },
        "graphs": {name: _graph(name, model) for name, model in made.items()},
        "frame": {
            "shape": list(FRAME_SHAPE),
            "order": "rows, columns, red green blue; uint8",
            "picture": dict(agent.world.about.picture),
        },
        "action": {
            "names": list(agent.world.about.actions),
            "low": np.asarray(low).tolist(),
            "high": np.asarray(high).tolist(),
            "transform": "inside controller.onnx: `act` is in the world's action space, `out` is before that",
        },
        "z": {
            "rule": "sample" if about["sampled"] else "mean",
            "mean": "z = mu",
            "sample": "z = mu + exp(logvar / 2) * n, n standard normal, new at each step",
        },
        "controller_reads": list(agent.inputs),
        "step": [
            "z from encoder(frame) by the rule above; h = c = 0 and restart = 1 at an episode's first frame",
            "act from controller(the states in controller_reads)",
            "h, c from memory(z, act, h, c): h_next, c_next; restart = 0 from then on",
        ],
        "dream": _dream(place, agent, about),
        "steps_a_second": spec.fps,
    }


def _graph(name: str, model: OnnxModel) -> dict[str, Any]:
    digest = hashlib.sha256(model.data).hexdigest()
    ports = {"inputs": model.inputs, "outputs": model.outputs}
    return {"file": f"{name}.onnx", "sha256": digest, "bytes": len(model.data), "errors": model.errors, **ports}


def _dream(place: Place, agent: Agent, about: dict[str, Any]) -> dict[str, Any]:
    """How a dream goes on: the rules of `wm.gym.dream.Dreams`, as data."""
    return {
        "tau": place.tau,
        "max_steps": agent.world.spec.max_steps,
        "start": "z = mu + exp(logvar / 2) * n of a stored first frame; h = c = 0",
        "sampling": [
            "per dimension: weights softmax(log_pi / tau) over the components; the component is the first whose "
            "cumulative weight reaches a number drawn uniformly from [0, 1)",
            "next z = mu + exp(log_sigma) * sqrt(tau) * n of that component, n standard normal",
        ],
        "log_sigma_floor": LOG_SIGMA_FLOOR,
        "end": _end(agent, about),
        # "sample": the z that M reads too; "mean": the mixture's mean at tau, at the first frame V's mean
        "controller_z": "sample" if about["sampled"] else "mean",
        "reward": default_reward(agent.mdnrnn, None),
    }


def _end(agent: Agent, about: dict[str, Any]) -> dict[str, Any]:
    """When a dream ends. "threshold": where the logit `done` exceeds `logit`; "drawn": with probability
    sigmoid(done - shift), which is M's p(end) in both. A dream to be looked at is one of those whose expectation an
    agent was evolved with."""
    if agent.mdnrnn.done is None:
        return {"rule": "none"}
    shift = {"shift": agent.mdnrnn.end_shift}
    if about.get("ends", "threshold") == "threshold":  # without the key: an agent made when this was the only rule
        return {"rule": "threshold", "logit": 0.0, **shift}
    return {"rule": "drawn", **shift}
