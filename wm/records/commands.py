"""`wm lineage` and `why`: what is on record."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_command(
    commands: argparse._SubParsersAction, name: str, text: str, function: Callable[[argparse.Namespace], int | None]
) -> argparse.ArgumentParser:
    """A new command, which calls `function`.

    Args:
        text: what it does, without a capital letter and a full stop.
    """
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=function)
    return command


def add(commands: argparse._SubParsersAction) -> None:
    """Adds them to a command line."""
    text = "what made a model, from data to score, and how to make it again"
    command = add_command(commands, "lineage", text, print_lineage)
    command.add_argument("name", metavar="MODEL", help="an entry of `agents` or `models`, or a registered NAME/VERSION")
    text = "what differs between two scores, and whether the difference is real"
    command = add_command(commands, "why", text, _why)
    for side in ("A", "B"):
        command.add_argument(side.lower(), metavar=side, help="an agent, here or at a commit: smoke, HEAD~3:smoke")


def print_lineage(args: argparse.Namespace) -> None:
    from wm.records import lineage

    print(lineage.text(lineage.trace(args.name)))


def _why(args: argparse.Namespace) -> None:
    from wm.records import why

    print(why.why(args.a, args.b))
