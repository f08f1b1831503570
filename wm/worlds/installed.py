"""A world of an installed package, which names its class in the group `wm.worlds` of its entry points:

    [project.entry-points."wm.worlds"]
    maze = "my_package.maze:MazeWorld"

and in params.yaml `maze: {installed: maze}`, with `code: wm/worlds/installed.py`.
"""

from __future__ import annotations

from importlib import metadata

from wm.core.errors import UserError
from wm.worlds.base import World

GROUP = "wm.worlds"


def load(*, name: str, installed: str) -> World:
    """The world that an entry point makes.

    Args:
        name: of the entry in `worlds`.
        installed: the entry point's name.
    Raises:
        UserError: no installed package has that entry point, or it cannot be imported.
    """
    offered = metadata.entry_points(group=GROUP)
    found = [one for one in offered if one.name == installed]
    if not found:
        others = ", ".join(sorted({one.name for one in offered})) or "none"
        raise UserError(
            f"worlds.{name}.installed is {installed!r}, which no installed package offers in the group {GROUP} of its "
            f"entry points (there is {others}): install the package that does into this environment"
        )
    try:
        return found[0].load()()
    except (ImportError, AttributeError) as error:
        raise UserError(f"worlds.{name}.installed is {found[0].value}, which cannot be imported: {error}") from None
