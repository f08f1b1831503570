"""Whatever the environment says, the kernels are the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wm.core import portable
from wm.core.checkpoints import Checkpoints
from wm.core.errors import UserError

ROOT = Path(__file__).parent.parent
WRONG = {
    "ATEN_CPU_CAPABILITY": "default",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
}
"""A value of each variable that makes other bits."""
PORTABLE = "import wm\nfrom wm.core import portable\nportable.start_again()\n"
COMPUTE = """
import hashlib, math
import numpy as np
import torch
torch.set_num_threads(1)
rng = np.random.default_rng(0)
wide, square = rng.standard_normal(9999), rng.standard_normal((99, 99))
image, weight, grad = (
    torch.from_numpy(rng.standard_normal(shape, np.float32)).to(memory_format=torch.channels_last)
    for shape in ((32, 128, 15, 15), (64, 128, 2, 2), (32, 64, 14, 14))
)
found = [np.array([math.sin(x) for x in wide]), np.exp(wide), np.tan(wide), square @ square, np.linalg.eigh(square)[1]]
found += [np.exp(wide.astype(np.float32)), np.sin(wide.astype(np.float32))]
found += torch.ops.aten.convolution_backward(
    grad, image, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False])[:2]
matrix = torch.from_numpy(square.astype(np.float32))
found += [torch.softmax(matrix, 0), matrix.abs() ** 1.7, matrix @ matrix]
print(hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in found)).hexdigest())
"""


def child(code: str, **variables: str) -> subprocess.CompletedProcess:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(portable.FAMILIES)}
    env = plain | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def bits() -> str:
    return child(PORTABLE + COMPUTE).stdout


@pytest.mark.parametrize("name", WRONG)
def test_a_variable_that_chooses_kernels_changes_no_bit(bits, name):
    wrong = {name: WRONG[name]}
    assert child(PORTABLE + COMPUTE, **wrong).stdout == bits
    others = {
        other: value for other, value in portable.SET.items() if other.partition("_")[2] != name.partition("_")[2]
    }
    assert child(COMPUTE, **others, **wrong).stdout != bits  # it would have


def test_what_is_started_inherits_it():
    names = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "OMP_NUM_THREADS")
    code = f"import wm, os; print([os.environ.get(name) for name in {names}])"
    assert child(code, MKL_CBWR="AVX", OMP_NUM_THREADS="1").stdout.strip() == "['avx2', None, '1']"


def test_a_notebook_that_imported_numpy_before_is_warned():
    assert "numpy had chosen how to compute" in child("import numpy, wm").stderr
    assert not child("import wm, numpy").stderr
    assert not child("import numpy, wm", **portable.SET).stderr


@pytest.mark.parametrize("what", ["processor", "python", "torch", "numpy"])
def test_a_checkpoint_of_another_machine_is_refused(tmp_path, monkeypatch, what):
    made, here = Checkpoints(tmp_path), portable.machine()
    made.save(1, {"x": np.zeros(3)}, {"y": 1})
    assert made.load()[1] == {"step": 1, "y": 1}
    monkeypatch.setattr(portable, "machine", lambda: here | {what: "another"})
    with pytest.raises(UserError, match=f"was made with {what} .*, and here is another, .* begin anew"):
        made.load()
