"""Where a run's results come from: what it reads, by digest; the machine; the user."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wm.core import files
from wm.core.errors import DamagedData

_GPUS = Path("/proc/driver/nvidia/gpus")


def digest(folder: Path) -> str:
    """sha256 over the names and checksums of a folder's files; a manifest stands for its shards."""
    folder = Path(folder)
    skip = ".parquet" if (folder / "manifest.json").exists() else None
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != skip)
    lines = (f"{files.sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def inputs(root: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """What a run reads: folders by digest, data sets by their manifest's md5, models by their weights."""
    found: dict[str, Any] = {"inputs": {}, "datasets": {}, "models": []}
    for path in map(str, paths):
        folder = root / path
        found["inputs"][path] = digest(folder)
        if (folder / "manifest.json").exists():
            manifest = files.read_json(folder / "manifest.json")
            if not isinstance(manifest, dict):
                raise DamagedData(f"{folder / 'manifest.json'} has to be a mapping of keys to values: {files.MEND}")
            numbers = {name: value for name, value in manifest.items() if isinstance(value, (int, float, str))}
            md5 = hashlib.md5((folder / "manifest.json").read_bytes()).hexdigest()
            found["datasets"][path] = {"md5": md5, "numbers": numbers}
        for kind in ("vae", "mdnrnn"):
            if (folder / f"{kind}.json").exists():
                found["models"].append((kind, files.read_json(folder / f"{kind}.json")["sha256"]))
    return found


def user() -> str:
    """Who runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def machine() -> str:
    """The processor, its widest vectors (other ones give other bits), how many cores there are, and a GPU:
    "AMD EPYC (AVX-512), 2 cores"."""
    names, flags = (_values(Path("/proc/cpuinfo"), key) for key in ("model name", "flags"))
    found = names[0] if names else platform.processor() or platform.machine()
    has = set(flags[0].split()) if flags else set()
    vectors = next((f" ({name})" for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in has), "")
    found = f"{found}{vectors}, {os.cpu_count()} cores"
    gpus = [name for info in _GPUS.glob("*/information") for name in _values(info, "Model")]
    return ", ".join([found, *gpus])


def _values(info: Path, key: str) -> list[str]:
    """What a file of lines "key: value" says of `key`."""
    lines = info.read_text().splitlines() if info.exists() else []
    return [value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key]
