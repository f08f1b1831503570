"""What flows write into params.yaml: an agent's next round, and the generations that a budget was enough for."""

from __future__ import annotations

import copy
import io
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.tokens import CommentToken

from wm.core.errors import UserError


def last(text: str, agent: str) -> str:
    """The name of an agent's latest round: NAME itself, or the NAME-r2, NAME-r3, … with the highest number.

    Args:
        text: of params.yaml.
    """
    number = max(_numbers(_yaml().load(text), agent))
    return _name(agent, number)


def add(text: str, agent: str, actor: str | None = None) -> tuple[str, str]:
    """Adds a round that goes on where the latest one ended: its numbers, its V and M, its C.

    Args:
        text: of params.yaml; comments, order and layout are kept.
        actor: the agent that collects; the latest round's if None.
    Returns:
        The round's name, and the new text.
    """
    yaml = _yaml()
    params = yaml.load(text)
    before = last(text, agent)
    name = _name(agent, max(_numbers(params, agent)) + 1)
    model = params["agents"][before]["model"]
    _insert(params["models"], model, name, after=model, actor=actor or before)
    _insert(params["agents"], before, name, model=name, after=before)
    return name, _dump(yaml, params)


def shorten(text: str, agent: str, generations: int) -> str:
    """Sets how many generations an agent's search has; comments, order and layout are kept.

    Args:
        text: of params.yaml.
    """
    yaml = _yaml()
    params = yaml.load(text)
    params["experiments"][params["agents"][agent]["experiment"]]["evolve"]["generations"] = generations
    return _dump(yaml, params)


def check_alone(text: str, agent: str) -> None:
    """Whether `shorten` leaves alone what this agent builds on and what has been made here.

    Args:
        text: of params.yaml.
    Raises:
        UserError: it would change the search of such an agent too, so that it would have to run again.
    """
    before, after = (YAML(typ="safe").load(one) for one in (text, shorten(text, agent, -1)))
    searches = [
        {name: params["experiments"][entry["experiment"]].get("evolve") for name, entry in params["agents"].items()}
        for params in (before, after)
    ]
    changed = [name for name in searches[0] if name != agent and searches[0][name] != searches[1][name]]
    before_it = _predecessors(before, agent)
    if others := [name for name in changed if name in before_it or Path("runs", name, "evolve").exists()]:
        raise UserError(
            f"a budget would shorten the search of {', '.join(others)} too: give {agent} an experiment of its own in "
            "params.yaml, or leave the budget out"
        )


def _predecessors(params, agent: str) -> set[str]:
    """The agents that an agent's search, its model and its data come from."""
    found, waiting = set(), [agent]
    while waiting:
        entry = params["agents"][waiting.pop()]
        behind, model = [entry.get("after", "zero")], entry["model"]
        while model != "zero":
            behind.append(params["models"][model].get("actor", "zero"))
            model = params["models"][model].get("after", "zero")
        waiting += [name for name in behind if name != "zero" and name not in found]
        found.update(behind)
    return found - {"zero"}


def _insert(section, before: str, name: str, **changes: str) -> None:
    """A copy of the entry `before`, but for `changes`, below it; its comment is not copied."""
    entry = copy.deepcopy(section[before])
    entry.ca.comment = None
    entry.ca.items.clear()
    entry.update(changes)
    section.insert(list(section).index(before) + 1, name, entry)
    _pass_on(section, before, section, name)
    final = list(section[before])[-1]
    _pass_on(section[before], final, entry, final)


def _pass_on(mapping, key: str, other, last: str) -> None:
    """What comes below an entry, a blank line or a comment, belongs to what follows; ruamel keeps it with the entry."""
    token = (mapping.ca.items.get(key) or [None] * 3)[2]
    if token is None or "\n" not in token.value:
        return
    own, _, below = token.value.partition("\n")
    token.value = own + "\n"
    if below:
        other.ca.items[last] = [None, None, CommentToken(f"\n{below}", token.start_mark), None]


def _numbers(params, agent: str) -> list[int]:
    rounds = (re.fullmatch(rf"{re.escape(agent)}-r(\d+)", name) for name in params["agents"])
    return [1, *(int(found[1]) for found in rounds if found)]


def _name(agent: str, number: int) -> str:
    return agent if number == 1 else f"{agent}-r{number}"


def _dump(yaml: YAML, params) -> str:
    stream = io.StringIO()
    yaml.dump(params, stream)
    return stream.getvalue()


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10**6  # a line stays a line
    return yaml
