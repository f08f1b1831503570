"""The command line: one sub-command a stage, and what people do besides.

`python -m wm <stage> NAME` is the whole command of a stage in dvc.yaml. It needs no server, no Prefect and no DVC.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wm import failures, surroundings
from wm.core.errors import UserError
from wm.stages import STAGES

if TYPE_CHECKING:
    from wm.params import AgentEntry, Experiment

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
    failures.hear_signals()
    try:
        from wm.core import watchdog

        watchdog.start()
        with _at_run(args):
            return args.command(args) or 0
    except KeyboardInterrupt as error:
        print(f"Stopped{_goes_on(args)}.", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)
    except Exception as error:
        return failures.tell(error, _goes_on(args))


@contextlib.contextmanager
def _at_run(args: argparse.Namespace) -> Iterator[None]:
    """A command about BRANCH:NAME works in that branch's folder, and writes where it was called."""
    if ":" not in getattr(args, "name", "") or args.command is _lineage:  # which reads git
        yield
        return
    from wm.records import branches

    if args.command is _report and args.out is None:
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
    for stage, known in STAGES.items():
        command = _add(commands, stage, known.about, _run_stage)
        command.set_defaults(stage=stage)
        command.add_argument("name", metavar="NAME", help="an entry of `models` or `agents` in params.yaml")
        if stage == "evaluate":
            _pretrained(command, "score the agent that comes with the repository, and compare with what is recorded")
    command = _add(
        commands,
        "estimate",
        "measure this machine: time, disk and memory of each stage of an agent, and the score to expect",
        _estimate,
    )
    command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml")
    command.add_argument("--only", nargs="+", default=(), metavar="STAGE@NAME", help="these stages; default: all")
    command.add_argument("--seconds", type=Path, metavar="FILE", help="also write each stage's seconds, as JSON")
    command.add_argument("--budget", metavar="LENGTH", help="what fits into 2h, 90m, …, and the score to expect then")
    for name, text, function in (
        ("watch", "play an episode: what the agent sees, what V keeps, what M dreams", _watch),
        ("dream", "drive inside M's dream with the arrow keys, or film C driving there", _dream),
    ):
        command = _add(commands, name, text, function)
        command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml")
        command.add_argument("--seed", type=int, default=0, help="of the episode; default: 0")
        command.add_argument("--steps", type=int, default=None, help="the most to play; default: the whole episode")
        command.add_argument("--tau", type=float, default=None, help="temperature of the dream; default: the agent's")
        command.add_argument("--out", type=Path, default=None, help="an mp4 or gif to write; without it, a window")
        _pretrained(command, "the agent that comes with the repository (pretrained/NAME)")
    text = "the random policy in M's dream at several temperatures, beside what it did in the world"
    command = _add(commands, "calibrate", text, _calibrate)
    command.add_argument("name", metavar="MODEL", help="an entry of `models` in params.yaml")
    command.add_argument("--tau", type=float, nargs="+", default=None, help="temperatures; default: 0.5 to 2")
    command.add_argument("--episodes", type=int, default=200, help="dreams at each; default: 200")
    command = _add(commands, "keep", "copy a scored agent into pretrained/, to be committed", _keep)
    command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml")
    command.add_argument("--commit", default=None, help="that made it; default: the one that `lineage` finds")
    text = "compare the agents of a model that were evolved in dreams of different temperatures: a table and a plot"
    command = _add(commands, "sweep", text, _sweep)
    command.add_argument("name", metavar="MODEL", help="an entry of `models` in params.yaml")
    command = _add(commands, "table", "scored agents side by side, each compared with the first in pairs", _table)
    command.add_argument("names", nargs="+", metavar="NAME", help="entries of `agents` in params.yaml")
    text = "write results/: scores beside the paper's, costs, curves, and the command under every number"
    command = _add(commands, "results", text, _results)
    text = "entries of `agents` in params.yaml, evaluated; without one, the page alone, from the records that it has"
    command.add_argument("names", nargs="*", metavar="NAME", help=text)
    command.add_argument("--out", type=Path, default=None, help="the folder to write; default: results")
    command.add_argument("--machine", default="", help="where runs were made that do not say so themselves")
    command = _add(commands, "lineage", "what made a model, from data to score, and how to make it again", _lineage)
    command.add_argument("name", metavar="MODEL", help="an entry of `agents` or `models`, or a registered NAME/VERSION")
    command = _add(commands, "why", "what differs between two scores, and whether the difference is real", _why)
    for side in ("A", "B"):
        command.add_argument(side.lower(), metavar=side, help="an agent, here or at a commit: smoke, HEAD~3:smoke")
    command = _add(commands, "report", "one HTML page about an agent, with its pictures and films inside", _report)
    command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml")
    command.add_argument("--out", type=Path, default=None, help="the page to write; default: NAME.html")
    command = _add(commands, "gate", "make an agent champion if it drives better than the champion does", _gate)
    command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml, evaluated")
    for name, text, function in (
        ("promote", "make an agent champion by hand", _promote),
        ("rollback", "make the champion what it was before", _rollback),
    ):
        command = _add(commands, name, text, function)
        command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml")
        command.add_argument("--reason", type=_reason, required=True, help="why; kept in MLflow with date and user")
        if name == "promote":
            command.add_argument("--version", type=str, help="of the registered agent; default: the newest of NAME")
    from wm.release import commands as agent_commands

    agent_commands.add(commands)
    _add(commands, "params", "every key of params.yaml: its type, its default, what it means", _params)
    _add(commands, "check", "check params.yaml and say nothing if it is right", _check)
    command = _add(commands, "ui", "open the MLflow pages that runs left behind, on the loopback address", _ui)
    command.add_argument("--port", type=int, default=5000, help="default: 5000")
    return parser


def _add(commands, name: str, text: str, function: Callable[[argparse.Namespace], int | None]):
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(command=function)
    return command


def _pretrained(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--pretrained", action="store_true", help=text)


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
    found = needs.measure(everything, args.name, args.only)
    if args.seconds:
        files.write_json(args.seconds, {one.address: round(one.seconds, 1) for one in found})
    print(needs.report(args.name, found, whole=not args.only))
    try:
        if told := needs.prospect(everything, args.name, found, limit):
            print(told)
    except expectation.TooShort:
        raise
    except UserError as error:  # the record of an earlier run is no reason to stop this one
        print(f"warning: no score to expect: {error}", file=sys.stderr)


def _watch(args: argparse.Namespace) -> None:
    from wm.views import watch

    folder, _, tau = _whole_agent(args)
    print(watch.watch(folder, args.seed, args.out, args.steps, tau))


def _dream(args: argparse.Namespace) -> None:
    from wm.views import watch

    folder, model, tau = _whole_agent(args)
    print(watch.dream(folder, model, args.seed, args.out, args.steps, tau))


def _whole_agent(args: argparse.Namespace) -> tuple[Path, Path, float]:
    """Where the agent lies, where the model does that it dreams with, and the dream's temperature."""
    for option, sound, words in (
        ("seed", args.seed >= 0, "0 or more"),
        ("steps", args.steps is None or args.steps > 0, "1 or more"),
        ("tau", args.tau is None or args.tau > 0, "more than 0"),
    ):
        if not sound:
            raise UserError(f"--{option} is {getattr(args, option)}: expected {words}")
    _can_write("--out", args.out, (".mp4", ".gif"))
    if args.pretrained:
        from wm.core import files
        from wm.release import pretrained

        folder = pretrained.folder(args.name)
        return folder, folder, args.tau or files.read_record(folder / "made.json")["tau"]
    entry = _agent(args.name)
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


def _calibrate(args: argparse.Namespace) -> None:
    from wm import params
    from wm.views import calibration

    if args.episodes < 1:
        raise UserError(f"--episodes is {args.episodes}: expected 1 or more")
    print(calibration.report(params.load(), args.name, args.tau or calibration.TAUS, args.episodes))


def _keep(args: argparse.Namespace) -> None:
    from wm import params
    from wm.release import pretrained

    print(pretrained.keep(params.load(), args.name, args.commit))


def _results(args: argparse.Namespace) -> None:
    from wm.views import results, table

    print(results.write(args.names, args.out or table.RESULTS, args.machine))


def _lineage(args: argparse.Namespace) -> None:
    from wm.records import lineage

    print(lineage.text(lineage.of(args.name)))


def _why(args: argparse.Namespace) -> None:
    from wm.records import why

    print(why.why(args.a, args.b))


def _report(args: argparse.Namespace) -> None:
    from wm.views import report

    print(report.write(args.name, args.out or Path(f"{args.name}.html")))


def _agent(name: str) -> AgentEntry:
    return _found(name)[0]


def _found(name: str) -> tuple[AgentEntry, Experiment]:
    from wm import params

    everything = params.load()
    entry = everything.entry("agents", name)
    return entry, everything.experiments[entry.experiment]


def _gate(args: argparse.Namespace) -> None:
    from wm.records import tracking
    from wm.release import gate

    entry, experiment = _found(args.name)
    if tracking.off():
        raise UserError("WM_TRACKING is off, and without MLflow there is no champion: unset it")
    decision = gate.gate(args.name, experiment.gate, entry.world, entry.experiment, tracking.find_root())
    print(f"gate {args.name}: {decision['decision']}: {decision['why']}")


def _promote(args: argparse.Namespace) -> None:
    from wm.records import tracking
    from wm.release import registry

    model = _registered(args.name)
    move = registry.by_hand(tracking.find_root(), model, args.name, args.version, args.reason)
    print(_moved(model, move))


def _rollback(args: argparse.Namespace) -> None:
    from wm.records import tracking
    from wm.release import registry

    model = _registered(args.name)
    print(_moved(model, registry.roll_back(tracking.find_root(), model, args.reason)))


def _registered(name: str) -> str:
    from wm.records.registered_models import model_name

    entry = _agent(name)
    return model_name(entry.world, entry.experiment, "agent")


def _moved(model: str, move: dict[str, Any]) -> str:
    return f"{model}: version {move['version']} is champion, before it was version {move['before'] or '(none)'}"


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("say why")
    return text.strip()


def _sweep(args: argparse.Namespace) -> None:
    from wm import params
    from wm.views import sweep

    print(sweep.report(params.load(), args.name))


def _table(args: argparse.Namespace) -> None:
    from wm.views import table

    print(table.table(args.names))


def _params(args: argparse.Namespace) -> None:
    from wm.views import keys

    for line in keys.describe():
        print(line)


def _check(args: argparse.Namespace) -> None:
    from wm import params

    params.load()


def _ui(args: argparse.Namespace) -> None:
    from wm.records import tracking

    tracking.ui(args.port)
