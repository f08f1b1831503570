"""The command line: one sub-command a stage, and what people do besides.

`python -m wm <stage> NAME` is the whole command of a stage in dvc.yaml. It needs no server, no Prefect and no DVC.
`wm` is the same with the commands of flows/ besides (`flows.cli`).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import shtab

from wm import failures, surroundings
from wm.core.errors import UserError
from wm.estimate import commands as of_estimate
from wm.records import commands as of_records
from wm.records.commands import add_command, check_file
from wm.release import commands as of_release
from wm.stages import STAGES
from wm.views import commands as of_views

if TYPE_CHECKING:
    from wm.release.places import Place

GROUPS = {
    "stages, in the order in which they run": tuple(STAGES),
    "make an agent": ("run", "improve", "estimate", "params"),
    "look at it": ("watch", "play", "report", "results", "ui"),
    "where a score comes from": ("lineage", "why"),
    "what becomes of an agent": ("agent",),
    "a world and data of your own": ("world", "data"),
    "this machine": ("up", "clean"),
}
"""How `--help` puts the commands together; those of flows/ are there where `wm` is called, not `python -m wm`."""
FLOWS = ("run", "improve", "up")
"""What `flows.cli` adds."""
RENAMED = {
    "calibrate": "results calibration",
    "sweep": "results temperatures",
    "table": "results table",
    "keep": "agent keep",
    "gate": "agent gate",
    "promote": "agent promote",
    "rollback": "agent rollback",
    "check": "params check",
    "dream": "play",
    "pipeline": "run",
    "down": "up stop",
    "worker": "up worker",
}
"""Words of earlier versions, of modules and of the Makefile, and the command that does the same."""
EPILOG = """\
NAME is an entry of `models` (collect to train_mdn) or `agents` (the rest) in params.yaml; a run on a branch of its
own, of another seed, budget or machine, is BRANCH:NAME, such as run/smoke-seed1:smoke. A stage reads runs/… and
writes runs/NAME/<stage>; `wm run NAME` runs them all in order.

  wm run smoke                    the whole pipeline with tiny numbers (python -m flows.pipeline smoke is the same)
  wm estimate smoke               how long each stage will take on this machine
  wm train_vae smoke              one stage by hand (python -m wm train_vae smoke is the same)
  wm watch car_racing --pretrained --out drive.mp4
  wm COMMAND --help               every option of a command, and the commands inside a group
  eval "$(wm --completion bash)"  in ~/.bashrc: Tab completes commands and options (zsh and tcsh too)
"""


AddMore = Callable[[argparse._SubParsersAction], None]


def main(argv: list[str] | None = None, add_more: AddMore | None = None) -> int:
    """Runs a command; 0 is success, 128 + n a signal n, else the `code` of a UserError, whose sentence is printed.

    Args:
        add_more: adds commands of another floor (`flows.cli`).
    """
    surroundings.prepare("DASK_", "MLFLOW_")
    argv = sys.argv[1:] if argv is None else argv
    if argv and (new := RENAMED.get(argv[0])) and (add_more or new.split()[0] not in FLOWS):
        print(f"note: `wm {argv[0]}` is `wm {new}` now", file=sys.stderr)
        argv = [*new.split(), *argv[1:]]
    if argv and (mistake := _misplaced(argv, add_more is not None)):
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    args = parser(add_more).parse_args(argv)
    failures.end_on_signals(f"Stopped{_goes_on(args)}")
    try:
        from wm.core import watchdog

        Path.cwd()  # a folder that is gone is told at once, not by the first library that asks for it
        watchdog.start()
        with _at_run(args):
            return args.command(args) or 0
    except KeyboardInterrupt:
        print(f"Stopped{_goes_on(args)}.", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        return failures.report(error, _goes_on(args))


@contextlib.contextmanager
def _at_run(args: argparse.Namespace) -> Iterator[None]:
    """A command about BRANCH:NAME works in that branch's folder, and writes where it was called."""
    if ":" not in getattr(args, "name", "") or args.command is of_records.print_lineage:  # which reads git
        yield
        return
    from wm.records import branches

    if args.command is of_views.write_report and args.out is None:
        args.out = Path(f"{args.name.replace('/', '-').replace(':', '-')}.html")
    if args.command in (_watch, _play):
        args.out = _film(args)
    for option in ("out", "seconds", "dream"):
        if path := getattr(args, option, None):
            setattr(args, option, path.absolute())
    with branches.inside(args.name) as args.name:
        yield


def _goes_on(args: argparse.Namespace) -> str:
    """What to do after a stage was stopped; nothing of the other commands, which have no checkpoints."""
    return "; the same command goes on from the last checkpoint" if "stage" in args else ""


def _misplaced(argv: list[str], whole: bool) -> str | None:
    """What is wrong with a command that is not here."""
    if new := RENAMED.get(argv[0]):
        return f"`python -m wm` has no {argv[0]}: give `wm {' '.join([new, *argv[1:]])}`"
    if argv[0] in FLOWS and not whole:
        return f"`python -m wm` has no {argv[0]}, which calls DVC or Prefect: give `wm {' '.join(argv)}`"
    return None


def parser(add_more: AddMore | None = None) -> argparse.ArgumentParser:
    """The command line's parser; `add_more` as in `main`."""
    made = argparse.ArgumentParser(
        prog="wm" if add_more else "python -m wm",
        usage="%(prog)s COMMAND …",
        epilog=EPILOG,
        formatter_class=_Grouped,
    )
    shtab.add_argument_to(made, "--completion", help="print what makes this shell complete commands and options")
    commands = made.add_subparsers(prog=made.prog, required=True, metavar="COMMAND", help="one of those above")
    _add_stages(commands)
    _add_estimate(commands)
    _add_players(commands)
    for room in (of_views, of_records, of_release, of_estimate):
        room.add(commands)
    command = add_command(commands, "params", "every key of params.yaml: its type, its default, what it means", _params)
    text = "check params.yaml instead, and say nothing if it is right"
    command.add_argument("check", nargs="?", choices=["check"], help=text)
    if add_more:
        add_more(commands)
    made.description = f"World Models: V sees, M predicts, C acts.\n\n{_list(commands.choices)}"
    return made


class _Grouped(argparse.RawDescriptionHelpFormatter):
    """Leaves out argparse's one long list of commands: the description has them in groups."""

    def _iter_indented_subactions(self, action: argparse.Action) -> Generator[argparse.Action, None, None]:
        yield from ()


def _list(commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """The commands in groups, a line or two each."""
    width, lines = min(shutil.get_terminal_size().columns, 118), []
    for title, names in GROUPS.items():
        lines += [f"{title}:"] if any(name in commands for name in names) else []
        for name in filter(commands.get, names):
            text = str(commands[name].description)
            lines += textwrap.wrap(text, width, initial_indent=f"  {name:11}", subsequent_indent=" " * 13)
    return "\n".join(lines)


def _add_stages(commands: argparse._SubParsersAction) -> None:
    for stage, known in STAGES.items():
        command = add_command(commands, stage, known.description, _run_stage)
        command.set_defaults(stage=stage)
        command.add_argument("name", metavar="NAME", help="an entry of `models` or `agents` in params.yaml")
        if stage == "evaluate":
            text = "score the agent in pretrained/NAME, or in the folder NAME, and compare with what is recorded"
            command.add_argument("--pretrained", action="store_true", help=text)


def _add_estimate(commands: argparse._SubParsersAction) -> None:
    text = "measure this machine: time, disk and memory of each stage of an agent, and the score to expect"
    command = add_command(commands, "estimate", text, _estimate)
    command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml")
    command.add_argument("--only", nargs="+", default=(), metavar="STAGE@NAME", help="these stages; default: all")
    command.add_argument("--seconds", type=Path, metavar="FILE", help="also write each stage's seconds, as JSON")
    command.add_argument("--budget", metavar="LENGTH", help="what fits into 2h, 90m, …, and the score to expect then")


def _add_players(commands: argparse._SubParsersAction) -> None:
    text = "play an episode: what the agent sees, what V keeps, what M dreams"
    watch = add_command(commands, "watch", text, _watch)
    text = "play by hand in M's dream or in the world: in a window, or without a display on a page; or film C dreaming"
    play = add_command(commands, "play", text, _play)
    for command in (watch, play):
        text = "an entry of `agents` in params.yaml, or a folder that holds an agent"
        command.add_argument("name", metavar="NAME", help=text)
        command.add_argument("--seed", type=int, default=0, help="of the episode; default: 0")
        command.add_argument("--steps", type=int, default=None, help="how many at most; default: the whole episode")
        command.add_argument("--tau", type=float, default=None, help="temperature of the dream; default: the agent's")
        text = "the agent that comes with the repository (pretrained/NAME)"
        command.add_argument("--pretrained", action="store_true", help=text)
    watch.add_argument("--out", type=Path, default=None, help="an mp4 or gif to write; without it, a window")
    play.add_argument("--out", type=Path, default=None, help="an mp4 or gif to write, of C dreaming; or an html page")
    play.add_argument("--world", action="store_true", help="the world rather than the dream; needs a display")
    play.add_argument("--record", metavar="DATA", default="", help="keep what you play as a data set, recordings/DATA")


def _run_stage(args: argparse.Namespace) -> None:
    if getattr(args, "pretrained", False):
        from wm.release import places, recorded_score

        place = places.find(args.name, kept=True)
        print(recorded_score.check(place.name, place.folder))
        return
    from wm.run import run_stage

    run_stage(args.stage, args.name)


def _estimate(args: argparse.Namespace) -> None:
    from wm import params
    from wm.core import files
    from wm.estimate import expectation, needs
    from wm.search import budget

    limit, everything = budget.seconds(args.budget) if args.budget is not None else None, params.load()
    check_file("--seconds", args.seconds)
    measured = needs.measure(everything, args.name, args.only)
    if args.seconds:
        files.write_json(args.seconds, {need.address: round(need.seconds, 1) for need in measured})
    print(needs.report(args.name, measured, whole=not args.only))
    try:
        if prospect := needs.prospect(everything, args.name, measured, limit):
            print(prospect)
    except expectation.TooShort:
        raise
    except UserError as error:  # the record of an earlier run is no reason to stop this one
        print(f"warning: no score to expect: {error}", file=sys.stderr)


def _watch(args: argparse.Namespace) -> None:
    from wm.views import watch

    place = _place(args)
    print(watch.watch(place.folder, args.seed, _film(args), args.steps, place.tau))


def _play(args: argparse.Namespace) -> None:
    from wm.views import play

    place = _place(args, (".mp4", ".gif", ".html"))
    if (out := _film(args)) is None:
        print(play.window(place.folder, place.model, args.world, args.seed, args.steps, place.tau, args.record))
        return
    for option in ("world", "record"):
        if getattr(args, option):
            raise UserError(f"--{option} needs a display and no --out: a page or a film shows a dream alone")
    if out.suffix != ".html":
        print(play.film(place.folder, place.model, args.seed, out, args.steps, place.tau))
        return
    from wm.release import demo

    print(demo.write(place, out))


def _film(args: argparse.Namespace) -> Path | None:
    """What `watch` or `play` writes: --out, or where there is no display a file of the current folder; else None."""
    from wm.views import watch

    if args.out or watch.has_display():
        return args.out
    return Path("watch.mp4" if args.command is _watch else "dream.html")


def _place(args: argparse.Namespace, kinds: Sequence[str] = (".mp4", ".gif")) -> Place:
    """Where the agent lies, with the temperature that was asked for."""
    for option, sound, words in (
        ("seed", args.seed >= 0, "0 or more"),
        ("steps", args.steps is None or args.steps > 0, "1 or more"),
        ("tau", args.tau is None or args.tau > 0, "more than 0"),
    ):
        if not sound:
            raise UserError(f"--{option} is {getattr(args, option)}: expected {words}")
    check_file("--out", args.out, kinds)
    from wm.release import places

    place = places.find(args.name, kept=args.pretrained)
    return dataclasses.replace(place, tau=args.tau or place.tau)


def _params(args: argparse.Namespace) -> None:
    if args.check:
        from wm import params

        params.load()
        return
    from wm.views import keys

    for line in keys.describe():
        print(line)
