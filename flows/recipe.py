"""params.yaml as plain data: what it says, what an agent builds on, and how a branch of its own keeps it.

A branch holds whole numbers, written plainly: merge keys are resolved, and comments stay in the file of a person.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from wm.core import files
from wm.core.errors import UserError

FILE = Path("params.yaml")
TRIALS = Path("trials/params.yaml")
ZERO = "zero"


def read() -> dict[str, Any]:
    """The current folder's numbers.

    Raises:
        UserError: the file is not here, or not YAML.
    """
    try:
        return parse(FILE.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"there is no {FILE} here: run this in the top folder of a checkout of the repository"
        ) from None


def agent(name: str) -> dict[str, Any]:
    """The entry of an agent, or of one of trials/.

    Raises:
        UserError: there is none.
    """
    for path in (FILE, TRIALS):
        if path.exists() and (entry := parse(path.read_bytes(), path).get("agents", {}).get(name)):
            return entry
    raise UserError(f"there is no agent {name!r} in {FILE}: choose one of its `agents`")


def parse(text: bytes | str, path: Path = FILE) -> dict[str, Any]:
    """Whole numbers: merge keys are resolved, and what was said once for several entries is each one's own.

    Raises:
        UserError: it is not valid YAML; names the line.
    """
    return _apart(files.parse_yaml(text, str(path)))


def _apart(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _apart(branch) for key, branch in tree.items()}
    return [_apart(branch) for branch in tree] if isinstance(tree, list) else tree


def write(numbers: dict[str, Any], about: str) -> None:
    """Makes these the current folder's numbers; an entry is a line where it fits.

    Args:
        about: what they are, for the first line.
    """
    yaml = YAML(typ="safe")
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel states its default, None
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(numbers, stream)
    files.write_bytes(FILE, f"# {about}\n{stream.getvalue()}".encode())


def chain(numbers: dict[str, Any], agent: str) -> list[tuple[str, str]]:
    """The entries that an agent comes from, its own the first: [("agents", "smoke"), ("models", "smoke")]."""
    keys = {"agents": {"model": "models", "after": "agents"}, "models": {"after": "models", "actor": "agents"}}
    found = [("agents", agent)]
    for section, name in found:  # grows
        entry = numbers[section][name]
        behind = [(other, entry[key]) for key, other in keys[section].items() if entry.get(key, ZERO) != ZERO]
        found += [one for one in dict.fromkeys(behind) if one not in found]
    return found


def search(numbers: dict[str, Any], agent: str) -> dict[str, Any]:
    """The numbers of an agent's search, to be read or changed."""
    return numbers["experiments"][numbers["agents"][agent]["experiment"]]["evolve"]
