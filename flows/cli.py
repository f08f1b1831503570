"""The whole command line, `wm`: what `wm.cli` has, and what needs Prefect or DVC besides.

Each module of this folder that is a command can be called by itself too (`python -m flows.pipeline NAME`). Prefect and
DVC are imported by a command that runs, never to print a help text.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from flows import improve, pipeline, prepare, sweep, up, worker
from wm import cli
from wm.core import portable
from wm.core.errors import UserError
from wm.records.commands import add_command

TEMPERATURES = "NAME is an entry of `models`: run every agent that dreams in it, and compare their temperatures"


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit code, as `wm.cli.main` does."""
    portable.start_again()  # before anything computes
    prepare()
    return cli.main(argv, add)


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the commands of this folder to a command line."""
    command = _add(commands, "run", pipeline, _run)
    command.add_argument("--temperatures", action="store_true", help=TEMPERATURES)
    _add(commands, "improve", improve, improve.run)
    group = commands.add_parser("up", help=up.DESCRIPTION, description=up.DESCRIPTION)
    inside = group.add_subparsers(required=True, metavar="COMMAND", help="what to do")
    for action, text in up.ACTIONS.items():
        command = add_command(inside, action, text, up.run)
        command.set_defaults(action=action)
        if action == "start":
            up.add_arguments(command)
    _add(inside, "worker", worker, worker.run)


def _add(
    commands: argparse._SubParsersAction, name: str, module: Any, function: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """A module's own command, under another name."""
    command = commands.add_parser(
        name,
        help=module.DESCRIPTION,
        description=module.DESCRIPTION,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(command)
    command.set_defaults(command=function)
    return command


def _run(args: argparse.Namespace) -> int:
    if not args.temperatures:
        return pipeline.run(args)
    if args.agent is None:
        raise UserError("--temperatures needs a model: name an entry of `models` in params.yaml")
    seeds = [f"--{option}" for option in ("seed", "seeds") if getattr(args, option) is not None]
    if given := [*seeds, *pipeline.options(args)]:
        raise UserError(f"--temperatures takes no {given[0]}: each agent runs as params.yaml says")
    return sweep.run_all(args.agent)


if __name__ == "__main__":
    sys.exit(main())
