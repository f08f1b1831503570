"""Which commit has the code, the numbers and the record of a step of `wm.records.history`."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from wm.core import files
from wm.records import dvcfiles, git
from wm.records.history import LOCKS, Snapshot, Step, flat


@cache
def code_at(commit: str, top: str = "wm") -> dict[str, str]:
    """md5 of every file of code below `top`, a name at the repository's top, at a commit; empty if git has none."""
    here = Path.cwd()
    if not git.find(here, commit) or not git.read(here, "ls-tree", commit, top):
        return {}
    with tarfile.open(fileobj=io.BytesIO(git.read_bytes(here, "archive", "--format=tar", commit, top))) as archive:
        return {
            member.name: hashlib.md5(archive.extractfile(member).read()).hexdigest()
            for member in archive.getmembers()
            if member.isfile() and dvcfiles.is_visible(Path(member.name))
        }


def code_md5(path: str, commit: str) -> str | None:
    """What DVC calls a file or folder of code at a commit; None if it has none. Recordings are a folder that DVC tracks
    itself: its .dvc file says it."""
    return _tracked(path, commit) or _md5(path, code_at(commit, _top(path)))


@cache
def _tracked(path: str, commit: str) -> str | None:
    """What the commit's .dvc file beside a path says of it; None where there is no such file."""
    here, name = Path.cwd(), f"{path}.dvc"
    if not git.find(here, commit) or not git.read(here, "ls-tree", commit, name):
        return None
    outs = files.parse_yaml(git.read(here, "show", f"{commit}:{name}"), name).get("outs") or [{}]
    return outs[0].get("md5")


def changed_files(path: str, md5: str, commit: str) -> list[str]:
    """The files that make a file or folder of code another than at `commit`.

    Args:
        md5: what DVC calls it; a folder that neither the files here nor git has with this hash is named itself.
    """
    recorded = next((code for code in _versions(path) if _md5(path, code) == md5), None)
    return [path] if recorded is None else different_files(path, recorded, code_at(commit, _top(path)))


def different_files(path: str, a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    """Of a file or folder, the files that differ between two versions of the code, as `code_at` gives them."""
    inside = {name for name in {*a, *b} if name == path or name.startswith(f"{path}/")}
    return sorted(name for name in inside if a.get(name) != b.get(name))


def changed_since(step: Step, commit: str) -> list[str]:
    """Code and parameters of a recorded step that are others at `commit`: files, and keys with both values.

    Where the step's rows were rewritten since (`is_proved`), it is that commit's own record that counts.
    """
    if is_proved(step) and (before := _recorded(step, commit)):
        step = before
    changed = [(path, md5) for path, md5 in step.code.items() if code_md5(path, commit) != md5]
    there = dict(flat(_params_at(commit)))
    return [name for path, md5 in changed for name in changed_files(path, md5, commit)] + [
        f"{key} {value} (the commit has {there.get(key, 'none')})"
        for key, value in step.params.items()
        if there.get(key) != value
    ]


def _md5(path: str, code: Mapping[str, str]) -> str | None:
    inside = {name.removeprefix(f"{path}/"): md5 for name, md5 in code.items() if name.startswith(f"{path}/")}
    return code.get(path) or (dvcfiles.folder_md5(inside) if inside else None)


def _versions(path: str, most: int = 50) -> Iterator[dict[str, str]]:
    """The code as it is here, then as the newest commits have it that changed a file or folder."""
    top = _top(path)
    found = Path(top).rglob("*") if Path(top).is_dir() else [Path(top)]
    yield {str(file): dvcfiles.md5(file) for file in found if file.is_file() and dvcfiles.is_visible(file)}
    for commit in _log(path, most=most):
        yield code_at(commit, top)


def _top(path: str) -> str:
    return Path(path).parts[0]


@cache
def _params_at(commit: str) -> dict[str, Any]:
    return Snapshot(commit).params


def commit_of(*steps: Step, rev: str | None = None) -> str:
    """The commit that brought what dvc.lock says about these steps, as one; empty if none has it, or git's history is
    cut there, so that an older one may have brought it.

    Args:
        rev: whose dvc.lock; None for the one here.
    """
    here, top, found = Snapshot(rev).lock_text, Path.cwd(), ""
    wanted = [_entry(here, step.address) for step in steps]
    if not all(wanted):
        return ""
    for commit in _lock_commits(full_hash(rev or "HEAD")):
        there = [_entry(_lock_at(commit), step.address) for step in steps]
        if there == wanted:
            found = commit
        elif found and all(map(_is_same_run, steps, there, wanted)):
            wanted, found = there, commit
        elif found:
            break
    return "" if found and git.is_cut(top, found) else found


def _entry(lock: str, address: str) -> str:
    """What dvc.lock says about a stage, as text: git has dozens of them, and parsing one takes up to a second."""
    start = lock.find(f"\n  {address}:\n")
    lines = lock[start + 1 :].splitlines() if start >= 0 else []
    end = next((number for number, line in enumerate(lines[1:], 1) if not line.startswith("   ")), len(lines))
    return "\n".join(lines[:end])


def _is_same_run(step: Step, before: str, now: str) -> bool:
    """Whether two entries of dvc.lock record one computation: the same text, or rows of code that were rewritten."""
    return before == now or (is_proved(step) and bool(before) and _made(before) == _made(now))


def is_proved(step: Step) -> bool:
    """Whether the code of a step is that of a commit which docs/same-bits.md shows to give the bits of an earlier one:
    its rows in dvc.lock were rewritten then, and an earlier commit computed the output."""
    return bool(step.code) and any(
        all(code_md5(path, commit) == md5 for path, md5 in step.code.items()) for commit in _proved_commits(Path.cwd())
    )


@cache
def _proved_commits(top: Path) -> tuple[str, ...]:
    page = top / "docs/same-bits.md"
    text = page.read_text() if page.is_file() else ""
    return tuple(re.findall(r"^## .*`[0-9a-f]{40}` to `([0-9a-f]{40})`", text, re.M))


def _recorded(step: Step, commit: str) -> Step | None:
    """The step as dvc.lock at a commit has it; None where that has another output or other inputs."""
    snapshot = Snapshot(commit)
    before = snapshot.step(step.stage, step.name) if step.address in snapshot.lock else None
    return before if before and (before.output, before.inputs) == (step.output, step.inputs) else None


def _made(entry: str) -> list[str]:
    """The lines of a stage's entry that say what data it read and wrote; code and numbers left out."""
    blocks = re.split(r"\n(?=    [\w-])", entry)  # keys, and the items of their lists
    return [block for block in blocks if block.startswith("    - path: runs/")]


@cache
def _lock_commits(head: str, most: int = 200) -> list[str]:
    return _log(*LOCKS, most=most, head=head)


@cache
def _lock_at(commit: str) -> str:
    return Snapshot(commit).lock_text


def has_commit(rev: str) -> bool:
    """Whether git has this commit here."""
    return bool(full_hash(rev))


def full_hash(rev: str) -> str:
    """The 40 letters of a commit-ish; empty if git has no such commit here."""
    return git.find(Path.cwd(), rev) or ""


def last_commit_with(path: str, md5: str, most: int = 50) -> str:
    """The newest commit whose version of a file or folder of code is this one; empty if none is."""
    return next((commit for commit in _log(path, most=most) if code_md5(path, commit) == md5), "")


def _log(*paths: str, most: int, head: str = "HEAD") -> list[str]:
    """The newest commits up to `head` that changed files or folders; empty where nothing is committed."""
    here = Path.cwd()
    if not git.find(here, head):
        return []
    return git.read(here, "log", "--format=%H", f"-{most}", head, "--", *paths).split()
