"""What a flow lets DVC do: run a stage, fetch, send; each in a process of its own, every line of it handed on.

This is the one place where a flow restores, fetches or sends, and so where what comes and goes is compared with its
record (flows/damage.py).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import SCRATCH, damage, graph

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
    """What DVC did.

    Attributes:
        state: Cached, Restored, Completed; Failed, Transient (worth another try), or Damaged: what it needed was not
            what its record says, and is put aside, so that it will be brought back or made again.
        why: a sentence, where it failed.
    """

    state: str
    log: Path
    why: str = ""

    @property
    def failed(self) -> bool:
        """Whether nothing is to be done with what it gave."""
        return self.state in FAILED


FAILED = ("Failed", "Transient", "Damaged")
TRIES = 3
"""How often something is brought back before the disk, or the remote, is given up."""


def repro(
    address: str, say: Callable[[str], None], pull: bool = False, variables: dict[str, str] | None = None
) -> Verdict:
    """Runs a stage if DVC finds it changed, and returns DVC's verdict; say() gets every line as it comes.

    Args:
        pull: what is not here is looked for in the DVC remote, its run-cache included.
        variables: of the environment, for the stage.
    """
    state, log = "Cached", _log(address)
    for turn in range(TRIES):
        doubtful, since = damage.doubtful(address), time.time()
        damage.doubt([address])
        _check_lists(say)
        done = _repro(address, say, pull, variables)
        if done in FAILED:
            damage.settle([address])
            return _failed(address, done, log, say)
        state = done if done != "Cached" else state
        if pull and done == "Restored" and _check_lists(say, address):
            continue
        whole = doubtful or done == "Restored"  # else only what the cache had before
        if not (whole or done == "Completed") or not _compare([address], say, None if whole else since, pull and turn):
            damage.settle([address])
            return Verdict(state, log)
    return Verdict("Failed", log, f"what {address} made is damaged whenever it is written: look at the disk (`dmesg`)")


def _failed(address: str, state: str, log: Path, say: Callable[[str], None]) -> Verdict:
    """Perhaps because of what the stage reads: damage on the disk, which DVC does not see."""
    why = f"{address} failed; its log is {log}"
    if state == "Failed" and (said := _compare(graph.upstream(address), say)):
        return Verdict("Damaged", log, f"{why}; {said[0]}; the same command goes on")
    return Verdict(state, log, why)


def _check_lists(say: Callable[[str], None], restored: str | None = None) -> bool:
    """Puts damaged lists of folders aside; returns whether there were any.

    Args:
        restored: a stage that DVC has just restored by what it fetched.
    """
    with graph.project() as repo:
        found = damage.put_aside_lists(repo.cache.local)
        if found and restored:
            damage.forget(graph.find(repo, restored))
    for line in found.values():
        say(f"Damaged: {line}")
    return bool(found)


def _compare(
    addresses: Iterable[str], say: Callable[[str], None], since: float | None = None, remote: bool | int = False
) -> list[str]:
    """What was damaged of these stages, and is put aside now: sentences, also said.

    Args:
        since: as `damage.put_aside` takes it.
        remote: whether the DVC remote gave it, twice.
    """
    said: list[str] = []
    with graph.project() as repo:
        for address in addresses:
            stage = graph.find(repo, address)
            found = damage.put_aside(stage, since)
            said += found.values()
            if found and remote:
                said += damage.put_aside_there(stage, found, repo.cloud.get_remote_odb(command="pull"))
    for line in said:
        say(f"Damaged: {line}")
    return said


def pull(name: str, addresses: Sequence[str], say: Callable[[str], None]) -> Verdict:
    """Fetches what stages made, as dvc.lock has it, from the DVC remote, also where something else is here.

    Args:
        name: of the log.
    """
    said: list[str] = []
    for turn in range(TRIES):
        with graph.project() as repo:
            waiting = [one for one in addresses if damage.doubtful(one) or damage.differs(graph.find(repo, one))]
        damage.doubt(waiting)
        done = transfer(name, ["pull", "--force", *addresses], say)
        if done.state == "Failed":
            said += _incomplete(addresses, say)
        if done.failed:
            return Verdict("Damaged", done.log, said[0]) if said and done.state == "Failed" else done
        found = _compare(waiting, say, remote=turn)
        damage.settle(waiting)
        if not found:
            return done
        said += found
    return Verdict("Damaged", done.log, said[0])


def _incomplete(addresses: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """Folders of which the remote has the list and not all files: they are put aside there, to be made again."""
    said = []
    with graph.project() as repo:
        remote = repo.cloud.get_remote_odb(command="pull")
        for address in addresses:
            stage = graph.find(repo, address)
            gone = [name for name in damage.missing(stage) if not remote.exists(name)]
            if gone and damage.put_aside_there(stage, [], remote):
                said.append(f"the DVC remote has lost {gone[0]}, which {address} made: it has to be made again")
    for line in said:
        say(f"Damaged: {line}")
    return said


def push(address: str, say: Callable[[str], None]) -> Verdict:
    """Sends what a stage made, and the run-cache, to the DVC remote; nothing that is damaged."""
    with graph.project() as repo:
        stage, remote = graph.find(repo, address), repo.cloud.get_remote_odb(command="push")
        found = damage.put_aside(stage) if damage.is_new_to(stage, remote) else {}
        lost = damage.missing(stage)
    for line in found.values():
        say(f"Damaged: {line}")
    if found and lost:
        return Verdict("Damaged", _log(f"{address}.push"), next(iter(found.values())))
    done = transfer(address, ["push", "--run-cache", address], say)
    if not done.failed:
        graph.push_kept_by_git(address)
    return done


def _repro(address: str, say: Callable[[str], None], pull: bool, variables: dict[str, str] | None) -> str:
    """DVC's verdict, once."""
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

    failure = dvc(words, _log(address), hear, variables)
    return verdict if failure is None else "Failed" if ran else failure


def transfer(address: str, words: list[str], say: Callable[[str], None]) -> Verdict:
    """A `dvc pull` or `dvc push` on behalf of a stage: Completed, Failed or Transient."""
    path = _log(f"{address}.{words[0]}")

    def hear(line: str) -> None:
        if not HINT.match(line):
            say(line)

    return Verdict(dvc(words, path, hear) or "Completed", path)


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
            for line in process.stdout or ():  # text mode ends a line at a carriage return too, as progress bars need
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
