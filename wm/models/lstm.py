"""The LSTM of M: one bias vector a gate (torch.nn.LSTM has two), states zeroed where an episode starts.

Shapes: B batch, T time, I input, H hidden. Gates are laid out [input, forget, cell, output] along 4*H.

Why by hand: states must be zeroed in the middle of a window, which torch.nn.LSTM cannot do, and a loop under autograd
costs a node for every operation of every step. Here the backward pass through time is written out, and what does not
depend on the recurrence (the input's product, the weights' gradients) is one large matrix product each.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class LSTM(nn.Module):
    """A single layer; 4*H*(I + H + 1) parameters."""

    def __init__(self, input_size: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        bound = 1.0 / math.sqrt(hidden)
        self.weight_x = nn.Parameter(torch.empty(input_size, 4 * hidden).uniform_(-bound, bound))
        self.weight_h = nn.Parameter(torch.empty(hidden, 4 * hidden).uniform_(-bound, bound))
        bias = torch.zeros(4 * hidden)
        bias[hidden : 2 * hidden] = 1.0  # the forget gate starts open (Jozefowicz et al. 2015)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], restart: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A window: x [B, T, I], (h, c) each [B, H], restart [B, T] -> h of every step [B, T, H], the last (h, c).

        Where restart is 1, the state before that step is zero.
        """
        h, state = self.unroll(x.transpose(0, 1), state, restart.t())
        return h.transpose(0, 1), state

    def unroll(self, x: Tensor, state: tuple[Tensor, Tensor], restart: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As `forward` with time first: x [T, B, I], restart [T, B] -> h [T, B, H], (h, c)."""
        x_one = torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=-1)
        weight_x = _reordered(torch.cat([self.weight_x, self.bias[None]]))
        h, c = _Recurrence.apply(x_one, weight_x, _reordered(self.weight_h), *state, 1.0 - restart.to(x.dtype))
        return h, (h[-1], c)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step: x [B, I], (h, c) each [B, H] -> the next (h, c)."""
        h, c = state
        gates = torch.addmm(torch.addmm(self.bias, x, self.weight_x), h, self.weight_h)
        i, f = torch.sigmoid(gates[..., : 2 * self.hidden]).chunk(2, dim=-1)
        g, o = gates[..., 2 * self.hidden :].chunk(2, dim=-1)
        c = torch.addcmul(f * c, i, torch.tanh(g))
        return torch.sigmoid(o) * torch.tanh(c), c


def _reordered(weight: Tensor) -> Tensor:
    """Gates as `_Recurrence` wants them, [cell, input, forget, output]: sigmoids side by side."""
    i, f, g, o = weight.chunk(4, dim=-1)
    return torch.cat([g, i, f, o], dim=-1)


class _Recurrence(torch.autograd.Function):
    """The whole window: x [T, B, I] (with a constant 1 for the bias), weights [I or H, 4*H], keep [T, B].

    What a step must wait for is little: a product and a few passes over [B, H]. All else (the input's product, the
    derivatives of the gates, the weights' gradients) is done for a few steps at once, while they are in the cache.
    """

    CHUNK = 8

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_x: Tensor, weight_h: Tensor, h0: Tensor, c0: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        steps, batch, hidden = len(x), len(h0), h0.shape[-1]
        gates = x.new_empty(steps, batch, 4 * hidden)
        cells, hs = x.new_empty(steps + 1, batch, hidden), x.new_empty(steps + 1, batch, hidden)
        tanh_c = x.new_empty(steps, batch, hidden)
        hs[0], cells[0] = h0, c0
        interrupted = (keep == 0).any(1).tolist()
        per_step = zip(
            gates,
            gates[..., :hidden],
            gates[..., hidden:],
            *gates[..., hidden:].chunk(3, -1),
            cells[1:],
            tanh_c,
            hs[1:],
            strict=True,
        )
        h, c = hs[0], cells[0]
        for t, (a, g, ifo, i, f, o, c_next, tc, h_next) in enumerate(per_step):
            if t % _Recurrence.CHUNK == 0:
                part = slice(t, t + _Recurrence.CHUNK)
                torch.mm(x[part].flatten(0, 1), weight_x, out=gates[part].flatten(0, 1))
            if interrupted[t]:
                h, c = h * keep[t, :, None], c * keep[t, :, None]
            torch.addmm(a, h, weight_h, out=a)
            g.tanh_()
            ifo.sigmoid_()
            torch.mul(f, c, out=c_next).addcmul_(i, g)
            torch.mul(o, torch.tanh(c_next, out=tc), out=h_next)
            h, c = h_next, c_next
        ctx.save_for_backward(x, gates, cells, tanh_c, hs, weight_x, weight_h, keep)
        ctx.interrupted = interrupted
        return hs[1:], cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, grad_hs: Tensor, grad_c: Tensor) -> tuple[Tensor | None, ...]:
        x, gates, cells, tanh_c, hs, weight_x, weight_h, keep = ctx.saved_tensors
        weight_t = weight_h.t().contiguous()
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight_x, grad_weight_h = torch.zeros_like(weight_x), torch.zeros_like(weight_h)
        dh, dc = torch.zeros_like(hs[0]), grad_c.clone()
        for start in range((len(x) - 1) // _Recurrence.CHUNK * _Recurrence.CHUNK, -1, -_Recurrence.CHUNK):
            part = slice(start, min(start + _Recurrence.CHUNK, len(x)))
            h_before, c_before = hs[part], cells[part]
            if any(ctx.interrupted[part]):
                h_before, c_before = h_before * keep[part, :, None], c_before * keep[part, :, None]
            factors, leak = _factors(gates[part], c_before, tanh_c[part], hs[part.start + 1 : part.stop + 1])
            dh = _chunk_backward(
                factors, leak, gates[part], grad_hs[part], keep[part], ctx.interrupted[part], weight_t, dh, dc
            )
            d = factors.flatten(0, 1)
            torch.addmm(grad_weight_h, h_before.flatten(0, 1).t(), d, out=grad_weight_h)
            torch.addmm(grad_weight_x, x[part].flatten(0, 1).t(), d, out=grad_weight_x)
            if grad_x is not None:
                torch.mm(d, weight_x.t(), out=grad_x[part].flatten(0, 1))
        return grad_x, grad_weight_x, grad_weight_h, dh, dc, None


def _factors(gates: Tensor, c_before: Tensor, tanh_c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """For some steps: what dc (of g, i, f) and dh (of o) are multiplied by to give the gradient before the activations,
    [T, B, 4*H], and what dh is multiplied by to give its part of dc, o (1 - tanh(c)^2), [T, B, H]."""
    hidden = h.shape[-1]
    sigmoids = gates[..., hidden:]
    factors = torch.empty_like(gates)
    torch.addcmul(sigmoids, sigmoids, sigmoids, value=-1.0, out=factors[..., hidden:])  # s (1 - s)
    (g, i, _, o), (of_g, of_i, of_f, of_o) = gates.chunk(4, -1), factors.chunk(4, -1)
    of_i.mul_(g)
    of_f.mul_(c_before)
    of_o.mul_(tanh_c)
    torch.addcmul(i, torch.mul(i, g, out=of_g), g, value=-1.0, out=of_g)  # i (1 - g^2)
    return factors, torch.addcmul(o, h, tanh_c, value=-1.0)


def _chunk_backward(
    factors: Tensor,
    leak: Tensor,
    gates: Tensor,
    grad_hs: Tensor,
    keep: Tensor,
    interrupted: list[bool],
    weight_t: Tensor,
    dh: Tensor,
    dc: Tensor,
) -> Tensor:
    """Back through some steps: turns factors into gradients of the gates and dc into that of the c before, in place;
    returns the gradient of the h before."""
    hidden = dh.shape[1]
    of_gif = factors[..., : 3 * hidden].unflatten(-1, (3, hidden))
    per_step = list(
        zip(
            factors, of_gif, factors[..., 3 * hidden :], leak, gates[..., 2 * hidden : 3 * hidden], grad_hs, strict=True
        )
    )
    dc_three = dc[:, None]
    for t in range(len(per_step) - 1, -1, -1):
        d, gif, o, from_h, f, grad_h = per_step[t]
        dh = dh.add_(grad_h)
        o.mul_(dh)
        dc.addcmul_(dh, from_h)
        gif.mul_(dc_three)
        dc.mul_(f)
        dh = torch.mm(d, weight_t, out=dh)
        if interrupted[t]:
            dh.mul_(keep[t, :, None])
            dc.mul_(keep[t, :, None])
    return dh
