"""A GPU that gives the same bits every time."""

from __future__ import annotations

import os

from wm.core.errors import UserError


def prepare(device: str, key: str) -> None:
    """Before a stage computes: PyTorch's deterministic algorithms on a GPU, and a warning where it has none.

    Args:
        device: "cpu", for which there is nothing to do, "cuda" or "cuda:1".
        key: where it was asked for, to name in an error.
    Raises:
        UserError: there is no such device.
    """
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            f"{key} is {device!r}, but this PyTorch finds no CUDA device: set it to cpu, or install a CUDA build of "
            "PyTorch"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a pass over memory that everything here overwrites
