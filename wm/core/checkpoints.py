"""What makes a run resumable: everything that the next step needs, whole or not there.

A checkpoint is a new folder with tensors.safetensors, state.json and a manifest of their sha256; it is synced to disk
before the pointer file `latest` is renamed onto it. A kill at any moment leaves the previous one in force. Checkpoints
live outside a stage's outputs (DVC deletes those before it runs a stage), in a folder named by the stage's
fingerprint: its configuration, inputs and code. A run with other numbers never finds them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from wm.core import files, portable
from wm.core.errors import DamagedData, UserError

Tensors = dict[str, np.ndarray]
MACHINE = "machine"
"""Key of a checkpoint's state: what made it."""


class Checkpoints:
    """Numbered checkpoints in `folder`; the two newest are kept."""

    KEEP = 2

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def save(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Writes checkpoint `step`: arrays, and state that JSON can hold (integers of any size)."""
        target = self.folder / f"step-{step:09d}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        data = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
        digests = {
            "tensors.safetensors": files.write_bytes(target / "tensors.safetensors", data),
            "state.json": files.write_json(target / "state.json", {"step": step, **state, MACHINE: portable.machine()}),
        }
        files.write_json(target / "manifest.json", digests)
        files.sync_folder(target)
        files.write_bytes(self.folder / "latest", target.name.encode())
        files.sync_folder(self.folder)
        for old in sorted(self.folder.glob("step-*"))[: -self.KEEP]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self) -> tuple[Tensors, dict[str, Any]] | None:
        """The newest whole checkpoint as (tensors, state), or None; a damaged one is passed over for the one before.

        Raises:
            UserError: it was made where bits are others, by another class of processor or other versions.
        """
        pointer = self.folder / "latest"
        newest = pointer.read_bytes().decode(errors="replace") if pointer.exists() else ""
        for target in sorted(self.folder.glob("step-*"), reverse=True):
            if target.name > newest:  # written, but never pointed to
                continue
            try:
                for name, digest in files.read_json(target / "manifest.json").items():
                    files.check(target / name, digest)
            except DamagedData as error:
                print(f"checkpoint passed over: {error}", file=sys.stderr)
                continue
            tensors = safetensors.numpy.load((target / "tensors.safetensors").read_bytes())
            state = files.read_json(target / "state.json")
            self._same_machine(state.pop(MACHINE, {}))
            return tensors, state
        return None

    def _same_machine(self, made: dict[str, str]) -> None:
        here = portable.machine()
        other = next((name for name in here if made.get(name) != here[name]), None)
        if other is not None:
            raise UserError(
                f"the checkpoint in {self.folder} was made with {other} {made.get(other, 'unknown')}, and here is "
                f"{here[other]}, which computes other bits: go on there, or delete that folder to begin anew"
            )

    def clear(self) -> None:
        """Deletes all of them: the stage's outputs are whole."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(stage: str, config: dict[str, Any], inputs: dict[str, str], code: Iterable[Path]) -> str:
    """What a run of a stage is a function of: its configuration, its inputs' digests, and all its code.

    Args:
        code: files, and folders of which the modules count.
    """
    content = json.dumps([stage, config, inputs, list(modules(code).items())], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def modules(code: Iterable[Path]) -> dict[str, str]:
    """The sha256 of every module of a code as it is on disk now: of files, and of all in folders.

    Args:
        code: as `fingerprint` takes it.
    """
    return {
        path.relative_to(part.parent).as_posix(): files.sha256(path)
        for part in code
        for path in (sorted(part.rglob("*.py")) if part.is_dir() else [part])
        if path.is_file()  # the lock of an editor is a link to nowhere
    }
