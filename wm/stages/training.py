"""One training loop for V and M: batches in, loss curve and checkpoints out, resumable to the bit.

A task knows what to train and on what (`wm.stages.train_vae`, `wm.stages.train_mdn`); the loop knows when to step,
when to look at held-out episodes, when to write a checkpoint, and when to stop.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from wm.core.checkpoints import Checkpoints, Tensors
from wm.core.config import Config
from wm.core.errors import UserError
from wm.core.journal import Journal, bar

CHECKPOINTS = 10
"""Parts of a training, at the end of each of which a checkpoint is written,"""
CHECKPOINT_SECONDS = 60.0
"""and so it is after so long without one. Neither decides a bit of the result."""


class TrainConfig(Config):
    """How long and how fast to train."""

    steps: int = Field(gt=0, description="optimiser steps")
    batch: int = Field(100, gt=0, description="frames (V) or parallel sequences (M) a step (paper: 100)")
    learning_rate: float = Field(
        1e-3, gt=0, description="Adam's step size at the start (released code: V 1e-4, M 1e-3)"
    )
    learning_rate_end: float = Field(1e-5, gt=0, description="Adam's step size at the last step; it falls as a cosine")
    clip: float = Field(0.0, ge=0, description="gradients are clipped by value to [-clip, clip] (M: 1); 0 for never")
    report_every: int = Field(50, gt=0, description="steps between two points of the training curve")
    held_out_every: int = Field(500, gt=0, description="steps between two looks at held-out episodes")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N; never chosen for you")
    threads: int = Field(2, gt=0, description="CPU threads; another number may change the last bits of the result")


class Task(Protocol):
    """What the loop asks of the thing that is trained."""

    model: nn.Module

    def step(self) -> tuple[Tensor, dict[str, Tensor], str]:
        """The next batch's loss, metrics, and the batch's name for error messages."""

    def held_out(self) -> dict[str, float]:
        """Metrics on held-out episodes, the same noise each time."""

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Everything about data and randomness that the next step needs."""

    def restore(self, tensors: Tensors, state: dict[str, Any]) -> None:
        """The inverse of `state`."""


def fit(task: Task, config: TrainConfig, checkpoints: Checkpoints, journal: Journal, desc: str) -> None:
    """Trains `task.model` for `config.steps` steps, going on from the newest checkpoint if there is one.

    Raises:
        UserError: the loss is not finite; names the step and batch, before the step is taken.
    """
    weights = [dense(parameter.detach()) for parameter in task.model.parameters()]
    optimizer = torch.optim.Adam(weights, lr=config.learning_rate, fused=True)
    done, sums, counted = _resume(task, optimizer, checkpoints, journal)
    progress = bar(config.steps, desc, "step", initial=done)
    began, timed = time.perf_counter(), 0
    every, saved = -(-config.steps // CHECKPOINTS), time.monotonic()
    for step in range(done + 1, config.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        metrics = step_once(task, optimizer, config, step)
        counted, timed = counted + 1, timed + 1
        for name, value in metrics.items():
            sums[name] = sums[name] + value if name in sums else value
        last = step == config.steps
        look = step % config.held_out_every == 0 or last
        if step % config.report_every == 0 or look:
            # In the order of this step's metrics: sums that a checkpoint gave back come in another.
            line = {f"train/{name}": float(sums[name]) / counted for name in metrics}
            line["learning_rate"] = learning_rate(config, step)
            seconds = time.perf_counter() - began
            if look:
                task.model.eval()
                line |= {f"held_out/{name}": value for name, value in task.held_out().items()}
                task.model.train()
            journal.log(step, line, {"steps_per_second": timed / seconds})
            progress.set_postfix(loss=f"{line['train/loss']:.4g}", refresh=False)
            sums, counted, timed, began = {}, 0, 0, time.perf_counter()
        # After the last step too: what comes then may fail, and be tried again.
        if last or step % every == 0 or time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(task, optimizer, checkpoints, step, sums, counted)
            saved = time.monotonic()
        progress.update()
    progress.close()
    task.model.eval()


def learning_rate(config: TrainConfig, step: int) -> float:
    """From `learning_rate` at step 1 to `learning_rate_end` at the last step, along half a cosine."""
    part = (step - 1) / max(1, config.steps - 1)
    end = min(config.learning_rate_end, config.learning_rate)
    return end + (config.learning_rate - end) * 0.5 * (1.0 + float(np.cos(np.pi * part)))


def step_once(task: Task, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> dict[str, Tensor]:
    """One optimiser step; returns the batch's loss and metrics, detached scalars.

    Args:
        optimizer: of the model's parameters as `dense` shows them.
        step: for error messages.
    Raises:
        UserError: the loss is not finite; the model is as it was.
    """
    loss, metrics, batch = task.step()
    if not torch.isfinite(loss):
        raise UserError(
            f"the loss became {loss.item()} at step {step}, on {batch}; the model was not changed by it: "
            "lower learning_rate, or look at that batch"
        )
    task.model.zero_grad(set_to_none=True)
    loss.backward()
    if config.clip:
        torch.nn.utils.clip_grad_value_(task.model.parameters(), config.clip)
    for weight, parameter in zip(optimizer.param_groups[0]["params"], task.model.parameters(), strict=True):
        weight.grad = None if parameter.grad is None else dense(parameter.grad)
    optimizer.step()
    return {"loss": loss.detach(), **metrics}


def dense(tensor: Tensor) -> Tensor:
    """A view of a tensor, its axes in the order of memory. Fused Adam copies what is channels_last, moments too."""
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 and not tensor.is_contiguous() else tensor


def _save(
    task: Task,
    optimizer: torch.optim.Optimizer,
    checkpoints: Checkpoints,
    step: int,
    sums: dict[str, Tensor],
    counted: int,
) -> None:
    tensors, state = task.state()
    tensors = {f"task.{name}": array for name, array in tensors.items()}
    tensors |= {f"model.{name}": value.cpu().numpy() for name, value in task.model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value.cpu().numpy() for name, value in slots.items()}
    tensors |= {f"sums.{name}": value.cpu().numpy() for name, value in sums.items()}
    checkpoints.save(step, tensors, {"task": state, "counted": counted})


def _resume(
    task: Task, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints, journal: Journal
) -> tuple[int, dict[str, Tensor], int]:
    """Steps done, and the sums and count of what was not reported yet."""
    found = checkpoints.load()
    if found is None:
        journal.rewind(0)
        return 0, {}, 0
    tensors, state = found

    def part(prefix: str) -> Tensors:
        return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}

    task.model.load_state_dict({name: torch.from_numpy(array) for name, array in part("model.").items()})
    slots: dict[int, dict[str, Tensor]] = {}
    for name, array in part("adam.").items():
        index, slot = name.split(".")
        slots.setdefault(int(index), {})[slot] = torch.from_numpy(array)
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    task.restore(part("task."), state["task"])
    journal.rewind(state["step"])
    print(f"going on from the checkpoint at step {state['step']}")
    device = next(task.model.parameters()).device
    sums = {name: torch.from_numpy(array).to(device) for name, array in part("sums.").items()}
    return state["step"], sums, state["counted"]
