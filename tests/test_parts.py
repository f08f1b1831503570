"""A batch in parts: the same loss, gradients, state and metrics as in one piece, and the same bits every time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wm.models import parts
from wm.models.mdnrnn import MDNRNN, MDNConfig, Sequences
from wm.models.vae import VAE, VAEConfig


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def flat(value) -> list[torch.Tensor]:
    return [value] if torch.is_tensor(value) else [leaf for part in value for leaf in flat(part)]


def vae_step():
    torch.manual_seed(0)
    vae = VAE(VAEConfig())
    obs = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    loss, metrics = vae.loss(obs, torch.Generator().manual_seed(1))
    (2.0 * loss).backward()
    return loss.detach(), list(metrics.values()), [parameter.grad for parameter in vae.parameters()]


def mdnrnn_step():
    torch.manual_seed(0)
    model = MDNRNN(MDNConfig(hidden=12), 4, 2, True)
    posterior = [torch.randn(5, 12, 4) for _ in range(2)]
    flags = [(torch.rand(5, 11) < p).float() for p in (0.2, 0.2, 0.7)]
    act, rew = torch.randn(5, 11, 2), torch.randn(5, 11)
    batch = Sequences(*posterior, act, rew, *flags)
    state = torch.randn(5, 12), torch.randn(5, 12)
    loss, metrics, carried = model.loss(batch, state, torch.Generator().manual_seed(1))
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    return loss.detach(), list(metrics.values()), list(carried), gradients


@pytest.mark.parametrize("step", [vae_step, mdnrnn_step])
def test_two_parts_are_the_whole(threads, step):
    threads(1)
    whole = flat(step())
    threads(2)
    halves, again = flat(step()), flat(step())
    for one, two, once_more in zip(whole, halves, again, strict=True):
        assert (one - two).norm() <= 2e-3 * one.norm()  # a unit of V's that is nearly 0 may fall on either side of it
        assert torch.equal(two, once_more)
    assert torch.get_num_threads() == 2


SPY = """
import torch
called = set()
def spy(name, function):
    def wrapped(number):
        called.add((name, number.dtype))
        return function(number)
    return wrapped
names = sys.argv[1].split()
for name in names:
    setattr(torch, name, spy(name, getattr(torch, name)))
import wm.models.vae
sys.exit(len(names) * 2 - len(called))
"""


def test_vector_functions_are_called_once_before_there_are_threads():
    names = [function.__name__ for function in parts.VECTOR_FUNCTIONS]
    assert subprocess.run([sys.executable, "-c", "import sys\n" + SPY, " ".join(names)]).returncode == 0


def test_all_that_wm_computes_with_is_among_them():
    """Functions of MKL's that PyTorch uses (aten/src/ATen/cpu/vml.h), by the names under which they are called."""
    mkl = "a?cos a?sin a?tan cosh sinh tanh erf erfc erfinv exp exp2 expm1 lgamma log log10 log1p log2 r?sqrt".split()
    code = "".join(path.read_text() for path in Path(parts.__file__).parents[1].rglob("*.py"))
    used = set(re.findall(rf"\.({'|'.join(mkl)})_?\(", code))
    assert {"exp", "log", "tanh"} <= used <= {function.__name__ for function in parts.VECTOR_FUNCTIONS}
