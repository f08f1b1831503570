"""`wm report`, `wm results page …`: what people look at; `wm data …`: recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

from wm.core.errors import UserError
from wm.records.commands import add_command, add_group

AGENT, MODEL = "an entry of `agents` in params.yaml", "an entry of `models` in params.yaml"


def add(commands: argparse._SubParsersAction) -> None:
    """Adds them to a command line."""
    text = "one HTML page about an agent, with its pictures and films inside"
    command = add_command(commands, "report", text, write_report)
    command.add_argument("name", metavar="NAME", help=AGENT)
    command.add_argument("--out", type=Path, default=None, help="the page to write; default: NAME.html")
    text = "a page of `wm agent demo NAME --out PAGE` to put inside, in which anyone can drive in the agent's dream"
    command.add_argument("--dream", type=Path, metavar="PAGE", default=None, help=text)
    text = "scores side by side: the results page, tables, temperatures of the dream"
    inside = add_group(commands, "results", text, "what to compare")
    _add_page_and_table(inside)
    text = "compare the agents of a model that were evolved in dreams of different temperatures: a table and a plot"
    command = add_command(inside, "temperatures", text, _temperatures)
    command.add_argument("name", metavar="MODEL", help=MODEL)
    text = "compare the policies that collected in M's dream and in the world, at several temperatures, and M's ends"
    command = add_command(inside, "calibration", text, _calibration)
    command.add_argument("name", metavar="MODEL", help=MODEL)
    command.add_argument("--tau", type=float, nargs="+", default=None, help="temperatures; default: 0.5 to 2")
    command.add_argument("--episodes", type=int, default=200, help="dreams at each; default: 200")
    _add_data(commands)


def _add_data(commands: argparse._SubParsersAction) -> None:
    text = "recordings that are learned from where there is no environment"
    inside = add_group(commands, "data", text)
    command = add_command(inside, "import", "make a data set, data/NAME, of recordings; says what to paste", _import)
    command.add_argument("data", metavar="NAME", help="of the data set")
    text = "a folder of .npz episodes (obs, act, rew and perhaps end), or a data set of Minari's by its id"
    command.add_argument("source", metavar="SOURCE", help=text)
    command.add_argument("--fps", type=int, default=30, help="steps a second, for films; default: 30")
    text = "which of a Minari data set's observations are the pictures, where it has several"
    command.add_argument("--frames", metavar="KEY", default=None, help=text)
    command = add_command(inside, "check", "whether episodes are sound: a line a check", _check)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="of a data set: data/NAME, runs/NAME/collect")
    text = "steps without a positive reward after which an episode was ended (collect.stall); default: 0, never"
    command.add_argument("--stall", type=int, default=0, metavar="STEPS", help=text)
    command = add_command(inside, "show", "what is in a data set: frames, returns, lengths, actions", _show)
    command.add_argument("data", metavar="NAME", help="of the data set")


def _data_name(args: argparse.Namespace) -> str:
    from wm import params

    try:
        return params.check_name(args.data)
    except ValueError as error:
        raise UserError(str(error)) from None


def _import(args: argparse.Namespace) -> None:
    from wm.views import recordings
    from wm.worlds.recordings import importing

    if args.fps < 1:
        raise UserError(f"--fps is {args.fps}: expected 1 or more")
    name = _data_name(args)
    about = importing.run(name, recordings.DATA / name, args.source, args.fps, args.frames)
    print(recordings.imported(name, about))


def _check(args: argparse.Namespace) -> None:
    """Prints what the checks find now, whatever the folder's checks.json says; raises UserError where one fails."""
    from wm import params
    from wm.checks.config import ChecksConfig
    from wm.core import verdicts
    from wm.core.episodes import EpisodeSet
    from wm.stages import collect

    known = params.load().worlds  # `worlds.get` knows the entries from then on
    data = EpisodeSet(args.folder)
    if data.world not in known:
        raise UserError(f"{args.folder} is of the world {data.world!r}, which is not in `worlds` of params.yaml")
    data.verify()
    found = collect.judged(data, ChecksConfig(), args.stall)
    for row in verdicts.rows(found):
        print(f"{row['verdict']:5} {row['check']:9} {row['what']}  {row['episodes']}".rstrip())
    if failed := [check.name for check in found if check.verdict == "fail"]:
        raise UserError(f"{args.folder} fails {len(failed)} of {len(found)} checks: {', '.join(failed)}")


def _show(args: argparse.Namespace) -> None:
    from wm.views import recordings

    print(recordings.show(_data_name(args)))


def _add_page_and_table(inside: argparse._SubParsersAction) -> None:
    text = "write results/: scores beside the paper's, costs, curves, and the command under every number"
    command = add_command(inside, "page", text, _page)
    text = "entries of `agents` in params.yaml, evaluated; without one, the page alone, from the records that it has"
    command.add_argument("names", nargs="*", metavar="NAME", help=text)
    command.add_argument("--out", type=Path, default=None, help="the folder to write; default: results")
    command.add_argument("--machine", default="", help="the machine of runs whose record names none")
    text = "scored agents side by side, each compared with the first in pairs"
    command = add_command(inside, "table", text, _table)
    command.add_argument("names", nargs="+", metavar="NAME", help="entries of `agents` in params.yaml")


def _calibration(args: argparse.Namespace) -> None:
    from wm import params
    from wm.views import calibration

    if args.episodes < 1:
        raise UserError(f"--episodes is {args.episodes}: expected 1 or more")
    print(calibration.report(params.load(), args.name, args.tau or calibration.TAUS, args.episodes))


def _temperatures(args: argparse.Namespace) -> None:
    from wm import params
    from wm.views import sweep

    print(sweep.report(params.load(), args.name))


def _table(args: argparse.Namespace) -> None:
    from wm.views import table

    print(table.table(args.names))


def _page(args: argparse.Namespace) -> None:
    from wm.views import results, table

    print(results.write(args.names, args.out or table.RESULTS, args.machine))


def write_report(args: argparse.Namespace) -> None:
    """`wm report`; public, since its default name is that of the run, wherever that is."""
    from wm.views import report

    print(report.write(args.name, args.out or Path(f"{args.name}.html"), args.dream))
