"""The LSTM against torch.nn.LSTM, restarts against separate windows, the written-out gradient against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wm.models.lstm import LSTM

INPUT, H = 5, 6
LENGTHS = [1, 7, 8, 19]  # around the number of steps whose gradient is made at once


def pair(dtype=torch.float64) -> tuple[LSTM, torch.nn.LSTM]:
    torch.manual_seed(0)
    ours, theirs = LSTM(INPUT, H).to(dtype), torch.nn.LSTM(INPUT, H, batch_first=True).to(dtype)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.weight_x.t())
        theirs.weight_hh_l0.copy_(ours.weight_h.t())
        theirs.bias_ih_l0.copy_(ours.bias)
        theirs.bias_hh_l0.zero_()
    return ours, theirs


def leaves(batch: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (batch, steps, INPUT), (batch, H), (batch, H)
    return tuple(torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


def step_by_step(lstm: LSTM, x: Tensor, h: Tensor, c: Tensor, restart: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As the equations read, for autograd to differentiate."""
    hs = []
    for t in range(x.shape[1]):
        keep = 1.0 - restart[:, t, None]
        h, c = lstm.step(x[:, t], (h * keep, c * keep))
        hs.append(h)
    return torch.stack(hs, 1), h, c


def test_parameters_and_the_open_forget_gate():
    lstm = LSTM(35, 256)
    assert sum(p.numel() for p in lstm.parameters()) == 4 * 256 * (35 + 256 + 1)
    assert lstm.bias[256:512].eq(1).all() and lstm.bias.count_nonzero() == 256


@pytest.mark.parametrize("steps", LENGTHS)
def test_a_window_is_torchs_lstm(steps):
    ours, theirs = pair()
    x, h0, c0 = leaves(3, steps)
    hs, (h, c) = ours(x, (h0, c0), torch.zeros(3, steps))
    expected, (their_h, their_c) = theirs(x, (h0[None], c0[None]))
    for mine, other in ((hs, expected), (h, their_h[0]), (c, their_c[0])):
        torch.testing.assert_close(mine, other)
    probe = torch.randn_like(hs)
    mine = torch.autograd.grad((hs * probe).sum() + c.sum(), [x, h0, c0, ours.weight_x, ours.weight_h, ours.bias])
    other = torch.autograd.grad(
        (expected * probe).sum() + their_c.sum(),
        [x, h0, c0, theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0],
    )
    for a, b in zip(mine, (*other[:3], other[3].t(), other[4].t(), other[5]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("steps", LENGTHS)
def test_restarts_and_all_gradients_are_those_of_single_steps(steps):
    ours, _ = pair()
    x, h0, c0 = leaves(4, steps)
    restart = (torch.rand(4, steps) < 0.3).double()
    restart[0] = 0.0
    hs, (h, c) = ours(x, (h0, c0), restart)
    expected = step_by_step(ours, x, h0, c0, restart)
    wanted = [x, h0, c0, *ours.parameters()]
    probe = torch.randn_like(hs)
    results = []
    for got in ((hs, h, c), expected):
        results.append(
            (got, torch.autograd.grad((got[0] * probe).sum() + got[1].sum() + got[2].square().sum(), wanted))
        )
    torch.testing.assert_close(results[0], results[1])


def test_a_restart_forgets_everything_before_it():
    ours, _ = pair()
    x, h0, c0 = leaves(2, 9)
    restart = torch.zeros(2, 9)
    restart[:, 4] = 1.0
    hs, state = ours(x, (h0, c0), restart)
    zeros = torch.zeros(2, H, dtype=torch.float64)
    alone, alone_state = ours(x[:, 4:], (zeros, zeros), torch.zeros(2, 5))
    assert torch.equal(hs[:, 4:], alone) and torch.equal(state[1], alone_state[1])


def test_the_input_need_not_want_a_gradient():
    ours, _ = pair(torch.float32)
    state = torch.zeros(2, H), torch.zeros(2, H)
    hs, _ = ours(torch.randn(2, 11, INPUT), state, torch.zeros(2, 11))
    hs.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())


def test_two_windows_are_one_long_one():
    ours, _ = pair()
    x, h0, c0 = leaves(2, 12)
    whole, _ = ours(x, (h0, c0), torch.zeros(2, 12))
    first, state = ours(x[:, :5], (h0, c0), torch.zeros(2, 5))
    second, _ = ours(x[:, 5:], state, torch.zeros(2, 7))
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
