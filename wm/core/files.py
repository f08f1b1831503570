"""Files that are whole or not there: written to a temporary name, synced, renamed; and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from wm.core.errors import DamagedData

CHECKSUM = "checksum"


def write_bytes(path: Path, data: bytes) -> str:
    """Writes `data` atomically and returns its sha256."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return hashlib.sha256(data).hexdigest()


def write_json(path: Path, content: Any) -> str:
    """Writes JSON with sorted keys and a final newline, atomically; returns its sha256."""
    return write_bytes(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        DamagedData: the file is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise DamagedData(f"{path} is missing: run the stage that writes it, or `dvc checkout`") from None
    except ValueError as error:
        raise DamagedData(f"{path} is not whole JSON ({error}): delete it and run `dvc checkout`") from None


def write_record(path: Path, content: dict[str, Any]) -> str:
    """As `write_json`, with a checksum of `content` inside, since nothing else would notice a flipped digit."""
    return write_json(path, {**content, CHECKSUM: _checksum(content)})


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote.

    Raises:
        DamagedData: the file is missing, or not what its checksum says.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.pop(CHECKSUM, None) != _checksum(content):
        raise DamagedData(
            f"{path} is damaged (its contents differ from its checksum): "
            "delete it and run `dvc checkout`, or run the stage again"
        )
    return content


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """The file's checksum, read in a stream."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, expected: str) -> None:
    """Raises DamagedData where the file is missing or its sha256 is not `expected`."""
    if not Path(path).is_file():
        raise DamagedData(f"{path} is missing: run `dvc checkout`, or delete its folder and run the stage again")
    if sha256(path) != expected:
        raise DamagedData(
            f"{path} is damaged (its sha256 differs from the recorded one): "
            "delete it and run `dvc checkout`, or run the stage again"
        )
