"""One stage, run by DVC: `dvc repro -s STAGE@NAME` in a process of its own, every line of it handed on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def repro(
    address: str, say: Callable[[str], None], pull: bool = False, variables: dict[str, str] | None = None
) -> Verdict:
    """Runs a stage if DVC finds it changed, and returns DVC's verdict; say() gets every line as it comes.

    Args:
        pull: what is not here is looked for in the DVC remote, its run-cache included.
        variables: of the environment, for the stage.
    """
    words = ["repro", *(["--pull"] if pull else []), "-s", address]
    ran, verdict = False, "Completed"

    def hear(line: str) -> None:
        nonlocal ran, verdict
        if not HINT.match(line):
            say(line)
        if line == f"Running stage '{address}':":
            ran, verdict = True, "Completed"
        if not ran and line == f"Stage '{address}' didn't change, skipping":
            verdict = "Cached"
        if not ran and line.startswith(
            (f"Stage '{address}' is cached - skipping run", f"Pulling data for stage: '{address}'")
        ):
            verdict = "Restored"

    path = _log(address)
    failure = dvc(words, path, hear, variables)
    if failure:
        verdict = "Failed" if ran else failure
    return Verdict(verdict, path)


def transfer(address: str, words: list[str], say: Callable[[str], None]) -> Verdict:
    """A `dvc pull` or `dvc push` on behalf of a stage: Completed, Failed or Transient."""
    path = _log(f"{address}.{words[0]}")
    return Verdict(dvc(words, path, lambda line: HINT.match(line) or say(line)) or "Completed", path)


def dvc(words: list[str], log: Path, hear: Callable[[str], Any], variables: dict[str, str] | None = None) -> str | None:
    """Runs a DVC command to its end; hear() gets every line as it comes, and the file `log` too.

    Returns:
        None, or how it failed: "Failed" or "Transient".
    """
    transient = False
    # A session of its own: Ctrl-C reaches the flow alone, which ends its processes in order.
    with (
        open(log, "w") as file,
        subprocess.Popen(
            [sys.executable, "-m", "dvc", "--wait-for-lock", *words],
            env=environment() | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        try:
            for line in process.stdout:  # text mode ends a line at a carriage return too, as progress bars need
                if line := ANSI.sub("", line).rstrip():
                    print(line, file=file, flush=True)
                    hear(line)
                    transient = transient or bool(TRANSIENT.search(line))
        except BaseException:  # a worker is told to stop: the stage with it, or leaving here would wait for its end
            os.killpg(process.pid, signal.SIGTERM)
            raise
    if process.returncode:
        return "Transient" if transient else "Failed"
    return None


def _log(name: str) -> Path:
    LOGS.mkdir(parents=True, exist_ok=True)
    return LOGS / f"{name.rpartition(':')[2]}.log"


def environment() -> dict[str, str]:
    """For DVC and the stages: this interpreter is dvc.yaml's `python`, and lines come when they are printed.

    DVC runs commands with $SHELL, which may be fish or nologin.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "SHELL": "/bin/sh", "PATH": path, "PYTHONUNBUFFERED": "1"}
