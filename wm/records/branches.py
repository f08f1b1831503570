"""A run on a branch of its own, as commands name it: BRANCH:NAME, such as run/smoke-seed1:smoke."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wm.core.errors import UserError
from wm.records import git


@contextmanager
def inside(run: str) -> Iterator[str]:
    """The folder of a run as the current one, and the name of its agent; where no branch is named, nothing happens.

    Raises:
        UserError: the branch is checked out nowhere here.
    """
    branch, _, name = run.rpartition(":")
    if not branch:
        yield name
        return
    top = Path.cwd()
    if git.find(top, branch) is None:
        raise UserError(f"{branch!r} is no branch that git knows here: look at `git branch --list`, or run `git fetch`")
    folder = git.worktree(top, branch)
    if folder is None or not folder.is_dir():
        raise UserError(
            f"the files of {branch} are not here: run `git worktree add .wm/{branch} {branch}`, and `dvc checkout` in "
            "it if it shares this folder's DVC cache, or `dvc pull`"
        )
    os.chdir(folder)
    try:
        yield name
    finally:
        os.chdir(top)
