"""DVC's own files, read without DVC: hashes of files and folders as it makes them, and its cache."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from wm.core.errors import UserError
from wm.core.files import read_json

EDITORS = re.compile(r"\..*\.sw.|\.#.*|#.*#|.*~|4913|__pycache__", re.DOTALL)
"""Names that .dvcignore leaves out everywhere: caches, and what editors leave beside a file."""


def seen(path: Path) -> bool:
    """Whether DVC looks at a file, by its path from the repository's top: .dvcignore says it to DVC."""
    if any(EDITORS.fullmatch(part) for part in path.parts):
        return False
    return path.parts[0] != "wm" or (path.suffix == ".py" and not any(part.startswith(".") for part in path.parts))


def md5(path: str | Path) -> str | None:
    """What DVC calls a file or folder, by its path from the repository's top; None if it is not here."""
    path = Path(path)
    if path.is_file():
        return _md5(path)
    files = {file.relative_to(path).as_posix(): _md5(file) for file in path.rglob("*") if file.is_file() and seen(file)}
    return folder_md5(files) if files else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def folder_md5(files: Mapping[str, str]) -> str:
    """DVC's hash of a folder: the md5 of its list of files."""
    listed = [{"md5": files[name], "relpath": name} for name in sorted(files, key=lambda name: name.split("/"))]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def cached(folder: str, name: str) -> bytes | None:
    """A file of a folder in DVC's cache."""
    config = configparser.ConfigParser()
    try:
        config.read([".dvc/config", ".dvc/config.local"])
    except configparser.Error as error:
        raise UserError(f"DVC's settings in .dvc/ cannot be read ({' '.join(str(error).split())}): mend them") from None
    store = Path(".dvc", config.get("cache", "dir", fallback="cache").strip("\"'"), "files", "md5")
    listing = store / folder[:2] / folder[2:]
    if not listing.is_file():
        return None
    for entry in read_json(listing):
        if entry["relpath"] == name:
            path = store / entry["md5"][:2] / entry["md5"][2:]
            return path.read_bytes() if path.is_file() else None
    return None
