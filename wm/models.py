"""V, M and C on disk: `<kind>.safetensors` and a JSON beside it with config, shapes, world and sha256. No pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from wm import files
from wm.controller import Layout
from wm.errors import DamagedData
from wm.mdnrnn import MDNConfig, MDNRNN
from wm.vae import VAE, VAEConfig

VAE_KIND, MDNRNN_KIND, CONTROLLER_KIND = "vae", "mdnrnn", "controller"


def save_vae(vae: VAE, world: str, folder: Path) -> None:
    """Writes vae.safetensors and vae.json into `folder`."""
    _save(folder, VAE_KIND, _state(vae), {"world": world, "config": vae.config.model_dump()})


def save_mdnrnn(mdnrnn: MDNRNN, world: str, folder: Path) -> None:
    """Writes mdnrnn.safetensors and mdnrnn.json into `folder`."""
    sizes = {"z_size": mdnrnn.z_size, "action_size": mdnrnn.action_size, "reads_restart": mdnrnn.reads_restart}
    _save(folder, MDNRNN_KIND, _state(mdnrnn), {"world": world, "config": mdnrnn.config.model_dump(), **sizes})


def save_controller(params: np.ndarray, layout: Layout, world: str, inputs: tuple[str, ...], folder: Path,
                    **about: Any) -> None:
    """Writes controller.safetensors (params [P] float32) and controller.json; `about` is kept in the JSON."""
    fields = {"world": world, "inputs": list(inputs), "layout": vars(layout), **about}
    _save(folder, CONTROLLER_KIND, {"params": np.ascontiguousarray(params, np.float32)}, fields)


def load_vae(folder: Path) -> VAE:
    """V from `folder`, checked, in evaluation mode.

    Raises:
        DamagedData: a file is missing or not what its checksum says.
    """
    about, tensors = _load(folder, VAE_KIND)
    vae = VAE(VAEConfig(**about["config"]))
    return _fill(vae, tensors)


def load_mdnrnn(folder: Path) -> MDNRNN:
    """M from `folder`, checked, in evaluation mode. Raises as `load_vae`."""
    about, tensors = _load(folder, MDNRNN_KIND)
    mdnrnn = MDNRNN(MDNConfig(**about["config"]), about["z_size"], about["action_size"], about["reads_restart"])
    return _fill(mdnrnn, tensors)


def load_controller(folder: Path) -> tuple[np.ndarray, Layout, dict[str, Any]]:
    """params [P] float32, its layout, and the JSON beside it. Raises as `load_vae`."""
    about, tensors = _load(folder, CONTROLLER_KIND)
    return tensors["params"].numpy(), Layout(**about["layout"]), about


def exists(folder: Path, kind: str) -> bool:
    """Whether `folder` holds a model of that kind; the first round's predecessor (runs/zero) does not."""
    return (Path(folder) / f"{kind}.json").is_file()


def digest(folder: Path, kind: str) -> str:
    """The sha256 of the weights in `folder`."""
    return files.read_json(Path(folder) / f"{kind}.json")["sha256"]


def _state(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in module.state_dict().items()}


def _fill(module, tensors: dict[str, torch.Tensor]):
    module.load_state_dict(tensors)
    return module.eval().requires_grad_(False)


def _save(folder: Path, kind: str, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digest = files.write_bytes(folder / f"{kind}.safetensors", safetensors.numpy.save(arrays))
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    files.write_json(folder / f"{kind}.json", {"kind": kind, "sha256": digest, "shapes": shapes, **about})


def _load(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    folder = Path(folder)
    about = files.read_json(folder / f"{kind}.json")
    if about.get("kind") != kind:
        raise DamagedData(f"{folder / kind}.json does not describe a {kind}")
    files.check(folder / f"{kind}.safetensors", about["sha256"])
    return about, safetensors.torch.load_file(folder / f"{kind}.safetensors")
