"""The one place that calls git: fixed surroundings, fixed options, and a failure is never read as an answer.

What a hook, a rebase or a person's settings put into the environment (`GIT_DIR`, `GIT_INDEX_FILE`, `GIT_CONFIG_…`) is
meant for another repository or another command, so no `GIT_…` variable reaches git from here. Options on the command
line win over every configuration file: output is plain, own commits need neither a key nor a hook's leave.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wm.core.errors import UserError

READS = (
    "core.quotepath=off",
    "color.ui=false",
    "log.showSignature=false",
    "diff.relative=false",
    "i18n.logOutputEncoding=utf-8",
)
WRITES = ("commit.gpgsign=false", "core.hooksPath=/dev/null", "core.editor=true")


class GitError(UserError):
    """git gave no answer; says which command, in which folder, and why."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What a folder's code is.

    Attributes:
        commit: the 40 letters of HEAD; empty if nobody knows.
        dirty: whether files that git keeps differ from that commit; true where nobody knows.
        trouble: why nobody knows, one sentence; empty if all is known.
    """

    commit: str
    dirty: bool
    trouble: str = ""


def read(root: Path, *words: str) -> str:
    """What a git command prints that changes nothing, not even the index.

    Args:
        root: the folder that it runs in.
    Raises:
        GitError: it fails.
    """
    return _run(Path(root), words, READS, {"GIT_OPTIONAL_LOCKS": "0"}).decode(errors="surrogateescape")


def read_bytes(root: Path, *words: str) -> bytes:
    """The same, as it is."""
    return _run(Path(root), words, READS, {"GIT_OPTIONAL_LOCKS": "0"})


def write(root: Path, *words: str) -> str:
    """What a git command prints that changes the repository; no hook runs and nothing is signed.

    Raises:
        GitError: it fails.
    """
    return _run(Path(root), words, READS + WRITES, {}).decode(errors="surrogateescape")


def is_repository(root: Path) -> bool:
    """Whether the folder or one above it is a checkout, sound or not."""
    root = Path(root).resolve()
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def find(root: Path, rev: str) -> str | None:
    """The 40 letters of a commit-ish; None if git has no such commit here, or there is no repository.

    Raises:
        GitError: git cannot say.
    """
    if not is_repository(root) or not rev or rev.startswith("-") or any(letter.isspace() for letter in rev):
        return None
    answer = _object(root, f"{rev}^{{commit}}", "--batch-check").split()
    return answer[0].decode() if answer[1:2] == [b"commit"] else None


def content(root: Path, commit: str, path: str) -> bytes | None:
    """A file at a commit, its path relative to `root`; None if the commit has none.

    Raises:
        GitError: git cannot say.
    """
    answer, _, rest = _object(root, f"{commit}:./{path}", "--batch").partition(b"\n")
    return rest[:-1] if answer.split()[1:2] == [b"blob"] else None


def is_shallow(root: Path) -> bool:
    """Whether history was cut when this was cloned (`--depth`): what is older is not here, nor who made it."""
    return is_repository(root) and read(root, "rev-parse", "--is-shallow-repository").strip() == "true"


def state(root: Path, *apart: str) -> State:
    """The commit of the checkout in a folder and whether its files are as in it.

    Args:
        apart: paths that do not count.
    """
    if not is_repository(root):
        return State(commit="", dirty=True, trouble=f"{root} is no git checkout, so nobody can tell which code this is")
    try:
        commit = read(root, "rev-parse", "HEAD").strip()
        kept = (f":!{path}" for path in apart)
        return State(commit=commit, dirty=bool(read(root, "status", "--porcelain", "-uno", "--", ".", *kept)))
    except GitError as error:
        return State(commit="", dirty=True, trouble=str(error))


def commit(root: Path, message: str, paths: list[str]) -> str:
    """Commits these paths, whatever is ignored or staged, to the branch that is checked out in `root`.

    Returns:
        the commit; where nothing changed, the last one.
    Raises:
        GitError: git refuses.
    """
    write(root, "add", "--force", "--", *paths)
    if read(root, "diff", "--cached", "--name-only", "--", *paths).strip():
        write(root, *author(root), "commit", "--quiet", "--message", message, "--", *paths)
    return read(root, "rev-parse", "HEAD").strip()


def author(root: Path) -> tuple[str, ...]:
    """Options that name an author for commits on a machine whose git has none."""
    if read(root, "config", "--get", "--default", "", "user.email").strip():
        return ()
    return ("-c", "user.name=world-models", "-c", "user.email=world-models@localhost")


def branch(root: Path) -> str:
    """The branch that is checked out in a folder; empty if none is."""
    return read(root, "branch", "--show-current").strip()


def worktree(root: Path, name: str) -> Path | None:
    """The folder where a branch is checked out; None if it is nowhere."""
    folder = None
    for line in read(root, "worktree", "list", "--porcelain", "-z").split("\0"):
        key, _, value = line.partition(" ")
        if key == "worktree":
            folder = Path(value)
        elif key == "branch" and value == f"refs/heads/{name}":
            return folder
    return None


def is_cut(root: Path, commit: str) -> bool:
    """Whether a commit is one of a shallow clone's oldest, of which nobody can say what it changed."""
    if not is_shallow(root):
        return False
    listed = Path(root, read(root, "rev-parse", "--git-path", "shallow").strip())
    return commit in listed.read_text().split()


def _object(root: Path, name: str, how: str) -> bytes:
    """What `git cat-file` answers, to whom an object that is not there is no failure."""
    return _run(Path(root), ["cat-file", how], READS, {"GIT_OPTIONAL_LOCKS": "0"}, told=f"{name}\n")


def _run(root: Path, words: Sequence[str], options: Sequence[str], more: Mapping[str, str], told: str = "") -> bytes:
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **more}
    # A checkout may belong to another user, as in a container: its code runs already, so it is trusted, no other is.
    settings = [word for option in (*options, f"safe.directory={root.resolve()}") for word in ("-c", option)]
    command = ["git", *settings, *words]
    try:
        done = subprocess.run(
            command, cwd=root, env=env, input=told.encode(errors="surrogateescape"), capture_output=True
        )
    except OSError as error:
        raise GitError(f"git cannot be started in {root} ({error.strerror}): see that it is installed") from None
    if done.returncode:
        name = next(word for word in words if not word.startswith("-") and "=" not in word)
        why = " ".join(done.stderr.decode(errors="replace").split())
        raise GitError(f"`git {name}` in {root.resolve()} failed: {why or f'exit code {done.returncode}'}")
    return done.stdout
