"""A second checkout of this repository, on a branch of its own, that shares DVC's cache with the first."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from flows import SCRATCH, graph
from flows.checkout import git
from wm.core.locks import lock

KEPT = ("params.yaml", "dvc.lock", "metrics")
"""What a commit of a round holds: its numbers, the hashes of all that it made, its scores."""


@contextlib.contextmanager
def inside(branch: str) -> Iterator[Path]:
    """The branch's worktree, made where there is none yet, as the current folder.

    A new branch starts at the commit that is checked out here, with what dvc.lock knows here.

    Raises:
        UserError: git refuses, e.g. because the branch is checked out in another folder.
    """
    top = Path.cwd()
    folder = top / SCRATCH / branch
    SCRATCH.mkdir(exist_ok=True)
    with lock((SCRATCH / "worktrees.lock").absolute()):
        if not _settings(folder).exists():  # written last
            _make(folder, branch)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(top)


def _make(folder: Path, branch: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # half-made
    git("worktree", "prune")
    new = not git("branch", "--list", branch).strip()
    git("worktree", "add", "--force", *(["-b", branch, str(folder)] if new else [str(folder), branch]))
    if not (folder / "dvc.lock").exists() and Path("dvc.lock").exists():
        shutil.copy("dvc.lock", folder / "dvc.lock")
    _share(folder)


def _share(folder: Path) -> None:
    """The cache and the remotes of the current folder's DVC project, for the one in `folder`."""
    from dvc.config import Config

    with graph.project() as repo:
        mine, cache = repo.config.load_one("local"), Path(repo.cache.legacy.path).absolute()
    settings = _settings(folder)
    with Config(str(settings.parent)).edit("local") as theirs:
        theirs.update(mine)
        theirs.setdefault("cache", {})["dir"] = str(cache)


def _settings(folder: Path) -> Path:
    return folder / ".dvc" / "config.local"


def committed(path: str) -> str:
    """The text of a file in the last commit of the current branch."""
    return git("show", f"HEAD:{path}")


def commit(message: str) -> str:
    """Commits what a round is (KEPT) to the current branch and returns the commit; where nothing changed, the last."""
    Path(git("rev-parse", "--git-path", "index.lock").strip()).unlink(missing_ok=True)  # of a commit that was killed
    kept = [path for path in KEPT if Path(path).exists()]
    git("add", "--force", "--", *kept)
    if git("diff", "--cached", "--name-only", "--", *kept).strip():
        git(*_author(), "commit", "--quiet", "--message", message, "--", *kept)
    return git("rev-parse", "HEAD").strip()


def _author() -> list[str]:
    """A name for commits on a machine that nobody has given one."""
    if git("config", "--get", "--default", "", "user.email").strip():
        return []
    return ["-c", "user.name=world-models", "-c", "user.email=world-models@localhost"]
