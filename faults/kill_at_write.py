"""A stage of the tiny world is killed at its n-th write; the same command then has to end with the same bits.

Each kill is a fork of a process that has imported everything. Before it, there is an earlier output, which has to be
there, or the new one, at every moment.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from faults import forks
from faults.project import hashes
from faults.row import SHORT, Outcome, Row
from faults.shim import Counter
from wm.core import files
from wm.core.journal import Journal, read
from wm.records import spool
from wm.stages import STAGES

SAMPLE = 25
"""Of the operations that are none of these; of these, all."""
ALWAYS = (
    "runs/",
    "metrics/",
    "/checkpoints/",
    "manifest.json",
    "live.jsonl",
    "metrics.jsonl",
    "finished.json",
    "/spool/",
)


def _stage(stage: str, stop_at: int | None = None, counted: Path | None = None) -> int:
    """One stage in this process, which is killed at that operation."""
    from wm.cli import main

    counter = Counter(Path.cwd(), stop_at)
    if stop_at is not None or counted:
        counter.start()
    code = main([stage, "tiny"])
    if counted:
        counted.write_text(json.dumps(counter.operations))
    return code


def stage(stage: str, folder: Path) -> Outcome:
    lost, said = [], set()
    base = forks.project(folder / "base", stage)
    shutil.copytree(base, folder / "undisturbed")
    os.chdir(folder / "undisturbed")
    counted = folder / "counted.json"
    _earlier(stage)
    assert forks.fork(lambda: _stage(stage, counted=counted)) == 0
    expected, operations = forks.made(stage), json.loads(counted.read_text())
    numbers = _chosen(operations)
    for n in numbers:
        work = folder / "work"
        shutil.copytree(base, work)
        os.chdir(work)
        earlier = _earlier(stage)
        what = f"{stage}, killed at {n} of {len(operations)} ({operations[n - 1]})"
        if (code := forks.fork(lambda n=n: _stage(stage, n))) not in (-9, 0):
            lost.append(f"{what}: exit {code}")
        if not _one_is_whole(stage, earlier, expected):
            lost.append(f"{what}: neither the earlier output nor the new one is there")
        log = folder / "log"
        if (code := forks.fork(lambda: _stage(stage), log)) != 0:
            lost.append(f"{what}: the same command ends with {code}: {forks.last(log)}")
        elif forks.made(stage) != expected:
            lost.append(f"{what}: other bits")
        said |= {
            line.split(":")[0] for line in log.read_text().splitlines() if "passed over" in line or "going on" in line
        }
        log.unlink()
        os.chdir(folder)
        shutil.rmtree(work)
    return Outcome(tries=len(numbers), lost=lost, said=sorted(said))


def _earlier(stage: str) -> dict[str, str]:
    """An output of an earlier run, in the place of the one to come."""
    earlier = Path("runs/tiny", stage)
    earlier.mkdir(parents=True)
    (earlier / "earlier").write_text("an earlier run's")
    return hashes(earlier)


def _one_is_whole(stage: str, earlier: dict[str, str], new: dict[str, str]) -> bool:
    place = Path("runs/tiny", stage)
    aside = place.with_name(f".{stage}.old")  # between two renames; the next run puts it back
    there = hashes(place if place.exists() else aside) if place.exists() or aside.exists() else {}
    return there in (earlier, {key: value for key, value in new.items() if key != "metrics"})


def _chosen(operations: list[str]) -> list[int]:
    """Numbers of the operations to be killed at, from 1."""
    always = [n for n, what in enumerate(operations, 1) if any(part in what for part in ALWAYS)]
    rest = [n for n in range(1, len(operations) + 1) if n not in set(always)]
    if os.environ.get(SHORT):
        return sorted({n for n, what in enumerate(operations, 1) if "runs/" in what} | set(always[::10]))
    step = max(1, len(rest) / SAMPLE)
    return sorted({*always, *(rest[int(k * step)] for k in range(min(SAMPLE, len(rest))))})


# ---------------------------------------------------------------- the spool


def _spool(stop_at: int | None = None, counted: Path | None = None) -> int:
    """A run's life in the spool: begun, journal, end, copies, progress."""
    counter = Counter(Path.cwd(), stop_at)
    counter.start()
    entry = spool.open_entry(Path.cwd(), {"live": "live.jsonl", "output": "out", "kind": "stage", "model": "out"})
    journal = Journal(Path("out/metrics.jsonl"), Path("live.jsonl"))
    for step in range(6):
        journal.log(step, {"loss": step / 2})
        Path("logged").write_text(str(step))
    entry.keep()
    entry.close(spool.FINISHED)
    entry.mark(run_id="1", bytes=10)
    if counted:
        counted.write_text(json.dumps(counter.operations))
    return 0


def _spool_row(folder: Path) -> Outcome:
    lost, counted = [], folder / "counted.json"
    for n in range(1000):
        work = folder / "work"
        work.mkdir()
        os.chdir(work)
        code = forks.fork(lambda n=n: _spool(n or None, None if n else counted))
        logged = int(Path("logged").read_text() or -1) if Path("logged").exists() else -1
        forks.fork(lambda: spool.adopt(Path.cwd()) or 0, folder / "log")
        entries = list(Path(".wm/spool").glob("*/run.json"))
        for path in entries:
            entry = spool.Entry(path.parent)
            lines = read(entry.journal) if entry.journal and entry.journal.exists() else []
            if entry.end is None or len(lines) < logged + 1:
                lost.append(f"the spool, killed at {n}: {len(lines)} of {logged + 1} lines, end {entry.end}")
        if not entries and logged >= 0:
            lost.append(f"the spool, killed at {n}: the entry is gone")
        os.chdir(folder)
        shutil.rmtree(work)
        if n and code == 0:
            return Outcome(tries=n - 1, lost=lost)
    raise AssertionError("it never came to an end")


def run(each: str, folder: Path) -> Outcome:
    return _spool_row(folder) if each == "spool" else stage(each, folder)


def unguarded() -> None:
    """Files are written in place, and outputs copied over the earlier ones."""

    def write_bytes(path: Path, data: bytes) -> str:
        with Path(path).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return files.hashlib.sha256(data).hexdigest()

    def replace_folder(new: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(new, target)
        shutil.rmtree(new)

    files.write_bytes, files.replace_folder = write_bytes, replace_folder


ROW = Row(
    fault="a stage of the tiny world, or the spool, killed at its n-th write: all n of publishing, checkpoints, "
    f"journals, manifests and the spool, {SAMPLE} a stage of the rest",
    tries=(*STAGES, "spool"),
    run=run,
    limit=1500,
    unguarded=unguarded,
)
