"""V, M and agents as MLflow's registered models: their names, what they are made of, and how one is logged."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm.core import files
from wm.core import weights as stored
from wm.worlds.base import FRAME_SHAPE

OF_STAGE = {"train_vae": "vae", "train_mdn": "mdnrnn", "evaluate": "agent"}
"""Stage -> the kind of model that is registered when it has ended; an agent when it has been scored."""
PARTS = {"vae": ("vae",), "mdnrnn": ("mdnrnn",), "agent": ("vae", "mdnrnn", "controller")}
"""Kind -> the safetensors files, each with a JSON beside it, that it is made of."""
REQUIREMENTS = (
    "mlflow",
    "torch",
    "numpy",
    "safetensors",
    "pydantic",
    "filelock",
    "gymnasium",
    "opencv-python-headless",
    "box2d",  # CarRacing's: the agent knows its world, for the range of its actions
    "pygame-ce",
)
"""What the code inside a registered model imports; pinned to what made it."""


def is_trial(experiment: str) -> bool:
    """Whether an experiment's runs must stay out of the real ones' pages."""
    return experiment.endswith("smoke")


def model_name(world: str, experiment: str, kind: str) -> str:
    """Of the registered model of a kind (see PARTS)."""
    return f"{'smoke-' if is_trial(experiment) else ''}{world}-{kind}"


def model_id(version: Any) -> str:
    """The logged model of a registered version, whose source is `models:/<id>`."""
    return version.source.removeprefix("models:/")


def weights(kind: str, folder: Path) -> str:
    """The sha256 of one model's weights, or of the list of them where there are several."""
    digests = [files.sha256(folder / f"{part}.safetensors") for part in PARTS[kind]]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def log(kind: str, folder: Path, run: Mapping[str, Any], run_id: str) -> Any:
    """Logs the weights and their JSON in `folder`, with the code that reads them, as a pyfunc without a pickle.

    Args:
        run: a spool entry's run.json.
        run_id: MLflow's id of that run.
    Returns:
        MLflow's ModelInfo.
    """
    import mlflow

    package = Path(__file__).resolve().parents[1]
    pins = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        model, code = Path(scratch, "model"), Path(scratch, "wm")
        model.mkdir()
        for name in (f"{part}.{end}" for part in PARTS[kind] for end in ("safetensors", "json")):
            shutil.copyfile(folder / name, model / name)
        for known in stored.SURPRISE_KINDS if kind == "agent" else ():
            for path in folder.glob(f"{known}.*"):  # what surprises it, which older agents do not know
                shutil.copyfile(path, model / path.name)
        shutil.copytree(package, code, ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Failed to infer signature")  # it need not: here it is
            return mlflow.pyfunc.log_model(
                name=f"{run['name']}-{kind}",
                python_model=str(package / "release" / "agent_model.py"),
                artifacts={"model": str(model)},
                code_paths=[str(code)],
                signature=_signature(kind, folder),
                input_example=_example(kind, folder),
                pip_requirements=pins,
                model_type=kind,
                params={name: str(value)[:500] for name, value in run["config"].items()},
            )


def _signature(kind: str, folder: Path) -> Any:
    """What goes in and comes out (`wm.release.agent_model`) of the model in `folder`, as MLflow states it."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # MLflow's word for "whatever it is": an array [B, 64, 64, 3], or [B] texts.
    frames = TensorSpec(np.dtype("object"), (-1,), "frames")

    def real(*names: str) -> list[Any]:
        return [TensorSpec(np.dtype("float32"), (-1, -1), name) for name in names]

    mixture = [TensorSpec(np.dtype("float32"), (-1, -1, -1), name) for name in ("log_pi", "mu", "log_sigma")]
    whole = [TensorSpec(np.dtype("int64"), (-1,), name) for name in ("seed", "step")]
    told = ["surprise"] if all(stored.exists(folder, known) for known in stored.SURPRISE_KINDS) else []
    inputs, outputs = {
        "vae": ([frames], real("mu", "logvar")),
        "mdnrnn": (real("z", "act", "state"), [*mixture, *real("state")]),
        "agent": ([frames, *real("state"), *whole], real("actions", "state", *told)),
    }[kind]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _example(kind: str, folder: Path) -> dict[str, np.ndarray]:
    """A request at an episode's first step, of one grey frame."""
    grey = base64.b64encode(np.full(FRAME_SHAPE, 128, np.uint8).tobytes()).decode()
    frames, state = {"frames": np.array([grey], object)}, {"state": np.zeros((1, 0), np.float32)}
    if kind == "vae":
        return frames
    if kind == "agent":
        return {**frames, **state, "seed": np.array([0]), "step": np.array([0])}
    about = files.read_record(folder / "mdnrnn.json")
    sizes = {"z": about["z_size"], "act": about["action_size"]}
    return {**{name: np.zeros((1, size), np.float32) for name, size in sizes.items()}, **state}
