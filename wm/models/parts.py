"""A batch in as many parts as there are threads, each part on one thread of its own, forward and back.

The alternative is to split every operation over the threads; they then wait for each other thousands of times a step,
small operations are not split at all, and where another program takes a core for a moment all of them wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

VECTOR_FUNCTIONS = (
    *(torch.exp, torch.exp2, torch.expm1, torch.log, torch.log2, torch.log10, torch.log1p, torch.sqrt, torch.rsqrt),
    *(torch.sin, torch.cos, torch.tan, torch.asin, torch.acos, torch.atan, torch.sinh, torch.cosh, torch.tanh),
    *(torch.sigmoid, torch.erf, torch.erfc, torch.erfinv, torch.lgamma),
)
"""What PyTorch may compute with MKL's vector functions."""


def settle() -> None:
    """Calls each of them once.

    MKL 2024 decides in the first call of a process how it computes a function, and where two threads make that call at
    once, one of them may compute it with errors of 1e-4 instead of 1e-7 (pytorch/pytorch#188792): one training in a
    thousand or so would end with other bits than all the rest (`python -m bench.first_call`).
    """
    for number in (torch.tensor([0.5]), torch.tensor([0.5], dtype=torch.float64)):
        for function in VECTOR_FUNCTIONS:
            function(number)


settle()  # as V and M are imported, before there is a second thread


def count(batch: int, device: torch.device) -> int:
    """How many parts a batch is worth: the threads that PyTorch may use, on a CPU."""
    return min(batch, torch.get_num_threads()) if device.type == "cpu" and torch.is_grad_enabled() else 1


def slices(batch: int, parts: int) -> list[slice]:
    """The parts of a batch, as even as can be."""
    return [slice(batch * i // parts, batch * (i + 1) // parts) for i in range(parts)]


def summed(
    loss: Callable[[slice], tuple[Tensor, Any]], where: Sequence[slice], parameters: Sequence[Tensor]
) -> tuple[Tensor, list[Any]]:
    """The sum of the parts' losses, and what else each part returned.

    Args:
        loss: (scalar, anything without gradients) of a part; called on several threads at once.
        where: the parts.
        parameters: all tensors that the loss is to be differentiated by; nothing else gets a gradient.
    """
    if len(where) == 1:
        total, extra = loss(where[0])
        return total, [extra]
    extras: list[Any] = []
    return _Summed.apply(loss, where, extras, *parameters), extras


class _Summed(torch.autograd.Function):
    """The gradient is made with the loss, part by part, and added up in the parts' order."""

    @staticmethod
    def forward(ctx: Any, loss: Any, where: Any, extras: list[Any], *parameters: Tensor) -> Tensor:
        def work(part: slice) -> tuple[Tensor, Any, list[Tensor]]:
            with torch.enable_grad():
                value, extra = loss(part)
                return value.detach(), extra, list(torch.autograd.grad(value, parameters))

        with _one_thread_each():
            values, others, gradients = zip(*_pool(len(where)).map(work, where), strict=True)
        extras.extend(others)
        for more in gradients[1:]:
            torch._foreach_add_(gradients[0], more)
        ctx.save_for_backward(*gradients[0])
        return torch.stack(values).sum()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        one = grad_output.item() == 1.0  # as good as always
        return None, None, None, *(grad if one else grad * grad_output for grad in ctx.saved_tensors)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """MKL has one setting for the whole process, whatever a thread says of itself: with this thread's in force, each
    part's products would be split once more, over threads that get in each other's way."""
    mine = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(mine)


_POOLS: dict[int, ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    """All of its threads exist before it is used: a thread's setting is also the next new thread's, so one that came
    later would change how this thread computes, and with it the bits of the result."""
    if threads not in _POOLS:
        mine, together = torch.get_num_threads(), Barrier(threads + 1)
        pool = ThreadPoolExecutor(threads, "part", initializer=torch.set_num_threads, initargs=(1,))
        waiting = [pool.submit(together.wait) for _ in range(threads)]  # none is idle, so each submit starts a thread
        together.wait()
        for thread in waiting:
            thread.result()
        torch.set_num_threads(mine)
        _POOLS[threads] = pool
    return _POOLS[threads]
