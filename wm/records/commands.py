"""`wm lineage` and `why`: what is on record; and how every room makes its commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from wm.core.errors import UserError


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


def add_group(
    commands: argparse._SubParsersAction, name: str, text: str, question: str = "what to do"
) -> argparse._SubParsersAction:
    """A word in front of other commands, which are to be added to what is returned.

    Args:
        text: what they do, as in `add_command`.
        question: that a command of the group answers.
    """
    group = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return group.add_subparsers(required=True, metavar="COMMAND", help=question)


def check_file(option: str, path: Path | None, kinds: Sequence[str] = ()) -> None:
    """Makes the folder of a file before the work that the file is for; nothing where `path` is None.

    Args:
        option: that named it: "--out".
        kinds: how its name may end; none for any.
    Raises:
        UserError: it ends otherwise, is a folder, or its own cannot be made.
    """
    if path is None:
        return
    if kinds and path.suffix not in kinds:
        raise UserError(f"{option} is {path}: expected a name that ends in {' or '.join(kinds)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} is {path}, whose folder cannot be made ({error.strerror}): name another") from None
    if path.is_dir():
        raise UserError(f"{option} is {path}, which is a folder: name a file")


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
    """`wm lineage`; public, since it alone of those with a NAME reads other branches by itself."""
    from wm.records import lineage

    print(lineage.text(lineage.trace(args.name)))


def _why(args: argparse.Namespace) -> None:
    from wm.records import why

    print(why.why(args.a, args.b))
