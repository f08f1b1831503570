"""Which code and numbers a folder holds, so that a worker computes with the flow's or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from ruamel.yaml import YAML

from flows.worktree import RESULTS
from wm.core import files
from wm.core.errors import UserError
from wm.records import git

PARAMS = "params.yaml"


class Checkout(BaseModel):
    """A checkout's code and numbers."""

    commit: str = Field(description="git's HEAD")
    changed: dict[str, str] = Field(
        description="sha256 of each file that is not as in that commit; empty if it is gone"
    )
    params: str = Field(description="the text of params.yaml")


def here() -> Checkout:
    """The checkout in the current folder.

    Raises:
        UserError: it is no git repository, or has no commit.
    """
    apart = [f":!{path}" for path in (PARAMS, *RESULTS)]
    top = Path.cwd()
    changed = git.read(top, "diff", "HEAD", "--name-only", "-z", "--", ".", *apart).split("\0")
    return Checkout(
        commit=git.read(top, "rev-parse", "HEAD").strip(),
        changed={path: _digest(Path(path)) for path in changed if path},
        params=Path(PARAMS).read_text(),
    )


def expect(flow: Checkout) -> None:
    """Makes sure that the current folder holds what the flow's checkout does.

    Raises:
        UserError: it does not; the sentence names the commit, the file or the key, and what to do.
    """
    mine, folder = here(), Path.cwd()
    if mine.commit != flow.commit:
        raise UserError(
            f"the worker's checkout {folder} is at commit {mine.commit[:12]} and the flow's at {flow.commit[:12]}: "
            f"run `git fetch && git checkout {flow.commit[:12]}` in it"
        )
    for path in sorted(mine.changed.keys() | flow.changed.keys()):
        if mine.changed.get(path) != flow.changed.get(path):
            whose = f"the flow's checkout has a {path}" if path in flow.changed else f"{folder} has a {path}"
            raise UserError(f"{whose} that is not in commit {mine.commit[:12]}: commit it, and check that out in both")
    reader = YAML(typ="safe", pure=True)
    ours, theirs = (dict(_leaves(reader.load(text))) for text in (mine.params, flow.params))
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"{key} in {PARAMS} is {_shown(ours, key)} in the worker's checkout {folder} and "
                f"{_shown(theirs, key)} in the flow's: commit {PARAMS}, and check that out in both"
            )


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; an empty mapping is a value."""
    if not isinstance(tree, dict) or not tree:
        yield key, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, f"{key}.{name}" if key else str(name))


def _shown(leaves: dict[str, Any], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "not there"


def _digest(path: Path) -> str:
    return files.sha256(path) if path.is_file() else ""
