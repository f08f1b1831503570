"""A second checkout of this repository, on a branch of its own, that shares DVC's cache with the first."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from flows import SCRATCH, graph
from wm.core.locks import lock
from wm.records import git

RESULTS = ("dvc.lock", "metrics", "plots")
"""What git keeps and a pipeline writes: no part of what a stage is made from."""
KEPT = ("params.yaml", *RESULTS)
"""What a commit of a run holds: its numbers, the hashes of all that it made, its scores."""


@contextlib.contextmanager
def inside(branch: str) -> Iterator[Path]:
    """The branch's worktree, made where there is none yet, as the current folder.

    A new branch starts at the commit that is checked out here, with what dvc.lock, metrics/ and plots/ know here.

    Raises:
        UserError: git refuses, e.g. because the branch is checked out in another folder.
    """
    top = Path.cwd()
    folder = top / SCRATCH / branch
    SCRATCH.mkdir(exist_ok=True)
    with lock((SCRATCH / "worktrees.lock").absolute()):
        if not _settings(folder).exists():  # written last
            _make(top, folder, branch)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(top)


def _make(top: Path, folder: Path, branch: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # half-made
    git.write(top, "worktree", "prune")
    new = git.find(top, f"refs/heads/{branch}") is None
    git.write(top, "worktree", "add", "--force", *(["-b", branch, str(folder)] if new else [str(folder), branch]))
    if new:
        if Path("dvc.lock").exists():
            shutil.copy("dvc.lock", folder / "dvc.lock")
        for name in filter(os.path.isdir, RESULTS):
            shutil.copytree(name, folder / name, dirs_exist_ok=True)
    _share(folder)


def _share(folder: Path) -> None:
    """The cache and the remotes of the current folder's DVC project, for the one in `folder`.

    What both have is there once: its files are links into the cache, unless the project's settings say otherwise.
    """
    from dvc.config import Config

    with graph.project() as repo:
        mine, cache = repo.config.load_one("local"), Path(repo.cache.legacy.path).absolute()
        kind = repo.config["cache"].get("type") or ["reflink", "hardlink", "copy"]
    settings = _settings(folder)
    with Config(str(settings.parent)).edit("local") as theirs:
        theirs.update(mine)
        theirs.setdefault("cache", {}).update({"dir": str(cache), "type": ",".join(kind)})


def _settings(folder: Path) -> Path:
    return folder / ".dvc" / "config.local"


def follow(commit: str) -> None:
    """Brings the code of the current branch to a commit; its numbers, hashes and scores stay, and no commit is lost."""
    here = Path.cwd()
    _unlock(here)
    if _count(here, f"HEAD..{commit}") == 0:
        return
    target = commit
    if _count(here, f"{commit}..HEAD"):
        message = f"The code of {commit[:12]}"
        parents = ("-p", "HEAD", "-p", commit)
        target = git.write(
            here, *git.author(here), "commit-tree", f"{commit}^{{tree}}", *parents, "-m", message
        ).strip()
    kept = {path: path.read_bytes() for path in _kept_files()}
    git.write(here, "reset", "--hard", "--quiet", target)
    for path, data in kept.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _count(here: Path, commits: str) -> int:
    return int(git.read(here, "rev-list", "--count", commits))


def _kept_files() -> list[Path]:
    roots = [Path(name) for name in KEPT]
    return [path for root in roots for path in ([root] if root.is_file() else root.rglob("*")) if path.is_file()]


def committed(path: str) -> str:
    """The text of a file in the last commit of the current branch; empty if it has none."""
    return (git.content(Path.cwd(), "HEAD", path) or b"").decode()


def commit(message: str) -> str:
    """Commits what a run is (KEPT) to the current branch and returns the commit; where nothing changed, the last."""
    here = Path.cwd()
    _unlock(here)
    return git.commit(here, message, [path for path in KEPT if Path(path).exists()])


def _unlock(here: Path) -> None:
    """A git that was killed leaves its lock; nobody else works in this folder."""
    Path(here, git.read(here, "rev-parse", "--git-path", "index.lock").strip()).unlink(missing_ok=True)
