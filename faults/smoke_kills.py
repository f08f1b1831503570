"""Whole runs of the pipeline of `smoke`, with real CarRacing, each killed three times at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from faults.project import ROOT, environment, git, hashes, wait_until_gone
from faults.row import Outcome, Row
from wm.core import files

SEEDS = tuple(range(8))
KILLS = 3
AGENT = "smoke"
WHOLE = Path("build/faults/smoke_whole.json").absolute()
"""The hashes of an undisturbed run, and the seconds that it took; made by the first try."""


def _fresh(folder: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    git(folder, "rm", "-q", "--cached", "dvc.lock")  # all of it is made here
    (folder / "dvc.lock").unlink()
    return folder


def _start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline", AGENT],
        cwd=folder,
        env={**environment(folder), "WM_WORKERS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _made(folder: Path) -> dict[str, str]:
    score = {"metrics": files.sha256(folder / f"metrics/{AGENT}.json")}
    return hashes(folder / f"runs/{AGENT}") | score


def _undisturbed(folder: Path, code: str) -> dict:
    kept = files.read_json(WHOLE) if WHOLE.exists() else {}
    if kept.get("code") != code:
        _fresh(folder)
        began = time.monotonic()
        process = _start(folder)
        output = process.communicate(timeout=1500)[0]
        assert process.returncode == 0, output[-2000:]
        kept = {"code": code, "seconds": time.monotonic() - began, "made": _made(folder)}
        files.write_json(WHOLE, kept)
    return kept


def run(each: str, folder: Path) -> Outcome:
    seed = int(each)
    code = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    whole, rng, lost, said = _undisturbed(folder / "whole", code), random.Random(seed), [], []
    here = _fresh(folder / "killed")
    for _ in range(KILLS):
        process, moment = _start(here), rng.uniform(2, 0.6 * whole["seconds"])
        try:
            process.wait(timeout=moment)
            said.append("it had ended before it could be killed")
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            if left := wait_until_gone(here, 15):
                lost.append(f"seed {seed}: left behind after 15 s: {left[:100]}")
    process = _start(here)
    output = process.communicate(timeout=2 * whole["seconds"] + 600)[0]
    if process.returncode:
        lost.append(f"seed {seed}: it ends with {process.returncode}: {output.strip().splitlines()[-1][:200]}")
    elif _made(here) != whole["made"]:
        lost.append(f"seed {seed}: other bits")
    said += ["going on from the last checkpoint" for line in output.splitlines() if "going on from" in line][:1]
    return Outcome(tries=KILLS, lost=lost, said=said, seeds=(seed,))


ROW = Row(
    fault="a whole run of `smoke` (CarRacing), killed three times at random moments, eight times over",
    tries=tuple(map(str, SEEDS)),
    run=run,
    limit=3600,
)
