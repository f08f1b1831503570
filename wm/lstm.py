"""The LSTM of M: one bias vector a gate (torch.nn.LSTM has two), states zeroed where an episode starts.

Shapes: B batch, T time, I input, H hidden. Gates are laid out [input, forget, cell, output] along 4*H.

Why by hand: states must be zeroed in the middle of a window, which torch.nn.LSTM cannot do, and a loop under autograd
costs a node for every operation of every step. Here the backward pass through time is written out, and what does not
depend on the recurrence (the input's product, the weights' gradients) is one large matrix product each.
"""

from __future__ import annotations

import math

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
        bias[hidden:2 * hidden] = 1.0  # the forget gate starts open (Jozefowicz et al. 2015)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], restart: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A window: x [B, T, I], (h, c) each [B, H], restart [B, T] -> h of every step [B, T, H], the last (h, c).

        Where restart is 1, the state before that step is zero.
        """
        gates_x = torch.addmm(self.bias, x.transpose(0, 1).flatten(0, 1), self.weight_x).unflatten(0, (x.shape[1], -1))
        keep = (1.0 - restart.to(x.dtype)).t().unsqueeze(-1).contiguous()  # [T, B, 1]
        h, c = _Recurrence.apply(gates_x, self.weight_h, *state, keep)
        return h.transpose(0, 1), (h[-1], c)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step: x [B, I], (h, c) each [B, H] -> the next (h, c)."""
        h, c = state
        gates = torch.addmm(torch.addmm(self.bias, x, self.weight_x), h, self.weight_h)
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class _Recurrence(torch.autograd.Function):
    """The part of the LSTM that must run step by step. Time comes first: gates_x [T, B, 4*H], keep [T, B, 1]."""

    @staticmethod
    def forward(ctx, gates_x: Tensor, weight_h: Tensor, h0: Tensor, c0: Tensor, keep: Tensor):  # noqa: D102
        steps, hidden = len(gates_x), h0.shape[-1]
        gates = torch.empty_like(gates_x)
        cells = gates_x.new_empty(steps + 1, *c0.shape)
        hs = gates_x.new_empty(steps + 1, *h0.shape)
        hs[0], cells[0] = h0, c0
        tanh_c = torch.empty_like(cells[1:])
        kept_any = bool((keep == 0).any())
        for t in range(steps):
            h, c = hs[t], cells[t]
            if kept_any:
                h, c = h * keep[t], c * keep[t]
            a = torch.addmm(gates_x[t], h, weight_h, out=gates[t])
            a[:, :2 * hidden].sigmoid_()
            a[:, 2 * hidden:3 * hidden].tanh_()
            a[:, 3 * hidden:].sigmoid_()
            i, f, g, o = a.chunk(4, dim=-1)
            torch.addcmul(f * c, i, g, out=cells[t + 1])
            torch.mul(o, torch.tanh(cells[t + 1], out=tanh_c[t]), out=hs[t + 1])
        ctx.save_for_backward(gates, cells, tanh_c, hs, weight_h, keep)
        return hs[1:], cells[-1].clone()

    @staticmethod
    def backward(ctx, grad_hs: Tensor, grad_c: Tensor):  # noqa: D102
        gates, cells, tanh_c, hs, weight_h, keep = ctx.saved_tensors
        steps, hidden = len(gates), cells.shape[-1]
        weight_t = weight_h.t().contiguous()
        grad_gates = torch.empty_like(gates)
        # The derivatives of all gates at once: s(1 - s) for the sigmoids, 1 - g^2 for the tanh.
        dh = torch.zeros_like(cells[0])
        dc = grad_c.clone()
        for t in range(steps - 1, -1, -1):
            i, f, g, o = gates[t].chunk(4, dim=-1)
            d = grad_gates[t]
            dh = dh + grad_hs[t]
            tc = tanh_c[t]
            do = dh * o  # dh * o, used twice
            dc = torch.addcmul(dc, do, 1.0 - tc * tc)
            c_before = cells[t] * keep[t]
            torch.mul(dc * g, i * (1.0 - i), out=d[:, :hidden])
            torch.mul(dc * c_before, f * (1.0 - f), out=d[:, hidden:2 * hidden])
            torch.mul(dc * i, 1.0 - g * g, out=d[:, 2 * hidden:3 * hidden])
            torch.mul(do * tc, 1.0 - o, out=d[:, 3 * hidden:])
            dh = torch.mm(d, weight_t).mul_(keep[t])
            dc = (dc * f).mul_(keep[t])
        h_before = (hs[:-1] * keep).flatten(0, 1)
        grad_weight = torch.mm(h_before.t(), grad_gates.flatten(0, 1))
        return grad_gates, grad_weight, dh, dc, None
