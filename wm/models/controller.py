"""C: one linear layer from what V and M know to an action (paper, section 2.3 and A.3).

A controller is a flat vector of parameters, because that is what CMA-ES evolves: [W (A x D) row by row, b (A)], or,
with a hidden layer of U tanh units, [W1 (U x D), b1 (U), W2 (A x U), b2 (A)]. Shapes: B batch, P parameters,
D inputs, A action.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm.core import weights


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a flat vector is read as a controller.

    Attributes:
        inputs: D, numbers that C reads: the sizes of the states it is given, in order.
        actions: A.
        bias: whether the layer (the last one, if there is a hidden layer) has a bias.
        hidden: tanh units between (paper's ablation: 40); 0 for the linear controller.
    """

    inputs: int
    actions: int
    bias: bool = True
    hidden: int = 0

    @property
    def size(self) -> int:
        """P: 867 for CarRacing's [z, h], 1088 for TakeCover's [z, c, h]."""
        last = (self.hidden or self.inputs) + int(self.bias)
        return self.actions * last + (self.hidden * (self.inputs + 1) if self.hidden else 0)

    def apply(self, params: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Raw outputs [B, A] of B controllers, params [B, P], each on its own features [B, D]; all float32."""
        count, start = len(params), 0
        if self.hidden:
            end = self.hidden * self.inputs
            weight = params[:, :end].reshape(count, self.hidden, self.inputs)
            start = end + self.hidden
            features = np.tanh(np.matmul(weight, features[:, :, None])[:, :, 0] + params[:, end:start])
        end = start + self.actions * features.shape[1]
        weight = params[:, start:end].reshape(count, self.actions, features.shape[1])
        out = np.matmul(weight, features[:, :, None])[:, :, 0]
        return out + params[:, end : end + self.actions] if self.bias else out

    def shift(self, params: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Parameters [B, P] that make of inputs which are `offset` [D] less what `params` make of them; in float64.

        The first layer's biases take up W offset; `shift(…, -offset)` is the way back.

        Raises:
            ValueError: an offset, and no bias to take it up.
        """
        params, width = np.array(params, np.float64), self.hidden or self.actions
        if not np.any(offset):
            return params
        if not (self.bias or self.hidden):
            raise ValueError("without a bias there is nothing that takes up an offset")
        end = width * self.inputs
        taken = params[:, :end].reshape(-1, width, self.inputs) @ np.asarray(offset, np.float64)
        params[:, end : end + width] += taken
        return params


@dataclass(frozen=True)
class ControllerSpec:
    """What the controllers of a search have in common.

    Attributes:
        inputs: the states that C reads, of "z", "h" and "c", in C's order.
        layout: how a flat vector is read as C.
    """

    inputs: tuple[str, ...]
    layout: Layout


def save_controller(
    params: np.ndarray, layout: Layout, world: str, inputs: tuple[str, ...], folder: Path, **about: Any
) -> None:
    """Writes controller.safetensors (params [P] float32) and controller.json; `about` is kept in the JSON."""
    tensors = {"params": torch.from_numpy(np.ascontiguousarray(params, np.float32))}
    weights.save(
        folder,
        weights.CONTROLLER_KIND,
        tensors,
        {"world": world, "inputs": list(inputs), "layout": vars(layout), **about},
    )


def load_controller(folder: Path) -> tuple[np.ndarray, Layout, dict[str, Any]]:
    """params [P] float32, its layout, and the JSON beside it.

    Raises:
        DamagedData: a file is missing or not what its checksum says.
    """
    about, tensors = weights.load(folder, weights.CONTROLLER_KIND)
    return tensors["params"].numpy(), Layout(**about["layout"]), about
