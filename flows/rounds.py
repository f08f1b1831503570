"""An agent's next round in params.yaml: NAME, NAME-r2, NAME-r3, …"""

from __future__ import annotations

import re
from typing import Any


def last(numbers: dict[str, Any], agent: str) -> str:
    """The name of an agent's latest round: NAME itself, or the NAME-r2, NAME-r3, … with the highest number.

    Args:
        numbers: of params.yaml.
    """
    return _name(agent, _latest(numbers, agent))


def add(numbers: dict[str, Any], agent: str, actor: str | None = None) -> str:
    """Adds a round that goes on where the latest one ended, its numbers, its V and M, its C; returns its name.

    Args:
        numbers: of params.yaml; gets an entry in `models` and one in `agents`, each the last.
        actor: the agent that collects; the latest round's if None.
    """
    before, name = last(numbers, agent), _name(agent, _latest(numbers, agent) + 1)
    entry = numbers["agents"][before]
    model = entry["model"]
    numbers["models"][name] = numbers["models"][model] | {"after": model, "actor": actor or before}
    numbers["agents"][name] = entry | {"model": name, "after": before}
    return name


def _latest(numbers: dict[str, Any], agent: str) -> int:
    rounds = (re.fullmatch(rf"{re.escape(agent)}-r(\d+)", name) for name in numbers["agents"])
    return max(1, *(int(found[1]) for found in rounds if found), 1)


def _name(agent: str, number: int) -> str:
    return agent if number == 1 else f"{agent}-r{number}"
