"""Worlds by name: those of this package, and those that `worlds` in params.yaml adds."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from wm.core.errors import UserError
from wm.worlds.base import FRAME_SHAPE, Policy, Spec, World, error_text

__all__ = ["FRAME_SHAPE", "Policy", "Spec", "World", "get", "names", "register", "registered"]

_REGISTRY: dict[str, tuple[str, Mapping[str, Any]]] = {}

BY_ID = "wm.worlds.by_id.world:GymnasiumWorld"
"""Who plays a Gymnasium environment that an entry names by its id."""
INSTALLED = "wm.worlds.installed:load"
"""Who finds the class that an installed package offers."""
RECORDED = "wm.worlds.recordings.world:RecordedWorld"
"""What stands for a world of which there are only recordings."""


def register(name: str, entry_point: str, options: Mapping[str, Any] | None = None) -> None:
    """Makes the world `name` known in this process.

    Args:
        entry_point: "module:Class", imported when it is asked for.
        options: what the class is made with.
    """
    if _REGISTRY.get(name) != (entry_point, options or {}):
        _REGISTRY[name] = entry_point, options or {}
        get.cache_clear()


def registered() -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Every known world's entry point and options: what another process has to register to know the same worlds."""
    return dict(_REGISTRY)


def names() -> list[str]:
    """The names that `get` takes, sorted."""
    return sorted(_REGISTRY)


@cache
def get(name: str) -> World:
    """The world `name`.

    Raises:
        ValueError: no world has that name.
        UserError: its class cannot be imported, or its environment cannot be made.
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown world {name!r}: expected one of {', '.join(names())}")
    entry_point, options = _REGISTRY[name]
    module, _, attribute = entry_point.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"world {name} is {entry_point}, which cannot be imported: {error}") from None
    except Exception as error:
        raise UserError(f"world {name} is {entry_point}, which cannot be imported: {error_text(error)}") from error
    if not hasattr(found, attribute):
        raise UserError(f"world {name} is {entry_point}, but {found.__file__} has no {attribute}")
    try:
        world = getattr(found, attribute)(**options)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"world {name} is {entry_point}, which cannot be made: {error_text(error)}") from error
    if not isinstance(world, World):
        raise UserError(f"world {name} is {entry_point}, which is no World: derive it from wm.worlds.World")
    if world.spec.name != name:  # the entry's name is the one that agents keep
        world.spec = replace(world.spec, name=name)
    return world


register("car_racing", "wm.worlds.car_racing.world:CarRacing")
register("take_cover", "wm.worlds.take_cover.world:TakeCover")
