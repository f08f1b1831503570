"""An agent as files that any ONNX runtime loads: four graphs and `agent.json`, which says how they go together.

`agent.json` describes everything that is not inside a graph: names and shapes, how a picture of the world becomes a
frame, what an action is, which z C reads, and how a dream goes on (start, sampling, end, reward). The page of
`wm/release/demo.py` reads the same description and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm.core import files
from wm.core.errors import UserError
from wm.dream.engine import default_reward
from wm.gym import dream
from wm.models.mdnrnn import LOG_SIGMA_FLOOR
from wm.play import agent as agents
from wm.play.agent import Agent
from wm.release import onnx_models
from wm.release.onnx_models import OnnxModel
from wm.release.places import Place
from wm.worlds.base import FRAME_SHAPE, World
from wm.worlds.by_id.actions import ChoiceActions

ABOUT = "agent.json"


def export(place: Place, out: Path) -> str:
    """Writes the four graphs and agent.json into the folder `out`, which is whole or not there.

    Returns:
        a sentence a file: size and the largest difference from torch.
    Raises:
        UserError: `out` is there and not an earlier export, packages are missing, or a graph is not exact.
        DamagedData: the agent is not whole.
    """
    with folder(out, ABOUT, "exported agent") as new:
        made = write(place, new)
    lines = [f"{out}: {place.name}"]
    for name, model in made.items():
        errors = ", ".join(f"{output} {error:.1g}" for output, error in model.errors.items())
        lines.append(f"  {name}.onnx  {len(model.data) / 1e6:.2f} MB  differs from torch by: {errors}")
    return "\n".join(lines)


def write(place: Place, folder: Path) -> dict[str, OnnxModel]:
    """The four graphs and agent.json in a folder that is there; the graphs."""
    agent, params, about = agents.load(place.folder)
    made = onnx_models.make(agent, params)
    for name, model in made.items():
        files.write_bytes(folder / f"{name}.onnx", model.data)
    files.write_record(folder / ABOUT, describe(place, agent, about, made))
    return made


@contextlib.contextmanager
def folder(out: Path, mark: str, what: str) -> Iterator[Path]:
    """A new folder to be filled inside the block, which then takes the place of `out`; nothing where the block fails.

    Args:
        mark: a file by which a folder shows that it is an earlier one of its kind, which may be replaced.
        what: that kind, for the sentence.
    Raises:
        UserError: `out` is there and something else.
    """
    if out.exists() and not (out / mark).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and is no {what}: name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        yield new
        files.plain_modes(new)
        files.replace_folder(new, out)


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
            "picture": dict(agent.world.description.picture),
        },
        "action": {
            "names": list(agent.world.description.actions),
            "low": np.asarray(low).tolist(),
            "high": np.asarray(high).tolist(),
            "choices": choices(agent.world),
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


def choices(world: World) -> list[int]:
    """How many numbers of an action belong to each choice, of which exactly one is 1; empty where numbers are free."""
    actions = getattr(world, "actions", None)
    return list(actions.counts) if isinstance(actions, ChoiceActions) else []


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
        "controller_z": dream.rules_of(about)["reads"],
        "reward": default_reward(agent.mdnrnn, None),
    }


def _end(agent: Agent, about: dict[str, Any]) -> dict[str, Any]:
    """When a dream ends. "threshold": where the logit `done` exceeds `logit`; "drawn": with probability
    sigmoid(done - shift), which is M's p(end) in both."""
    if agent.mdnrnn.done is None:
        return {"rule": "none"}
    rule = dream.rules_of(about)["ends"]
    return {"rule": rule, **({"logit": 0.0} if rule == "threshold" else {}), "shift": agent.mdnrnn.end_shift}
