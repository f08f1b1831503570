"""What a run has to tell MLflow, on disk before MLflow hears of it: a dead or slow server loses nothing.

An entry is a folder `.wm/spool/<key>/`:
    run.json      what is known when the run starts; its key is also a tag of the MLflow run, so that sending
                  twice finds the first run again
    end.json      what is known when it ends (absent while it runs)
    sent.json     how far the sender came
    metrics.jsonl, files/, model/
                  copies, made only where sending failed: a later run may change the originals
    owner.lock    held by the run's process: an entry that is still there with a free lock was not sent whole
The sender deletes the entry once MLflow has everything. Stages of a pipeline are sent by the pipeline's own sender, so
that none of them waits for MLflow.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from wm.core import files
from wm.core.errors import DamagedData
from wm.core.locks import lock

RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"  # MLflow's words


class Entry:
    """One run's folder in the spool. Paths inside `run.json` are relative to `root`, the repository's top."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.root = self.folder.parents[2]
        self.lock = lock(self.folder / "owner.lock")
        self._run: dict[str, Any] | None = None

    @property
    def run(self) -> dict[str, Any]:
        """What was known at the start.

        Raises:
            DamagedData: it is not whole, or the entry was sent and deleted.
        """
        path = self.folder / "run.json"
        self._run = self._run or _read(path)
        if self._run is None:
            raise DamagedData(f"{path} is gone: its entry was sent, or deleted")
        return self._run

    @property
    def end(self) -> dict[str, Any] | None:
        """What was known at the end; None while the run goes on."""
        return _read(self.folder / "end.json")

    @property
    def sent(self) -> dict[str, Any]:
        """How far the sender came: MLflow's run id, and bytes of the journal that it has."""
        return _read(self.folder / "sent.json") or {}

    def mark(self, **progress: Any) -> None:
        """Adds to `sent`."""
        files.write_json(self.folder / "sent.json", {**self.sent, **progress})

    def close(self, status: str, **fields: Any) -> None:
        """Writes how the run ended; `end_ms` is now if not among the fields."""
        files.write_json(self.folder / "end.json", {"status": status, "end_ms": _now(), **fields})

    @property
    def journal(self) -> Path | None:
        """The journal to send: the copy if there is one, else the live file; None if the run keeps none."""
        copy = self.folder / "metrics.jsonl"
        if copy.exists() or not self.run.get("live"):
            return copy if copy.exists() else None
        return self.root / self.run["live"]

    @property
    def output(self) -> Path:
        """The folder of results to send: the copy if there is one, else the output itself."""
        return self._copy_or("files", self.run.get("output"))

    @property
    def model(self) -> Path:
        """The folder with the models to register: the copy if there is one, else the stage's own."""
        return self._copy_or("model", self.run.get("model"))

    @property
    def held(self) -> bool:
        """Whether another process has its lock: its run's while that goes on, or one that sends it."""
        try:
            with self.lock.acquire(timeout=0):
                return False
        except (Timeout, OSError):
            return True

    def keep(self) -> None:
        """Copies the journal, the results (without shards) and the models: a later run may change them."""
        live = self.journal
        if live and live.exists() and live.parent != self.folder:
            shutil.copyfile(live, self.folder / "metrics.tmp")
            os.replace(self.folder / "metrics.tmp", self.folder / "metrics.jsonl")
        for name, original in (("files", self.output), ("model", self.model)):
            if original.is_dir() and original.parent != self.folder:
                part = self.folder / f"{name}.tmp"
                shards = shutil.ignore_patterns("*.parquet")
                shutil.copytree(original, part, ignore=shards, dirs_exist_ok=True)
                os.replace(part, self.folder / name)

    def _copy_or(self, name: str, original: str | None) -> Path:
        copy = self.folder / name
        return copy if copy.exists() else self.root / (original or ".wm/nothing")

    def delete(self) -> None:
        """Forgets the entry: MLflow has everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def open_entry(root: Path, run: dict[str, Any]) -> Entry:
    """A new entry, its lock held by this process; `run` gets a `key` and `start_ms`."""
    now = time.time()
    order = f"{int(now % 1 * 1e6):05x}"  # microseconds: who began first is sent first, within a second too
    key = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{order}{uuid.uuid4().hex[:5]}"
    folder = Path(root).resolve() / ".wm" / "spool" / key
    folder.mkdir(parents=True)
    entry = Entry(folder)
    entry.lock.acquire()
    files.write_json(folder / "run.json", {**run, "key": key, "start_ms": _now()})
    return entry


def under_way(root: Path, key: str | None) -> Entry | None:
    """The entry of a run of this folder that goes on; None if there is none."""
    entry = Entry(Path(root).resolve() / ".wm" / "spool" / (key or "none"))
    there = (entry.folder / "run.json").exists() and entry.end is None and entry.held
    return entry if there else None


def children(parent: Entry) -> list[Entry]:
    """The entries of a pipeline's stages, oldest first."""
    found = []
    for path in sorted(parent.folder.parent.glob("*/run.json")):
        entry = Entry(path.parent)
        with suppress(DamagedData):  # sent and deleted meanwhile
            if entry.run.get("parent") == parent.run["key"]:
                found.append(entry)
    return found


def left_behind(root: Path) -> Iterator[Entry]:
    """Entries of ended runs that were not sent whole, oldest first; each is locked while it is looked at. A damaged one
    is left where it is, with a warning: no run has to fail for what another one had to tell."""
    for folder in sorted((Path(root).resolve() / ".wm" / "spool").glob("*/run.json")):
        entry = Entry(folder.parent)
        try:
            with entry.lock.acquire(timeout=0):
                if (entry.folder / "run.json").exists() and _is_whole(entry):
                    yield entry
        except (Timeout, OSError):
            continue


def adopt(root: Path) -> None:
    """Closes entries of runs that were killed, before their successor writes to the same journal."""
    for entry in left_behind(root):
        if entry.end is None:
            ended = _last_sign(entry)
            entry.keep()
            entry.close(KILLED, message="the process was killed", end_ms=ended)


def _is_whole(entry: Entry) -> bool:
    try:
        _ = entry.run, entry.sent, entry.end
    except DamagedData as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _read(path: Path) -> dict[str, Any] | None:
    """A file of an entry; None where it is not there, or is gone with its entry at this moment.

    Raises:
        DamagedData: it is not whole.
    """
    try:
        return files.parse_json(path.read_bytes(), str(path), f"delete {path.parent}, and MLflow will lack that run")
    except FileNotFoundError:
        return None


def _last_sign(entry: Entry) -> int:
    """When the entry's run last wrote anything, in milliseconds: its successor may start days later."""
    live = entry.root / entry.run["live"] if entry.run.get("live") else None
    scratch = live.parent.rglob("*") if live else ()
    times = [path.stat().st_mtime for path in (entry.folder / "run.json", *scratch) if path.is_file()]
    return int(1000 * max(times))


def _now() -> int:
    return int(time.time() * 1000)
