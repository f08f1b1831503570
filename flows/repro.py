"""One stage, run by DVC: `dvc repro -s STAGE@NAME` in a process of its own, every line of it handed on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows import SCRATCH

LOGS = SCRATCH / "logs"

TRANSIENT = re.compile(
    r"^ERROR: .*(unable to acquire lock|is busy, it is being blocked by|database is locked"
    r"|connection|timed? ?out|temporar|too many requests|service unavailable|name resolution|unexpected EOF)",
    re.IGNORECASE,
)
"""What another process or the network did to DVC. A stage that fails is not here: it is a function of its inputs,
so it would fail again; nor is a full disk or a damaged file. DVC exits with 255 in all cases, so its words decide."""

HINT = re.compile(
    r"^(To track the changes with git|\s*git add |To enable auto staging"
    r"|\s*dvc config core\.autostage|Use `dvc push`)"
)
"""DVC's advice after every stage."""

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Verdict:
    """What DVC did: state is Cached, Restored, Completed, Failed, or Transient (failed, worth another try)."""

    state: str
    log: Path


def repro(address: str, say: Callable[[str], None]) -> Verdict:
    """Runs a stage if DVC finds it changed, and returns DVC's verdict; say() gets every line as it comes."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"{address}.log"
    ran, verdict, transient = False, "Completed", False
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", address]
    # A session of its own: Ctrl-C reaches the flow alone, which ends its processes in order.
    with (
        open(path, "w") as log,
        subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        for line in process.stdout:  # text mode ends a line at a carriage return too, as progress bars need
            if not (line := ANSI.sub("", line).rstrip()):
                continue
            print(line, file=log, flush=True)
            if not HINT.match(line):
                say(line)
            ran = ran or line == f"Running stage '{address}':"
            if not ran and line == f"Stage '{address}' didn't change, skipping":
                verdict = "Cached"
            if not ran and line.startswith(f"Stage '{address}' is cached - skipping run"):
                verdict = "Restored"
            transient = transient or bool(TRANSIENT.search(line))
    if process.returncode:
        verdict = "Transient" if transient and not ran else "Failed"
    return Verdict(verdict, path)


def environment() -> dict[str, str]:
    """For DVC and the stages: this interpreter is dvc.yaml's `python`, and lines come when they are printed.

    DVC runs commands with $SHELL, which may be fish or nologin.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "SHELL": "/bin/sh", "PATH": path, "PYTHONUNBUFFERED": "1"}
