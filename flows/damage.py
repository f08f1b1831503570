"""Damaged data: what DVC brings back or fetches is compared with its record, and what differs is put aside.

DVC takes an object of its cache for whole as soon as it is there and read-only, and its state then knows the hash that
it expected. So a flow compares after DVC has restored something, and before it sends something to a remote. A damaged
object is moved to `damaged/` in the cache, under its name; DVC then finds none, and fetches or makes it again.

What is about to be restored is noted in `.wm/restoring/`, so that a run that is killed in between leaves a doubt, and
no damage that is taken for whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows import SCRATCH
from wm.records import dvcfiles

DOUBTS = SCRATCH / "restoring"
ASIDE = "damaged"


def doubt(addresses: Iterable[str]) -> None:
    """Notes that what these stages made is about to be written by DVC."""
    for address in addresses:
        DOUBTS.mkdir(parents=True, exist_ok=True)
        _note(address).touch()


def settle(addresses: Iterable[str]) -> None:
    """It has been compared with its record."""
    for address in addresses:
        _note(address).unlink(missing_ok=True)


def doubtful(address: str) -> bool:
    """Whether a run was killed between the two."""
    return _note(address).exists()


def _note(address: str) -> Path:
    return DOUBTS / address.rpartition(":")[2]


def differs(stage: Any) -> bool:
    """Whether DVC would write any of a stage's outputs to bring them back."""
    return any(out.workspace_status() for out in stage.outs)


def put_aside(stage: Any, since: float | None = None) -> dict[str, str]:
    """Compares all that a stage made with its record, here and in DVC's cache, and puts aside what differs.

    A damaged object whose file in this folder is whole is replaced by that. An output in this folder that is not what
    DVC believes it to be is removed, so that DVC brings it back. What a person changed, DVC knows, and it stays.

    Args:
        stage: DVC's, with the hashes of its lock.
        since: only where the cache has an object of it that is older, in seconds since 1970: DVC writes none that is
            there already.
    Returns:
        {name of the object: a sentence}.
    """
    found: dict[str, str] = {}
    for out in stage.outs:
        if out.hash_info and (since is None or _has_older(out, since)):
            found |= _put_aside(out)
    return found


def _put_aside(out: Any) -> dict[str, str]:
    path, oid, found = Path(os.path.relpath(out.fs_path)), out.hash_info.value, {}
    here = _hashes(path) if not out.workspace_status() else {}
    listing = dvcfiles.listing(here) if oid.endswith(".dir") else b""
    whole = bool(here) and _name(oid, here) == oid
    sources: dict[str, Path | bytes] = {md5: path / name for name, md5 in here.items()}
    sources[oid] = listing or path
    for each in dict.fromkeys([oid, *(here.values() if whole and listing else _listed(out))]):
        place = Path(out.cache.oid_to_path(each))
        if not place.is_file() or dvcfiles.md5(place) == each.removesuffix(".dir"):
            continue
        found[each] = _move(place, each, f", of {path},")
        if whole:
            _fill(place, sources[each])
    if here and not whole:
        found = found or {oid: f"{path} was damaged: it is removed, to be brought back or made again"}
        out.remove()
    return found


def put_aside_lists(cache: Any) -> dict[str, str]:
    """The same for the lists of folders, of all stages: DVC would restore files under other names, and record that.

    Args:
        cache: DVC's database of objects here.
    """
    lists = ((place.parent.name + place.name, place) for place in Path(cache.path).glob("??/*.dir"))
    return {name: _move(place, name) for name, place in lists if f"{dvcfiles.md5(place)}.dir" != name}


def forget(stage: Any) -> None:
    """Puts aside the lists of a stage that DVC made of folders which it had restored by damaged lists."""
    for out in stage.outs:
        if out.hash_info and out.hash_info.isdir:
            place = Path(out.cache.oid_to_path(out.hash_info.value))
            if place.exists():
                _move(place, out.hash_info.value)
        out.remove()


def _move(place: Path, name: str, whose: str = "") -> str:
    """Puts an object aside; returns the sentence."""
    aside = place.parents[3] / ASIDE / name
    aside.parent.mkdir(exist_ok=True)
    os.replace(place, aside)
    return f"{_shown(place)}{whose} was damaged in DVC's cache: put aside as {_shown(aside)}"


def _has_older(out: Any, since: float) -> bool:
    places = [out.cache.oid_to_path(each) for each in (out.hash_info.value, *_listed(out))]
    return any(os.path.isfile(place) and os.stat(place).st_mtime < since for place in places)


def missing(stage: Any) -> list[str]:
    """The objects of a stage that the cache does not have."""
    found = []
    for out in filter(lambda out: out.use_cache, stage.outs):
        names = [out.hash_info.value, *_listed(out)] if out.hash_info else []
        found += [name for name in names if not os.path.isfile(out.cache.oid_to_path(name))]
    return found


def is_new_to(stage: Any, remote: Any) -> bool:
    """Whether a remote lacks an object of a stage.

    Args:
        remote: DVC's database of objects there.
    """
    names = [name for out in stage.outs if out.hash_info for name in (out.hash_info.value, *_listed(out))]
    return not all(remote.exists(name) for name in names)


def put_aside_there(stage: Any, names: Iterable[str], remote: Any) -> list[str]:
    """Moves objects of a stage aside in its remote, and the lists of its folders, without which DVC does not ask for
    their files.

    Args:
        remote: DVC's database of objects there.
    Returns:
        sentences.
    """
    said, lists = [], [out.hash_info.value for out in stage.outs if (out.hash_info.value or "").endswith(".dir")]
    for name in dict.fromkeys([*names, *lists]):
        place, fs = remote.oid_to_path(name), remote.fs
        if fs.exists(place):
            folder = fs.join(fs.parent(fs.parent(remote.path)), ASIDE)
            fs.makedirs(folder, exist_ok=True)
            fs.move(place, fs.join(folder, name))
            if name not in lists or not names:
                said.append(f"{name} was damaged in the DVC remote: put aside there as {fs.join(folder, name)}")
    return said


def _hashes(path: Path) -> dict[str, str]:
    """The md5 of a file as {"": md5}, or of those in a folder that DVC looks at, by their paths in it."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and dvcfiles.is_visible(file))
        return {file.relative_to(path).as_posix(): dvcfiles.md5(file) or "" for file in files}
    return {"": dvcfiles.md5(path) or ""} if path.is_file() else {}


def _name(oid: str, hashes: dict[str, str]) -> str:
    return dvcfiles.folder_md5(hashes) if oid.endswith(".dir") else hashes.get("", "")


def _listed(out: Any) -> list[str]:
    """The objects of a folder, as the list in the cache has them; none where that is not there or not whole."""
    oid = out.hash_info.value
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        place = Path(out.cache.oid_to_path(oid))
        if oid.endswith(".dir") and dvcfiles.md5(place) == oid.removesuffix(".dir"):
            return [entry["md5"] for entry in json.loads(place.read_bytes())]
    return []


def _fill(place: Path, source: Path | bytes) -> None:
    """An object from what is whole in this folder."""
    temporary = place.with_name(f"{place.name}.tmp")
    if isinstance(source, bytes):
        temporary.write_bytes(source)
    else:
        shutil.copyfile(source, temporary)
    temporary.chmod(0o444)
    os.replace(temporary, place)


def _shown(path: Path) -> str:
    """As a person would write it from here."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
