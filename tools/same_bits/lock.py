"""dvc.lock after a change of code that changed no bit: which records are said again of the new code.

A record is rewritten if at OLD it had OLD's code, command and numbers, and its numbers are the same at NEW (`moved`).
Its rows of code become those that NEW's dvc.yaml names, hashed by DVC; its data and outputs stay what they were. All
else stays as it is, stale, and is named. DVC's own functions read, hash and write, so the text is what a run leaves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.same_bits import compare, moved
from tools.same_bits.cases import OF_MODEL
from tools.same_bits.commits import Commit, environment
from wm.core.errors import UserError
from wm.records import git

PAGE = Path("docs/same-bits.md")
HEAD = """\
# The same bits

Every change of code on which recorded stages depend and that was shown to change no bit of any output: what ran at both
commits, and the records of dvc.lock whose rows of code were rewritten afterwards. `python -m tools.same_bits OLD NEW
--record` writes this page and those rows, and nothing else does; the outputs themselves are still those that an earlier
commit computed, which `python -m wm lineage NAME` names.
"""

Key = tuple[str, str]
"""A lock file, relative to the project's top, and the address of a stage in it."""


@dataclass
class Changes:
    """What becomes of the records: new rows, none for a reason, none since a later run made them, or an end."""

    rewritten: dict[Key, dict[str, Any]] = field(default_factory=dict)
    stale: dict[Key, str] = field(default_factory=dict)
    later: list[Key] = field(default_factory=list)
    gone: list[Key] = field(default_factory=list)

    def text(self) -> str:
        """A paragraph a kind."""
        parts = [f"{len(self.rewritten)} records have the new rows: {_listed(self.rewritten)}."]
        reasons: dict[str, list[Key]] = {}
        for key, reason in self.stale.items():
            reasons.setdefault(reason, []).append(key)
        parts += [f"{len(keys)} stay stale ({reason}): {_listed(keys)}." for reason, keys in reasons.items()]
        if self.later:
            parts.append(f"{len(self.later)} others are not those that the old commit had, and were left alone.")
        if self.gone:
            parts.append(f"{len(self.gone)} left dvc.lock with their stages: {_listed(self.gone)}.")
        return "\n\n".join(parts)


@dataclass(frozen=True)
class _Record:
    """An entry of a lock, and why it was not up to date; empty where it was."""

    entry: dict[str, Any]
    doubt: str


def check_checkout(root: Path, sha: str) -> None:
    """Raises UserError where the checkout is not at this commit, or has changes of its own."""
    state = git.state(root)
    if state.commit != sha:
        raise UserError(f"--record rewrites {root}, which is at {state.commit[:7]}: `git checkout {sha[:7]}` first")
    if state.dirty:
        raise UserError(f"{root} has changes that are in no commit: commit them or `git stash` first")


def record(root: Path, old: Commit, new: Commit, rows: Iterable[compare.Row]) -> str:
    """Rewrites the lock files of the checkout and adds a section to docs/same-bits.md; returns what it did.

    Args:
        root: the project, at the new commit and clean.
        rows: the evidence, in which nothing differs.
    Raises:
        UserError: DVC cannot read one of the two commits, or finds a rewritten record changed.
    """
    git.write(old.clone, "checkout", "-q", "--", "params.yaml")  # which had the cases in it
    changes = _changes(root, _records(old.clone), old.params())
    locks = sorted({lock for lock, _ in (*changes.rewritten, *changes.gone)})
    before = {lock: (root / lock).read_bytes() for lock in locks}
    for lock in locks:
        _write(root, lock, changes)
    if trouble := _still_changed(root, changes.rewritten):
        for lock, data in before.items():
            (root / lock).write_bytes(data)
        raise UserError(f"DVC would still find a change in {trouble}: dvc.lock is as it was")
    _append(root / PAGE, old, new, rows, changes)
    return changes.text()


# ---------------------------------------------------------------- what DVC says of a checkout


@contextmanager
def _project(folder: Path) -> Iterator:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo
    from ruamel.yaml import YAMLError

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo(str(folder), _wait_for_lock=True) as repo, lock_repo(repo):
            yield repo
    except (DvcException, YAMLError) as error:
        raise UserError(f"DVC cannot read {folder}: {' '.join(str(error).split())}") from error


def _stages(repo: Any) -> Iterator[tuple[Key, Any]]:
    """Every stage of a pipeline file, with the key of its record."""
    for stage in repo.index.stages:
        if getattr(stage, "name", None):  # others are data that somebody added
            lock = Path(stage.dvcfile._lockfile.path).relative_to(repo.root_dir)
            yield (lock.as_posix(), stage.name), stage


def _entries(root: Path, locks: Iterable[str]) -> dict[Key, dict[str, Any]]:
    from dvc.utils.serialize import loads_yaml

    found = {}
    for lock in set(locks):
        text = (root / lock).read_text() if (root / lock).exists() else ""
        for name, entry in ((loads_yaml(text) or {}).get("stages") or {}).items():
            found[lock, name] = entry
    return found


class _Code:
    """Which paths are code: those that git keeps, but for the empty predecessors in runs/."""

    def __init__(self, root: Path):
        self._kept = set(git.read(root, "ls-files", "-z").split("\0"))

    def __contains__(self, path: str) -> bool:
        if path.startswith("runs/"):
            return False
        return path in self._kept or any(kept.startswith(f"{path}/") for kept in self._kept)


def _records(root: Path) -> dict[Key, _Record]:
    """Every entry of the lock files of a checkout, and whether it is up to date but for its data."""
    code, found = _Code(root), {}
    with _project(root) as repo:
        stages = dict(_stages(repo))
        for key, entry in _entries(root, (lock for lock, _ in stages)).items():
            found[key] = _Record(entry, _changed(stages[key], code) if key in stages else "it had no stage before")
    return found


def _changed(stage: Any, code: _Code) -> str:
    """What of a stage's command, numbers and code is not as its record says; empty if nothing is."""
    from dvc.dependency import ParamsDependency

    if stage.cmd_changed:
        return "its command had changed before"
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            if dep.workspace_status():
                return "its numbers had changed before"
        elif dep.def_path in code and dep.workspace_status():
            return "its code had changed before"
    return ""


# ---------------------------------------------------------------- what becomes of the records


def _changes(root: Path, records: Mapping[Key, _Record], params: list[Mapping[str, Any]]) -> Changes:
    """What becomes of each record of the old commit in the checkout `root`, which is at the new one.

    Args:
        params: contents of the old commit's files of numbers.
    """
    changes, code = Changes(), _Code(root)
    with _project(root) as repo:
        stages = dict(_stages(repo))
        now = _entries(root, {lock for lock, _ in (*stages, *records)})
        for key in now:
            record = records.get(key)
            if key not in stages:
                changes.gone.append(key)
            elif record is None or record.entry != now[key]:
                changes.later.append(key)
            elif record.doubt:
                changes.stale[key] = record.doubt
            else:
                section = "models" if key[1].partition("@")[0] in OF_MODEL else "agents"
                world = moved.world(params, section, key[1].partition("@")[2])
                entry, doubt = _rewritten(stages[key], record.entry, code, world)
                if doubt:
                    changes.stale[key] = doubt
                else:
                    changes.rewritten[key] = entry
    return changes


def _rewritten(stage: Any, old: Mapping[str, Any], code: _Code, world: str | None) -> tuple[dict[str, Any], str]:
    """A stage's record with the code and the places of numbers that it has now; or why it may not be given."""
    from dvc.dependency import ParamsDependency
    from dvc.stage.loader import StageLoader
    from dvc.stage.serialize import to_single_stage_lockfile
    from dvc.utils.serialize import dumps_yaml, loads_yaml

    if stage.cmd != old["cmd"]:
        return {}, "its command is another"
    StageLoader.fill_from_lock(stage, dict(old))
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency) or dep.def_path in code:
            dep.save()  # in memory
        elif not dep.hash_info:
            return {}, f"it reads {dep.def_path}, which it did not"
    if any(not out.hash_info for out in stage.outs):
        return {}, "it has another output"
    entry = loads_yaml(dumps_yaml(to_single_stage_lockfile(stage)))
    if entry.get("outs") != old.get("outs"):
        return {}, "it has other outputs"
    kept = [row for row in entry.get("deps", []) if row["path"] not in code]
    if any(row not in old["deps"] for row in kept) or _data(old, kept):
        return {}, "it reads other data"
    found = moved.differences(old.get("params") or {}, entry.get("params") or {}, world)
    return entry, "; ".join(found)


def _data(old: Mapping[str, Any], kept: list[Mapping[str, Any]]) -> set[str]:
    """Outputs of stages that the old record read and the new one does not."""
    return {row["path"] for row in old["deps"] if row["path"].startswith("runs/")} - {row["path"] for row in kept}


def _write(root: Path, lock: str, changes: Changes) -> None:
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(root / lock) as content:  # its own writer, so that a later run leaves the same text
        for (where, name), entry in changes.rewritten.items():
            if where == lock:
                content["stages"][name] = entry
        for where, name in changes.gone:
            if where == lock:
                del content["stages"][name]


def _still_changed(root: Path, keys: Iterable[Key]) -> str:
    """The first of these records that DVC does not find up to date now; empty for none."""
    code = _Code(root)
    with _project(root) as repo:
        stages = dict(_stages(repo))
        return next((key[1] for key in keys if _changed(stages[key], code)), "")


def _append(page: Path, old: Commit, new: Commit, rows: Iterable[compare.Row], changes: Changes) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    text = page.read_text() if page.exists() else HEAD
    table = compare.table(rows, (old.sha[:7], new.sha[:7]))
    title = f"## {time.strftime('%Y-%m-%d')}: `{old.sha}` to `{new.sha}`"
    page.write_text("\n\n".join([text.rstrip("\n"), title, f"{environment()}.", table, changes.text()]) + "\n")


def _listed(keys: Iterable[Key]) -> str:
    """`collect` of a, b; `evolve` of c."""
    names: dict[str, list[str]] = {}
    for _, address in keys:
        stage, _, name = address.partition("@")
        names.setdefault(stage, []).append(name)
    return "; ".join(f"`{stage}` of {', '.join(sorted(found))}" for stage, found in names.items()) or "none"
