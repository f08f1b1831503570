"""dvc.lock in two checkouts: the pipeline flow owns it, and lends a worker the entries that its stage needs.

Entries travel as text, as DVC writes it, so that the file that comes of them is the one that a run in place leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows import graph

LOCK = Path("dvc.lock")


def entries(addresses: Iterable[str]) -> str:
    """The entries of these stages, as YAML; those that have none are left out."""
    from dvc.utils.serialize import dumps_yaml

    found = _read()
    return dumps_yaml({address: found[address] for address in addresses if address in found})


def put(addresses: Iterable[str], text: str) -> None:
    """Makes `text` the entries of these stages: a stage that it does not name has none from now on.

    Args:
        addresses: whose entries; all others stay as they are.
        text: as `entries` gives it.
    """
    from dvc.utils.serialize import loads_yaml, modify_yaml

    given = loads_yaml(text) or {}
    with graph.project(), modify_yaml(LOCK) as content:  # DVC's lock: it writes the file too
        content.setdefault("schema", "2.0")
        stages = content.setdefault("stages", {})
        for address in addresses:
            if address in given:
                stages[address] = given[address]
            else:
                stages.pop(address, None)


def _read() -> dict[str, Any]:
    from dvc.utils.serialize import loads_yaml

    return loads_yaml(LOCK.read_text()).get("stages") or {} if LOCK.exists() else {}
