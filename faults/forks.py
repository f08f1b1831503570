"""Stages of the tiny world in forks of one process that has imported everything: a try is a matter of a second."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from faults.project import hashes, make_project
from wm.core import files
from wm.stages import STAGES


def fork(work: Callable[[], int], said: Path | None = None) -> int:
    """Runs `work` in a child; returns its exit code, -9 where it was killed."""
    sys.stdout.flush()
    sys.stderr.flush()
    if (child := os.fork()) == 0:
        code = 70
        try:
            handle = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def load() -> None:
    """Everything that a child would import."""
    import tiny_world

    from wm import cli, run

    assert cli and run and tiny_world
    for each in STAGES:
        importlib.import_module(f"wm.stages.{each}")


def made(stage: str) -> dict[str, str]:
    """What a run of a stage leaves, by path."""
    found = hashes(Path("runs/tiny") / stage) if Path("runs/tiny", stage).exists() else {}
    score = Path("metrics/tiny.json")
    return found | ({"metrics": files.sha256(score)} if stage == "evaluate" and score.exists() else {})


def run(stage: str, before: Callable[[], None] | None = None) -> int:
    """One stage in this process; returns its exit code."""
    from wm.cli import main

    if before:
        before()
    return main([stage, "tiny"])


def project(folder: Path, stage: str) -> Path:
    """A project in which every stage before this one has run, as the current folder."""
    os.environ |= {"WM_TRACKING": "off", "WM_WORKERS": "1"}
    load()
    folder.mkdir()
    os.chdir(folder)
    make_project(folder)
    for each in list(STAGES)[: list(STAGES).index(stage)]:
        if code := fork(lambda each=each: run(each)):
            raise AssertionError(f"{each} ends with {code} before anything was done to it")
    return folder


def expected(base: Path, stage: str) -> dict[str, str]:
    """What an undisturbed run of a stage leaves."""
    with copy(base, base.with_name("undisturbed")):
        assert fork(lambda: run(stage)) == 0
        return made(stage)


@contextlib.contextmanager
def copy(base: Path, place: Path):
    """A copy of a project as the current folder, gone at the end."""
    shutil.copytree(base, place)
    os.chdir(place)
    try:
        yield place
    finally:
        os.chdir(base)
        shutil.rmtree(place)


def last(log: Path) -> str:
    """The last line that was said."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][:300] if lines else ""


def is_sentence(log: Path) -> bool:
    """Whether a mistake was told in a sentence, not with a traceback."""
    return last(log).startswith("error: ") and "Traceback (most recent call last)" not in log.read_text(
        errors="replace"
    )
