"""Which numbers of a recorded stage may be written another way though no number changed.

The migration from commit 452142c moved a world's name from the experiment to the lines of `models` and `agents`, gave
worlds a section of their own, and took out of the record what decides no bit. Between two later commits nothing of this
applies, and numbers are simply compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

LEFT = ("workers", "checkpoint_every")
"""Keys that decide no bit: they may be in one of the two records alone, and have any value."""
WORLD = re.compile(r"(experiments|models|agents)\.[^.]+\.world")
"""Where a stage's world is named, before and after."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any], world: str | None) -> list[str]:
    """What really differs between the params rows of a lock's entry, a phrase each.

    Args:
        old, new: {file: {key: value}}, as dvc.lock has them.
        world: of the old entry, whose own record may not say it.
    """
    before, after = _leaves(old), _leaves(new)
    if "world" in after and world:
        before.setdefault("world", world)
    if not any(key.startswith("worlds.") for key in before):
        named = f"worlds.{before.get('world')}"
        new_worlds = {key for key in after if key.startswith("worlds.")}
        if "world" not in after and any(key == named or key.startswith(f"{named}.") for key in new_worlds):
            del before["world"]  # the key itself says it now
        after = {key: value for key, value in after.items() if key not in new_worlds}
    keys = sorted({*before, *after})
    return [_phrase(key, before, after) for key in keys if not _same(key, before, after)]


def world(files: list[Mapping[str, Any]], section: str, name: str) -> str | None:
    """The world of an entry of `models` or `agents`, where its line or its experiment names it."""
    for file in files:
        line = (file.get(section) or {}).get(name)
        if line:
            return line.get("world") or file["experiments"][line["experiment"]].get("world")
    return None


def _leaves(rows: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for file in rows.values():
        for key, value in _flat(file):
            if key.rpartition(".")[2] not in LEFT:
                found["world" if WORLD.fullmatch(key) else key] = value
    return found


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _same(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    if key not in before or key not in after:
        return False
    return type(before[key]) is type(after[key]) and before[key] == after[key]  # 1 is not true, nor 1.0


def _phrase(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if key not in after:
        return f"{key} is gone"
    return f"{key} is new" if key not in before else f"{key} was {before[key]!r} and is {after[key]!r}"
