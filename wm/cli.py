"""The command line: one sub-command a stage, and what people do besides.

`python -m wm <stage> NAME` is the whole command of a stage in dvc.yaml. It needs no server, no Prefect and no DVC.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from wm import failures, surroundings
from wm.core.errors import UserError
from wm.records import commands as of_records
from wm.records.commands import add_command
from wm.release import commands as of_release
from wm.stages import STAGES
from wm.views import commands as of_views

RUNS = Path("runs")
EPILOG = """\
Stages read runs/… and write runs/NAME/<stage>; `dvc repro evaluate@NAME` or `python -m flows.pipeline NAME` runs
them all in order. NAME is an entry of `models` (collect to train_mdn) or `agents` (evolve, evaluate) in params.yaml;
a run on a branch of its own, of another seed, budget or machine, is BRANCH:NAME, such as run/smoke-seed1:smoke.

  python -m wm params             every key of params.yaml and what it means
  python -m wm estimate smoke     how long each stage will take on this machine
  python -m wm train_vae smoke    one stage by hand
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command; 0 is success, 128 + n a signal n, else the `code` of a UserError, whose sentence is printed."""
    surroundings.prepare("DASK_", "MLFLOW_")
    args = _parser().parse_args(argv)
    failures.hear_signals(f"Stopped{_goes_on(args)}")
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
        return failures.tell(error, _goes_on(args))


@contextlib.contextmanager
def _at_run(args: argparse.Namespace) -> Iterator[None]:
    """A command about BRANCH:NAME works in that branch's folder, and writes where it was called."""
    if ":" not in getattr(args, "name", "") or args.command is of_records.print_lineage:  # which reads git
        yield
        return
    from wm.records import branches

    if args.command is of_views.write_report and args.out is None:
        args.out = Path(f"{args.name.replace('/', '-').replace(':', '-')}.html")
    for option in ("out", "seconds"):
        if path := getattr(args, option, None):
            setattr(args, option, path.absolute())
    with branches.inside(args.name) as args.name:
        yield


def _goes_on(args: argparse.Namespace) -> str:
    """What to do after a stage was stopped; nothing of the other commands, which have no checkpoints."""
    return "; the same command goes on from the last checkpoint" if "stage" in args else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wm",
        description="World Models: V sees, M predicts, C acts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _add_stages(commands)
    _add_estimate(commands)
    _add_players(commands)
    for room in (of_views, of_records, of_release):
        room.add(commands)
    add_command(commands, "params", "every key of params.yaml: its type, its default, what it means", _params)
    add_command(commands, "check", "check params.yaml and say nothing if it is right", _check)
    return parser


def _add_stages(commands: argparse._SubParsersAction) -> None:
    for stage, known in STAGES.items():
        command = add_command(commands, stage, known.about, _run_stage)
        command.set_defaults(stage=stage)
        command.add_argument("name", metavar="NAME", help="an entry of `models` or `agents` in params.yaml")
        if stage == "evaluate":
            text = "score the agent that comes with the repository, and compare with what is recorded"
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
        command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml")
        command.add_argument("--seed", type=int, default=0, help="of the episode; default: 0")
        command.add_argument("--steps", type=int, default=None, help="the most to play; default: the whole episode")
        command.add_argument("--tau", type=float, default=None, help="temperature of the dream; default: the agent's")
        text = "the agent that comes with the repository (pretrained/NAME)"
        command.add_argument("--pretrained", action="store_true", help=text)
    watch.add_argument("--out", type=Path, default=None, help="an mp4 or gif to write; without it, a window")
    play.add_argument("--out", type=Path, default=None, help="an mp4 or gif to write, of C dreaming; or an html page")
    play.add_argument("--world", action="store_true", help="the world rather than the dream; needs a display")
    play.add_argument("--record", metavar="DATA", default="", help="keep what you play as a data set, recordings/DATA")


def _run_stage(args: argparse.Namespace) -> None:
    if getattr(args, "pretrained", False):
        from wm.release import pretrained

        print(pretrained.score(args.name))
        return
    from wm.run import run_stage

    run_stage(args.stage, args.name)


def _estimate(args: argparse.Namespace) -> None:
    from wm import params
    from wm.core import files
    from wm.estimate import expectation, needs
    from wm.search import budget

    limit, everything = budget.seconds(args.budget) if args.budget is not None else None, params.load()
    _can_write("--seconds", args.seconds)
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

    folder, _, tau = _whole_agent(args)
    print(watch.watch(folder, args.seed, args.out, args.steps, tau))


def _play(args: argparse.Namespace) -> None:
    from wm.views import play, watch

    folder, model, tau = _whole_agent(args, (".mp4", ".gif", ".html"))
    if args.out is None and watch.has_display():
        print(play.window(folder, model, args.world, args.seed, args.steps, tau, args.record))
        return
    for option in ("world", "record"):
        if getattr(args, option):
            raise UserError(f"--{option} needs a display and no --out: a page or a film shows a dream alone")
    out = args.out or Path("dream.html")
    if out.suffix != ".html":
        print(play.film(folder, model, args.seed, out, args.steps, tau))
        return
    from wm.release import demo, export

    starts = model / "train_mdn" if (model / "train_mdn").is_dir() else model
    print(demo.write(export.Place(args.name, folder, starts, tau), out))


def _whole_agent(args: argparse.Namespace, kinds: Sequence[str] = (".mp4", ".gif")) -> tuple[Path, Path, float]:
    """Where the agent lies, where the model does that it dreams with, and the dream's temperature."""
    for option, sound, words in (
        ("seed", args.seed >= 0, "0 or more"),
        ("steps", args.steps is None or args.steps > 0, "1 or more"),
        ("tau", args.tau is None or args.tau > 0, "more than 0"),
    ):
        if not sound:
            raise UserError(f"--{option} is {getattr(args, option)}: expected {words}")
    _can_write("--out", args.out, kinds)
    if args.pretrained:
        from wm.core import files
        from wm.release import pretrained

        folder = pretrained.folder(args.name)
        return folder, folder, args.tau or files.read_record(folder / "made.json")["tau"]
    from wm import params

    entry = params.load().entry("agents", args.name)
    return RUNS / args.name / "evolve", RUNS / entry.model, args.tau or entry.tau


def _can_write(option: str, path: Path | None, kinds: Sequence[str] = ()) -> None:
    """Makes the folder of a file before the work that the file is for."""
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


def _params(args: argparse.Namespace) -> None:
    from wm.views import keys

    for line in keys.describe():
        print(line)


def _check(args: argparse.Namespace) -> None:
    from wm import params

    params.load()
