"""Files that are whole or not there: written to a temporary name, synced, renamed; and their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from wm.core.errors import DamagedData, UserError

CHECKSUM = "checksum"
MEND = (
    "run `python -m flows.mend`, which puts aside what is damaged, here and in DVC's cache, and then the stage that "
    "made it"
)
"""What helps with a damaged output: `dvc checkout` would bring the same bytes back if DVC's cache has them."""


def write_bytes(path: Path, data: bytes) -> str:
    """Writes `data` atomically and returns its sha256."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())
    os.replace(temporary, path)
    return hashlib.sha256(data).hexdigest()


def sync(handle: int) -> None:
    """Asks that what was written be on the disk. Shares that cannot promise it (CIFS and vboxsf, of a folder) are no
    reason to lose the work; a disk that fails is.

    Raises:
        OSError: it is lost.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


def sync_folder(folder: Path) -> None:
    """As `sync`: the names in a folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        sync(handle)
    finally:
        os.close(handle)


def replace_folder(new: Path, target: Path) -> None:
    """Puts the folder `new` in place of `target` by renames, also from another file system: it is then copied beside
    `target` first. What was there is deleted when the new one is in place, and is back if that cannot be done.

    Raises:
        OSError: it cannot be done; `new` and what was there are as before.
    """
    new, target = Path(new), Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside, copy = (target.with_name(f".{target.name}.{end}") for end in ("old", "new"))
    if os.path.lexists(aside) and not os.path.lexists(target):  # a call was killed between its two renames
        os.replace(aside, target)
    _remove(aside)
    _remove(copy)
    source = new
    try:
        os.rename(new, target)
        return
    except OSError as error:
        if error.errno == errno.EXDEV:
            source = _copied(new, copy)
        elif not os.path.lexists(target):
            raise
    if os.path.lexists(target):
        os.replace(target, aside)
    try:
        os.replace(source, target)
    except OSError:
        if os.path.lexists(aside):
            os.replace(aside, target)
        raise
    _remove(aside)
    _remove(new)


def copy_file(source: Path, target: Path) -> None:
    """Copies a file's bytes, whole or not at all."""
    temporary = target.with_name(target.name + ".tmp")
    with source.open("rb") as old, temporary.open("wb") as copy:
        shutil.copyfileobj(old, copy, 2**20)
        copy.flush()
        sync(copy.fileno())
    os.replace(temporary, target)


def plain_modes(folder: Path) -> None:
    """The same permissions whatever the umask, where the file system has any."""
    for path in [folder, *folder.rglob("*")]:
        try:
            path.chmod(0o755 if path.is_dir() else 0o644)
        except OSError:  # CIFS, DrvFs: one set of rights for all that is mounted
            return


def _copied(source: Path, target: Path) -> Path:
    """A copy of a folder, on the disk when this returns; nothing where it fails."""
    try:
        target.mkdir()
        for path in sorted(source.rglob("*")):
            there = target / path.relative_to(source)
            there.mkdir() if path.is_dir() else copy_file(path, there)
        plain_modes(target)
        sync_folder(target)
    except BaseException:
        _remove(target)
        raise
    return target


def _remove(path: Path) -> None:
    """A folder with all that is in it, or the link to one."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def write_json(path: Path, content: Any) -> str:
    """Writes JSON with sorted keys and a final newline, atomically; returns its sha256."""
    return write_bytes(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        DamagedData: the file is missing or not JSON.
    """
    try:
        return parse_json(Path(path).read_bytes(), str(path))
    except FileNotFoundError:
        raise DamagedData(f"{path} is missing: run the stage that writes it, or `dvc checkout`") from None


def parse_json(data: bytes | str, name: str, cure: str = MEND) -> Any:
    """What JSON says.

    Args:
        name: of the file that it comes from.
        cure: what brings it back.
    Raises:
        DamagedData: it is not whole.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        if has_marks(data):
            raise DamagedData(marked(name)) from None
        raise DamagedData(f"{name} is not whole JSON ({error}): {cure}") from None


def parse_yaml(text: bytes | str, name: str) -> Any:
    """What YAML says, read as DVC does.

    Args:
        name: of the file that it comes from.
    Raises:
        UserError: it is not valid; names the line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:  # no UTF-8; a number of thousands of digits; brackets in brackets
        raise UserError(f"{name} is not valid YAML: {error}") from None
    except YAMLError as error:
        if has_marks(text):
            raise UserError(marked(name)) from None
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{name} is not valid YAML{where}: {problem}") from None


def has_marks(data: bytes | str) -> bool:
    """Whether a merge of git's left its marks in a file's content."""
    text = data if isinstance(data, bytes) else data.encode()
    return text.startswith(b"<<<<<<< ") or b"\n<<<<<<< " in text


def marked(name: str) -> str:
    """The sentence about a file with such marks."""
    return (
        f"{name} has the marks of a merge of git's in it (<<<<<<<): keep one side with `git checkout --ours {name}` or "
        f"`git checkout --theirs {name}`, or mend it by hand"
    )


def write_record(path: Path, content: dict[str, Any]) -> str:
    """As `write_json`, with a checksum of `content` inside, since nothing else would notice a flipped digit."""
    return write_json(path, {**content, CHECKSUM: checksum(content)})


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote.

    Raises:
        DamagedData: the file is missing, or not what its checksum says.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.pop(CHECKSUM, None) != checksum(content):
        raise DamagedData(f"{path} is damaged (its contents differ from its checksum): {MEND}")
    return content


def checksum(content: Any) -> str:
    """The sha256 of what JSON can hold."""
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
        raise DamagedData(f"{path} is damaged (its sha256 differs from the recorded one): {MEND}")
