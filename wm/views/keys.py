"""Every key of params.yaml and what it means, as the configurations say it."""

from __future__ import annotations

from typing import get_args

from wm.core.config import Config
from wm.params import AgentEntry, Experiment, Model
from wm.worlds.entry import WorldEntry


def describe() -> list[str]:
    """A line for every key: dotted name, type, default, meaning."""
    roots: dict[str, type[Config]] = {
        "worlds": WorldEntry,
        "experiments": Experiment,
        "models": Model,
        "agents": AgentEntry,
    }
    lines = [line for root, config in roots.items() for line in _describe(f"{root}.NAME", config)]
    return [*lines, "machines.NAME.STAGE.KEY (as in experiments): what that kind of machine sets in an experiment"]


def _describe(prefix: str, config: type[Config]) -> list[str]:
    lines = []
    for name, field in config.model_fields.items():
        name = field.alias or name
        section = next(iter(get_args(field.annotation)), field.annotation)  # a Config, or Config | None
        if isinstance(section, type) and issubclass(section, Config):
            lines += _describe(f"{prefix}.{name}", section)
            continue
        kind = getattr(field.annotation, "__name__", str(field.annotation))
        default = "required" if field.is_required() else f"default {field.default!r}"
        lines.append(f"{prefix}.{name} ({kind}, {default}): {field.description}")
    return lines
