"""DVC's own files, read without DVC: hashes of files and folders as it makes them, and its cache."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from wm.core.errors import DamagedData, UserError
from wm.core.files import MEND

EDITORS = re.compile(r"\..*\.sw.|\.#.*|#.*#|.*~|4913|__pycache__", re.DOTALL)
"""Names that .dvcignore leaves out everywhere: caches, and what editors leave beside a file."""


def is_visible(path: Path) -> bool:
    """Whether DVC looks at a file, by its path from the repository's top: .dvcignore says it to DVC."""
    if any(EDITORS.fullmatch(part) for part in path.parts):
        return False
    return path.parts[0] != "wm" or (path.suffix == ".py" and not any(part.startswith(".") for part in path.parts))


def md5(path: str | Path) -> str | None:
    """What DVC calls a file or folder, by its path from the repository's top; None if it is not here."""
    path = Path(path)
    if path.is_file():
        return _md5(path)
    found = (file for file in path.rglob("*") if file.is_file() and is_visible(file))
    files = {file.relative_to(path).as_posix(): _md5(file) for file in found}
    return folder_md5(files) if files else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def folder_md5(files: Mapping[str, str]) -> str:
    """DVC's hash of a folder: the md5 of its list of files."""
    return hashlib.md5(listing(files)).hexdigest() + ".dir"


def listing(files: Mapping[str, str]) -> bytes:
    """The list of a folder's files {path in it: md5} as DVC's cache keeps it."""
    listed = [{"md5": files[name], "relpath": name} for name in sorted(files, key=lambda name: name.split("/"))]
    return json.dumps(listed, sort_keys=True).encode()


def cached(folder: str, name: str) -> bytes | None:
    """A file of a folder in DVC's cache.

    Raises:
        DamagedData: it, or the list of the folder's files, is not what its name says.
    """
    config = configparser.ConfigParser()
    try:
        config.read([".dvc/config", ".dvc/config.local"])
    except configparser.Error as error:
        raise UserError(f"DVC's settings in .dvc/ cannot be read ({' '.join(str(error).split())}): mend them") from None
    store = Path(".dvc", config.get("cache", "dir", fallback="cache").strip("\"'"), "files", "md5")
    if (listed := _object(store, folder)) is None:
        return None
    for entry in json.loads(listed):
        if entry["relpath"] == name:
            return _object(store, entry["md5"])
    return None


def _object(store: Path, name: str) -> bytes | None:
    path = store / name[:2] / name[2:]
    if not path.is_file():
        return None
    data = path.read_bytes()
    if hashlib.md5(data).hexdigest() != name.removesuffix(".dir"):
        raise DamagedData(f"{path} is damaged (DVC's cache: its md5 is not its name): {MEND}")
    return data
