"""Worlds by name: those of this package, and those that `worlds` in params.yaml adds."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache

from wm.core.errors import UserError
from wm.worlds.base import FRAME_SHAPE, Policy, Spec, World

__all__ = ["FRAME_SHAPE", "Policy", "Spec", "World", "get", "names", "register", "registered"]

_REGISTRY: dict[str, str] = {}


def register(name: str, entry_point: str) -> None:
    """Makes the world `name` known in this process; `entry_point` is "module:Class", imported when it is asked for."""
    if _REGISTRY.get(name) != entry_point:
        _REGISTRY[name] = entry_point
        get.cache_clear()


def registered() -> Mapping[str, str]:
    """Every known world's entry point: what another process has to register to know the same worlds."""
    return dict(_REGISTRY)


def names() -> list[str]:
    """The names that `get` takes, sorted."""
    return sorted(_REGISTRY)


@cache
def get(name: str) -> World:
    """The world `name`.

    Raises:
        ValueError: no world has that name.
        UserError: its class cannot be imported.
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown world {name!r}: expected one of {', '.join(names())}")
    module, _, attribute = _REGISTRY[name].partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"world {name} is {_REGISTRY[name]}, which cannot be imported: {error}") from None
    if not hasattr(found, attribute):
        raise UserError(f"world {name} is {_REGISTRY[name]}, but {found.__file__} has no {attribute}")
    return getattr(found, attribute)()


register("car_racing", "wm.worlds.car_racing.world:CarRacing")
register("take_cover", "wm.worlds.take_cover.world:TakeCover")
