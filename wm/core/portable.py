"""The same bits on every processor: which kernels the numerical libraries may use is set here, and nowhere else.

PyTorch, its oneDNN and MKL, NumPy, its OpenBLAS and OpenCV choose their kernels when they are loaded or first used,
by what the processor can do and by variables of the environment. Kernels for AVX-512 add in another order than those
for AVX2. So all are held at AVX2, and every variable that chooses otherwise is taken away. `import wm` does that
before anything else; what a process starts inherits it. docs/bits.md has what each library does, and what it costs.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import warnings
from importlib import metadata

SET = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own kernels: softmax, powers
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's products and decompositions; the name stands for AVX2
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # NumPy's exp, log, tan, sorting
}
FAMILIES = (
    *("ATEN_", "DNNL_", "FBGEMM_", "MKL_", "ONEDNN_", "TORCH_LINEAR_", "TORCH_MKLDNN_"),
    *("GOTO_", "NPY_", "OPENBLAS_", "OPENCV_"),
    *("GLIBC_TUNABLES", "IMAGEIO_FFMPEG_EXE"),  # the C library's sine may be told to do without FMA
)
"""How the variables begin that choose kernels, or the program that makes films."""
HARMLESS = ("_NUM_THREADS", "_VERBOSE", "_LOG_LEVEL")
"""How those of them end that change no bit: jobs and stages say themselves on how many threads they compute."""
AT_START = ("GLIBC_TUNABLES",)
"""What is read before Python itself runs."""
LIBRARIES = ("numpy", "torch", "cv2")

late: list[str] = []
"""What had chosen its kernels before `apply` was called, by other variables: this process may compute other bits."""


def apply() -> None:
    """Makes the environment of this process, and of all that it starts, the portable one."""
    wrong = [name for name in os.environ if name.startswith(FAMILIES) and not name.endswith(HARMLESS)]
    wrong = [name for name in wrong if os.environ[name] != SET.get(name)]
    missing = [name for name in SET if name not in os.environ]
    for name in wrong:
        del os.environ[name]
    os.environ.update(SET)
    if wrong or missing:
        late.extend(library for library in LIBRARIES if library in sys.modules)
    late.extend(name for name in wrong if name in AT_START)


def start_again() -> None:
    """Begins a command anew where something was too early for `apply`: now it finds the environment right."""
    if late:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def warn() -> None:
    """Says where a process that is not a command of ours may compute other bits."""
    if late:
        warnings.warn(
            f"wm was imported after {', '.join(late)} had chosen how to compute: results here may differ in their last "
            "bits from those of another processor; import wm first",
            RuntimeWarning,
            stacklevel=3,
        )


def machine() -> dict[str, str]:
    """What the bits of this process depend on: versions, and the class of the processor."""
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "opencv-python-headless")}
    python = ".".join(platform.python_version_tuple()[:2])  # 3.12 adds floats up more exactly than 3.11
    return {"processor": _processor(), "python": python, **versions}


def _processor() -> str:
    """Whose processor it is (MKL asks) and its widest vectors: AVX2 where the libraries are held there; or the GPU."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.get_device_name()
    told = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        told = dict(re.findall(r"^(vendor_id|flags)\s*: (.*)$", file.read(), re.MULTILINE))
    vectors = [name for name in ("avx512f", "avx2") if name in told.get("flags", "").split()]
    if not vectors:
        return platform.processor() or platform.machine()
    return f"{told['vendor_id']} {vectors[0] if late else vectors[-1]}"
