"""Which commit has the code, the numbers and the record of a step of `wm.records.history`."""

from __future__ import annotations

import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from wm.core import git
from wm.records.dvcfiles import folder_md5
from wm.records.history import Snapshot, Step, flat


@cache
def code_at(commit: str) -> dict[str, str]:
    """md5 of every file below wm/ at a commit; empty if git does not have it."""
    here = Path.cwd()
    if not git.find(here, commit) or not git.read(here, "ls-tree", commit, "wm"):
        return {}
    with tarfile.open(fileobj=io.BytesIO(git.read_bytes(here, "archive", "--format=tar", commit, "wm"))) as archive:
        return {
            member.name: hashlib.md5(archive.extractfile(member).read()).hexdigest()
            for member in archive.getmembers()
            if member.isfile()
        }


def code_md5(path: str, commit: str) -> str | None:
    """What DVC calls a file or folder of code at a commit; None if it has none."""
    files = code_at(commit)
    inside = {name.removeprefix(f"{path}/"): md5 for name, md5 in files.items() if name.startswith(f"{path}/")}
    return files.get(path) or (folder_md5(inside) if inside else None)


def changed_since(step: Step, commit: str) -> list[str]:
    """Code and parameters of a recorded step that are others at `commit`: files, and keys with both values."""
    code = [path for path, md5 in step.code.items() if code_md5(path, commit) != md5]
    there = dict(flat(_params_at(commit)))
    return code + [
        f"{key} {value} (the commit has {there.get(key, 'none')})"
        for key, value in step.params.items()
        if there.get(key) != value
    ]


@cache
def _params_at(commit: str) -> dict[str, Any]:
    return Snapshot(commit).params


def commit_of(*steps: Step) -> str:
    """The commit that brought what dvc.lock says about these steps, as one; empty if none has it."""
    here, found = Snapshot().text("dvc.lock") or "", ""
    wanted = [_entry(here, step.address) for step in steps]
    if not all(wanted):
        return ""
    for commit in _lock_commits():
        there = _lock_at(commit)
        if [_entry(there, step.address) for step in steps] == wanted:
            found = commit
        elif found:
            break
    return found


def _entry(lock: str, address: str) -> str:
    """What dvc.lock says about a stage, as text: git has dozens of them, and parsing one takes up to a second."""
    start = lock.find(f"\n  {address}:\n")
    lines = lock[start + 1 :].splitlines() if start >= 0 else []
    end = next((number for number, line in enumerate(lines[1:], 1) if not line.startswith("   ")), len(lines))
    return "\n".join(lines[:end])


@cache
def _lock_commits(most: int = 200) -> list[str]:
    return _log("dvc.lock", most)


@cache
def _lock_at(commit: str) -> str:
    return Snapshot(commit).text("dvc.lock") or ""


def known(rev: str) -> bool:
    """Whether git has this commit here."""
    return bool(full_hash(rev))


def full_hash(rev: str) -> str:
    """The 40 letters of a commit-ish; empty if git has no such commit here."""
    return git.find(Path.cwd(), rev) or ""


def last_commit_with(path: str, md5: str, most: int = 50) -> str:
    """The newest commit whose version of a file or folder of code is this one; empty if none is."""
    return next((commit for commit in _log(path, most) if code_md5(path, commit) == md5), "")


def _log(path: str, most: int) -> list[str]:
    """The newest commits that changed a file or folder; empty where nothing is committed."""
    here = Path.cwd()
    return git.read(here, "log", "--format=%H", f"-{most}", "--", path).split() if git.find(here, "HEAD") else []
