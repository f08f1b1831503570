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

from wm.core import files
from wm.core.config import Config
from wm.core.errors import DamagedData, UserError

VAE_KIND, MDNRNN_KIND, CONTROLLER_KIND = "vae", "mdnrnn", "controller"
STARTS_KIND = "starts"
"""Where dreams start from, kept beside M."""
SURPRISE_V_KIND, SURPRISE_M_KIND = SURPRISE_KINDS = ("surprise_v", "surprise_m")
"""How surprising held-out frames are to V and to M (`wm.models.surprise`)."""


def save(folder: Path, kind: str, tensors: Mapping[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Writes `<kind>.safetensors` and `<kind>.json` into `folder`, which is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}
    digest = files.write_bytes(folder / f"{kind}.safetensors", safetensors.numpy.save(arrays))
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    files.write_record(folder / f"{kind}.json", {"kind": kind, "sha256": digest, "shapes": shapes, **about})


def load(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The JSON and the tensors of the model of that kind in `folder`.

    Raises:
        DamagedData: a file is missing or not what its checksum says.
    """
    folder = Path(folder)
    about = files.read_record(folder / f"{kind}.json")
    if about.get("kind") != kind:
        raise DamagedData(f"{folder / kind}.json does not describe a {kind}: run the stage that writes it again")
    files.check(folder / f"{kind}.safetensors", about["sha256"])
    return about, safetensors.torch.load_file(folder / f"{kind}.safetensors")


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The module with these weights, in evaluation mode, not asking for gradients."""
    module.load_state_dict(dict(tensors))
    return module.eval().requires_grad_(False)


def check_same(folder: Path, key: str, before: Config, now: Config) -> None:
    """Raises UserError where a round's model differs in shape from the one in `folder` that it continues."""
    for name, value in now.model_dump().items():
        if (earlier := getattr(before, name)) != value:
            raise UserError(
                f"{key}.{name} is {value!r}, and {earlier!r} in {folder}, which this round continues: "
                f"set it to {earlier!r}, or start with `after: zero`"
            )


def packaged(folder: Path) -> Path:
    """`folder`; where it is pretrained/NAME and not here, that agent as an installed wheel carries it."""
    folder = Path(folder)
    carried = Path(__file__).parents[1] / folder
    return carried if folder.parts[:1] == ("pretrained",) and not folder.exists() and carried.is_dir() else folder


def delete(folder: Path, kind: str) -> None:
    """Takes a model of that kind out of `folder`, if there is one."""
    for end in ("json", "safetensors"):
        (Path(folder) / f"{kind}.{end}").unlink(missing_ok=True)


def exists(folder: Path, kind: str) -> bool:
    """Whether `folder` holds a model of that kind; the first round's predecessor (runs/zero) does not."""
    return (Path(folder) / f"{kind}.json").is_file()
