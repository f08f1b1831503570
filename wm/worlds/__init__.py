"""The registry of worlds. A new world is one line here (or one call of `register` anywhere else)."""

from __future__ import annotations

import importlib
from functools import cache

from wm.worlds.base import FRAME_SHAPE, Policy, Spec, World

__all__ = ["FRAME_SHAPE", "Policy", "Spec", "World", "get", "names", "register"]

_REGISTRY: dict[str, str] = {}


def register(name: str, entry_point: str) -> None:
    """Adds the world `name`; `entry_point` is "module:Class", imported only when it is asked for."""
    _REGISTRY[name] = entry_point


def names() -> list[str]:
    """The names that `get` takes, sorted."""
    return sorted(_REGISTRY)


@cache
def get(name: str) -> World:
    """The world `name`.

    Raises:
        ValueError: no world has that name.
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown world {name!r}: expected one of {', '.join(names())}")
    module, attribute = _REGISTRY[name].split(":")
    return getattr(importlib.import_module(module), attribute)()


register("car_racing", "wm.worlds.car_racing.world:CarRacing")
register("take_cover", "wm.worlds.take_cover.world:TakeCover")
