"""`wm world new`: what to paste into params.yaml for a Gymnasium environment that is known by its id alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from wm.core import files
from wm.core.errors import UserError
from wm.worlds.by_id.world import GymnasiumWorld

PACKAGES = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}
"""Beginning of an id -> the package that registers it."""
HIGHWAY = ("highway", "merge", "roundabout", "parking", "intersection", "racetrack", "exit", "lane-keeping", "two-way")
LONGEST = 2000
"""Steps from which on an episode is cut off, where nobody says otherwise: a run of half an hour plays a thousand."""
CODE = "wm/worlds/by_id"


def new(gym: str, name: str | None, module: str | None, kwargs: str | None) -> str:
    """The entries of a world, two models and two agents.

    Args:
        gym: the environment's id.
        name: of the entries; None for one that is made of the id.
        module: what registers the id; None to guess it.
        kwargs: of `gymnasium.make`, as YAML: "{continuous: true}".
    Raises:
        UserError: the environment cannot be made, or is not one that can be learned in; or `kwargs` is no mapping.
    """
    name, options = name or _name(gym), _mapping(kwargs)
    entry: dict[str, Any] = {"gym": gym}
    if found := module or _package(gym):
        entry["import"] = found
    if options:
        entry["kwargs"] = options
    world = _made(name, entry)
    if world is None or world.spec.max_steps > LONGEST:
        entry["max_steps"] = LONGEST
        world = _made(name, entry)
    return "\n".join([_about(world, entry), *_lines(name, entry)])


def _made(name: str, entry: Mapping[str, Any]) -> GymnasiumWorld | None:
    """The world; None where it needs a limit."""
    options = {"module" if key == "import" else key: value for key, value in entry.items()}
    try:
        return GymnasiumWorld(name=name, **options)
    except UserError as error:
        if "max_steps" not in entry and f"set worlds.{name}.max_steps" in str(error):
            return None
        raise


def _lines(name: str, entry: Mapping[str, Any]) -> list[str]:
    same = f"world: {name}, code: {CODE}"
    one, two = f"experiment: any_explore, {same}", f"experiment: any, {same}"
    return [
        "worlds:",
        f"  {name}: {{{', '.join(f'{key}: {_yaml(value)}' for key, value in entry.items())}}}",
        "models:",
        f"  {name}-1: {{{one}, after: zero, actor: zero, seed: 0}}",
        f"  {name}: {{{two}, after: {name}-1, actor: {name}-1, seed: 0}}",
        "agents:",
        f"  {name}-1: {{{one}, model: {name}-1, after: zero, tau: 1.0, seed: 0}}",
        f"  {name}: {{{two}, model: {name}, after: {name}-1, tau: 1.0, seed: 0}}",
    ]


def _about(world: GymnasiumWorld, entry: Mapping[str, Any]) -> str:
    """A comment above the entries."""
    cut = " (cut off there: raise max_steps to let them go on)" if "max_steps" in entry else ""
    seen = "its observations" if world.pictures else "what it renders, for its observations are no pictures"
    return (
        f"# {entry['gym']}: V sees {seen}; actions of {world.spec.action_size} numbers; episodes of "
        f"{world.spec.max_steps:,} steps at most{cut}.\n"
        f"# Paste each line into params.yaml below the line in front of it; then: wm world check {world.spec.name}; "
        f"wm run {world.spec.name} --budget 30m"
    )


def _package(gym: str) -> str | None:
    guess = next((package for start, package in PACKAGES.items() if gym.startswith(start)), None)
    return guess or ("highway_env" if gym.startswith(HIGHWAY) and gym.endswith("-v0") else None)


def _name(gym: str) -> str:
    """Of "ALE/Pong-v5" "pong"."""
    last = re.sub(r"-v\d+$", "", gym.rpartition("/")[2]).lower()
    return re.sub(r"[^a-z0-9]+", "_", last).strip("_")[:40] or "world"


def _mapping(text: str | None) -> dict[str, Any]:
    found = files.parse_yaml(text, "--kwargs") if text else {}
    if not isinstance(found, dict):
        raise UserError(f"--kwargs is {text}: expected a mapping such as '{{continuous: true}}'")
    return found


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[\w./-]+", value) and files.parse_yaml(value, "") == value:
        return value  # a word that YAML takes for nothing else: no "true", no "1"
    return json.dumps(value)
