"""Two runs at once: of one stage, of one pipeline in one folder, of two folders that send to one remote."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from faults import project
from faults.project import ROOT, Project, clone, environment, finish, hashes
from faults.row import Outcome, Row


def _stages(folder: Path) -> Outcome:
    """The same stage, started three times in one folder."""
    here, lost, said = clone(folder / "project"), [], []
    env, command = environment(here), [sys.executable, "tiny_world.py", "collect", "tiny"]
    subprocess.run(command, cwd=here, env=env, check=True, capture_output=True)
    whole = hashes(here / "runs")
    for head_start in (0.0, 0.5, 3.0):
        first = subprocess.Popen(command, cwd=here, env=env, stdout=-1, stderr=subprocess.STDOUT, text=True)
        time.sleep(head_start)
        others = [
            subprocess.Popen(command, cwd=here, env=env, stdout=-1, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)
        ]
        for process in (first, *others):
            output = process.communicate(timeout=200)[0]
            last = (output.strip().splitlines() or [""])[-1]
            if process.returncode and not last.startswith("error: "):
                lost.append(f"exit {process.returncode}: {last[:200]}")
            if process.returncode:
                said.append(last[:120])
        if hashes(here / "runs") != whole:
            lost.append("other bits")
    return Outcome(tries=3, lost=lost, said=said)


def _pipelines(folder: Path) -> Outcome:
    """Two pipelines and `dvc repro` by hand in one folder."""
    both, lost, said = Project(folder / "project"), [], []
    both.set("evolve", seconds=3)
    started = [
        both.start("flows.pipeline", "tiny"),
        both.start("flows.pipeline", "tiny"),
        both.start("dvc", "--wait-for-lock", "repro", "evaluate@tiny"),
    ]
    for process in started:
        code, output = finish(process)
        if code:
            lost.append(f"exit {code}: {output.strip().splitlines()[-1][:200]}")
        said += [line[:80] for line in output.splitlines() if line.startswith("Waiting for the pipeline")][:1]
    for _ in range(1):
        code, output = both.run("dvc", "status", "evaluate@tiny")
        if "up to date" not in output:
            lost.append(f"dvc status: {output.strip()[:200]}")
    if both.processes():
        lost.append(f"left behind: {both.processes()[0][:100]}")
    return Outcome(tries=1, lost=lost, said=said)


def _remote(folder: Path) -> Outcome:
    """Two folders that made the same send it to one remote at the same time; a third fetches."""
    one, lost = Project(folder / "one"), []
    assert one.run("dvc", "repro", "-q", "evaluate@tiny")[0] == 0
    one.git("add", "-A")
    one.git("commit", "-qm", "made")
    two, three = one.clone(folder / "two"), one.clone(folder / "three")
    assert two.run("dvc", "repro", "-q", "evaluate@tiny")[0] == 0
    for each in (one, two, three):
        each.run("dvc", "remote", "add", "--local", "--default", "storage", str(folder / "remote"))
    for process in [each.start("dvc", "push", "--run-cache") for each in (one, two)]:
        code, output = finish(process)
        if code:
            lost.append(f"push: exit {code}: {output.strip().splitlines()[-1][:200]}")
    code, output = three.run("dvc", "pull", "evaluate@tiny", "evolve@tiny", "collect@tiny")
    for name in ("evolve", "evaluate", "collect"):
        if code or hashes(three.folder / "runs/tiny" / name) != hashes(one.folder / "runs/tiny" / name):
            lost.append(f"pull of {name}: exit {code}: {output.strip()[-200:]}")
    return Outcome(tries=1, lost=lost)


KINDS = {"one stage": _stages, "one folder": _pipelines, "one remote": _remote}


def run(each: str, folder: Path) -> Outcome:
    return KINDS[each](folder)


def unguarded() -> None:
    """Every lock is free, in the stages that are started."""
    project.EXTRA.append(str(ROOT / "faults/unlocked"))


ROW = Row(
    fault="two at once: one stage thrice; two pipelines and `dvc repro` in one folder; two that send to one remote",
    tries=tuple(KINDS),
    run=run,
    limit=600,
    unguarded=unguarded,
)
