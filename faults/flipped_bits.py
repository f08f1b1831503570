"""One bit flips in a file that is read: it is refused in a sentence, made again, or of no matter; never other bits.

What a stage reads, what a stage that was killed goes on from, the spool, DVC's cache and lock, and the databases.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from faults import forks
from faults.project import Project, clone, environment, hashes
from faults.row import Outcome, Row
from faults.shim import Counter
from wm.core import files
from wm.stages import STAGES

SEED = 28
READS = tuple(f"read by {stage}" for stage in list(STAGES)[1:])
RESUMED = tuple(f"gone on from by {stage}" for stage in ("collect", "train_vae", "train_mdn", "evolve"))
FLIPS = 4
"""A file, in what a stage reads; twice as many a file of those that it goes on from."""


def flip(path: Path, rng: random.Random) -> str:
    """One bit, as a disk changes it: times stay. Returns where."""
    was, data = path.stat(), bytearray(path.read_bytes())
    at = rng.randrange(8 * len(data))
    data[at // 8] ^= 1 << at % 8
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(was.st_mode & 0o777)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    return f"{path} bit {at}"


def _stage(stage: str, base: Path, folder: Path, found: list[str], rng: random.Random, many: int) -> Outcome:
    """Flips bits of files of a project in which a stage is to run or to go on."""
    lost, said, tries = [], [], 0
    with forks.copy(base, folder / "whole"):
        assert forks.fork(lambda: forks.run(stage), folder / "log") == 0, forks.last(folder / "log")
        whole = forks.made(stage)
    for name in found:
        for _ in range(many):
            with forks.copy(base, folder / "work"):
                what, log = flip(Path(name), rng), folder / "log"
                log.unlink(missing_ok=True)
                tries += 1
                code = forks.fork(lambda: forks.run(stage), log)
                if code and not forks.is_sentence(log):
                    lost.append(f"{stage}, {what}: exit {code}: {forks.last(log)}")
                elif code:
                    said.append(forks.last(log).partition(":")[2].partition("(")[0].strip()[:100])
                elif forks.made(stage) != whole:
                    lost.append(f"{stage}, {what}: other bits, in silence")
    return Outcome(tries=tries, lost=lost, said=said, seeds=(SEED,))


def _read(stage: str, folder: Path) -> Outcome:
    base, rng = forks.project(folder / "base", stage), random.Random(f"{SEED} {stage}")
    ends = (".safetensors", ".parquet", "manifest.json", "controller.json", "vae.json", "mdnrnn.json", "latents.json")
    inputs = [path for path in Path("runs/tiny").rglob("*") if path.name.endswith(ends)]
    before = list(STAGES)[: list(STAGES).index(stage)]
    inputs = sorted(str(path) for path in inputs if path.parts[2] in before)
    return _stage(stage, base, folder, inputs, rng, FLIPS)


def _resumed(stage: str, folder: Path) -> Outcome:
    """A stage that was killed two thirds through its writes."""
    base, rng = forks.project(folder / "base", stage), random.Random(f"{SEED} on {stage}")
    counted: list[str] = []

    def half(stop_at: int | None) -> Callable[[], int]:
        def work() -> int:
            counter = Counter(Path.cwd(), stop_at)
            counter.start()
            code = forks.run(stage)
            (folder / "count").write_text(str(len(counter.operations)))
            return code

        return work

    with forks.copy(base, folder / "counted"):
        assert forks.fork(half(None)) == 0
    assert forks.fork(half(2 * int((folder / "count").read_text()) // 3)) == -9
    counted = [str(p) for p in Path(".wm/work").rglob("*") if p.is_file() and p.suffix != ".lock" and p.stat().st_size]
    return _stage(stage, base, folder, sorted(counted), rng, 2 * FLIPS)


def _dvc(folder: Path) -> Outcome:
    """Objects of the cache (restored by a flow), and dvc.lock: the right bytes come back, or a sentence."""
    project, rng, lost, said, tries = Project(folder / "project"), random.Random(SEED), [], [], 0
    assert project.run("dvc", "repro", "-q", "evaluate@tiny")[0] == 0
    whole = hashes(project.folder / "runs")
    kept = folder / "kept"
    shutil.copytree(project.folder, kept, symlinks=True)
    objects = sorted(str(p.relative_to(kept)) for p in (kept / ".dvc/cache/files/md5").rglob("*") if p.is_file())
    for name in [*rng.sample(objects, 6), *["dvc.lock"] * 6]:
        shutil.rmtree(project.folder)
        shutil.copytree(kept, project.folder, symlinks=True)
        what = flip(project.folder / name, rng)
        if name != "dvc.lock":
            shutil.rmtree(project.folder / "runs/tiny")
        script = (
            "from flows.repro import repro\n"
            f"states = [repro(f'{{stage}}@tiny', print).state for stage in {tuple(STAGES)}]\n"
            "print(states)"
        )
        code, output = project.run_script(script)
        tries += 1
        last = (output.strip().splitlines() or [""])[-1]
        if code:
            said.append(last[:100])
            if "UserError" not in last:
                lost.append(f"{what}: exit {code}: {last[:200]}")
        elif hashes(project.folder / "runs") != whole:
            lost.append(f"{what}: other bytes: {last}")
        said += [
            line.partition(", of")[0].partition(".dvc")[0] + "…" for line in output.splitlines() if "Damaged" in line
        ][:1]
    return Outcome(tries=tries, lost=lost, said=said, seeds=(SEED,))


def _databases(folder: Path) -> Outcome:
    """MLflow's database: a stage's work is whole, whatever is in it."""
    project, rng, lost, said = clone(folder / "project"), random.Random(SEED), [], []
    env = environment(project) | {"WM_TRACKING": "on"}

    def stage() -> tuple[int, str]:
        command = [sys.executable, "tiny_world.py", "collect", "tiny"]
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=200)
        return done.returncode, done.stdout + done.stderr

    code, output = stage()
    assert code == 0, output
    whole, database = hashes(project / "runs"), project / "mlflow.db"
    with sqlite3.connect(database) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = database.read_bytes()
    for _ in range(6):
        database.write_bytes(kept)
        data = bytearray(kept)
        for _ in range(200):  # one bit would rarely be where anybody looks
            at = rng.randrange(8 * len(data))
            data[at // 8] ^= 1 << at % 8
        database.write_bytes(data)
        shutil.rmtree(project / "runs/tiny")
        code, output = stage()
        if code or "Traceback (most recent call last)" in output or hashes(project / "runs") != whole:
            lost.append(f"mlflow.db: exit {code}: {output.strip().splitlines()[-1][:200]}")
        said += [line[:120] for line in output.splitlines() if line.startswith("warning")][:1]
    return Outcome(tries=6, lost=lost, said=said, seeds=(SEED,))


def run(each: str, folder: Path) -> Outcome:
    if each in READS:
        return _read(each.split()[-1], folder)
    if each in RESUMED:
        return _resumed(each.split()[-1], folder)
    return _dvc(folder) if each == "cache and lock" else _databases(folder)


def unguarded() -> None:
    """No checksum is looked at."""
    from wm.core import episodes

    files.check = lambda *_: None
    files.read_record = lambda path: {k: v for k, v in files.read_json(path).items() if k != files.CHECKSUM}
    episodes.files.check = files.check


ROW = Row(
    fault="one bit flipped in a file: shards, models, checkpoints, journals, DVC's objects and lock, MLflow's database",
    tries=(*READS, *RESUMED, "cache and lock", "databases"),
    run=run,
    limit=900,
    unguarded=unguarded,
)
