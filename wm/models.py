"""V, M and C on disk: `<kind>.safetensors` and a JSON beside it with config, shapes, world and sha256. No pickle.

What a kind's JSON says is that kind's own business: see `save_vae`, `save_mdnrnn` and `save_controller`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from wm import files
from wm.errors import DamagedData

VAE_KIND, MDNRNN_KIND, CONTROLLER_KIND = "vae", "mdnrnn", "controller"


def save(folder: Path, kind: str, tensors: Mapping[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Writes `<kind>.safetensors` and `<kind>.json` into `folder`, which is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}
    digest = files.write_bytes(folder / f"{kind}.safetensors", safetensors.numpy.save(arrays))
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    files.write_json(folder / f"{kind}.json", {"kind": kind, "sha256": digest, "shapes": shapes, **about})


def load(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The JSON and the tensors of the model of that kind in `folder`.

    Raises:
        DamagedData: a file is missing or not what its checksum says.
    """
    folder = Path(folder)
    about = files.read_json(folder / f"{kind}.json")
    if about.get("kind") != kind:
        raise DamagedData(f"{folder / kind}.json does not describe a {kind}: run the stage that writes it again")
    files.check(folder / f"{kind}.safetensors", about["sha256"])
    return about, safetensors.torch.load_file(folder / f"{kind}.safetensors")


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The module with these weights, in evaluation mode, not asking for gradients."""
    module.load_state_dict(dict(tensors))
    return module.eval().requires_grad_(False)


def exists(folder: Path, kind: str) -> bool:
    """Whether `folder` holds a model of that kind; the first round's predecessor (runs/zero) does not."""
    return (Path(folder) / f"{kind}.json").is_file()
