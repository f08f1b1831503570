"""`wm agent …`: what can be made of a trained agent."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from wm.core.errors import UserError

AGENT = "an entry of `agents` in params.yaml, or a folder that holds an agent, e.g. pretrained/car_racing"


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the group `agent` to a command line."""
    text = "what can be made of a trained agent: files for any runtime, a page to dream in"
    group = commands.add_parser("agent", help=text, description=text[0].upper() + text[1:] + ".")
    inside = group.add_subparsers(required=True, metavar="COMMAND", title="commands")
    command = _add(inside, "export", "write V, M and C as ONNX, with a description, into a folder", _export)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="to be written")
    command = _add(inside, "demo", "write one HTML page in which anyone can drive in the agent's dream", _demo)
    command.add_argument("--out", type=Path, default=Path("dream.html"), help="the page to write; default: dream.html")


def _add(commands, name: str, text: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=function)
    command.add_argument("agent", metavar="AGENT", help=AGENT)
    return command


def _export(args: argparse.Namespace) -> None:
    from wm.release import export

    print(export.export(export.find(args.agent), args.folder))


def _demo(args: argparse.Namespace) -> None:
    from wm.release import demo, export

    if args.out.suffix != ".html" or args.out.is_dir():
        raise UserError(f"--out is {args.out}: expected the name of a file that ends in .html")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(demo.write(export.find(args.agent), args.out))
