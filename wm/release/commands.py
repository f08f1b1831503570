"""`wm agent …` and `wm ui`: what becomes of a trained agent, and where all that were registered are shown."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from wm.core.errors import UserError
from wm.records.commands import add_command, add_group, check_file

ENTRY = "an entry of `agents` in params.yaml"
AGENT = "an entry of `agents` in params.yaml, or a folder that holds an agent, e.g. pretrained/car_racing"


def add(commands: argparse._SubParsersAction) -> None:
    """Adds them to a command line."""
    text = "keep, publish or promote a trained agent; measure whether its dream is to be trusted, what is novel to it"
    inside = add_group(commands, "agent", text, "what to do with it")
    _add_giving(inside)
    _add_champion(inside)
    text = "open MLflow's pages of runs and registered models, those of pretrained/ too, on the loopback address"
    command = add_command(commands, "ui", text, _ui)
    command.add_argument("--port", type=int, default=5000, help="default: 5000")


def _add_giving(inside: argparse._SubParsersAction) -> None:
    command = add_command(inside, "keep", "copy a scored agent into pretrained/, to be committed", _keep)
    command.add_argument("name", metavar="NAME", help=ENTRY)
    command.add_argument("--commit", default=None, help="that made the agent; default: the one that `lineage` finds")
    export = add_command(inside, "export", "write V, M and C as ONNX, with a description, into a folder", _export)
    demo = add_command(inside, "demo", "write one HTML page in which anyone can drive in the agent's dream", _demo)
    text = "write a model card with the agent, as safetensors and ONNX, into a folder for the Hugging Face hub"
    card = add_command(inside, "card", text, _card)
    text = "compare how the agent's dream ranks controllers with how the world does"
    gauge = add_command(inside, "gauge", text, _gauge)
    text = "measure how novel episodes are to V and M, with pictures of the most novel steps"
    surprise = add_command(inside, "surprise", text, _surprise)
    for command in (export, demo, card, gauge, surprise):
        command.add_argument("agent", metavar="AGENT", help=AGENT)
    export.add_argument("folder", type=Path, metavar="FOLDER", help="to be written")
    text = "to be written; default: card/ and the agent's name"
    card.add_argument("folder", type=Path, metavar="FOLDER", nargs="?", help=text)
    demo.add_argument("--out", type=Path, default=Path("dream.html"), help="the page to write; default: dream.html")
    text = "also put it on the run in MLflow that scored the agent, an entry of `agents`"
    demo.add_argument("--mlflow", action="store_true", help=text)
    text = "a data set of `collect`, or how many episodes the agent plays; default: 4"
    surprise.add_argument("episodes", metavar="EPISODES", nargs="?", default="4", help=text)
    surprise.add_argument("--seed", type=int, default=0, help="of the first episode that it plays; default: 0")
    text = "a data set of its own world, whose held-out episodes are compared with; default: what its record keeps"
    surprise.add_argument("--against", type=Path, default=None, metavar="DATA", help=text)
    text = "the pictures to write; default: surprise.png"
    surprise.add_argument("--out", type=Path, default=Path("surprise.png"), help=text)
    gauge.add_argument("--sigma", type=float, default=0.1, help="spread of the weights' disturbances; default: 0.1")
    gauge.add_argument("--controllers", type=int, default=16, help="disturbed controllers; default: 16")
    gauge.add_argument("--episodes", type=int, default=4, help="episodes of dream and world for each; default: 4")


def _add_champion(inside: argparse._SubParsersAction) -> None:
    command = add_command(inside, "gate", "make an agent champion if it drives better than the champion does", _gate)
    command.add_argument("name", metavar="NAME", help=f"{ENTRY}, evaluated")
    promote = add_command(inside, "promote", "make an agent champion by hand", _promote)
    rollback = add_command(inside, "rollback", "make the champion what it was before", _rollback)
    for command in (promote, rollback):
        command.add_argument("name", metavar="NAME", help=ENTRY)
        command.add_argument("--reason", type=_reason, required=True, help="why; kept in MLflow with date and user")
    promote.add_argument("--version", type=str, help="of the registered agent; default: the newest of NAME")


def _export(args: argparse.Namespace) -> None:
    from wm.release import export, places

    print(export.export(places.find(args.agent), args.folder))


def _demo(args: argparse.Namespace) -> None:
    from wm.release import demo, places

    check_file("--out", args.out, [".html"])
    print(demo.write(places.find(args.agent), args.out))
    if args.mlflow:
        print(_attach(args.agent, args.out))


def _attach(name: str, page: Path) -> str:
    """Puts a page on the run of the agent's version in MLflow."""
    from wm.records import registered_models, tracking
    from wm.release import registry
    from wm.run import RUNS

    model = _registered(name)
    with registry.connected(tracking.find_root(), model) as versions:
        version = versions.of_weights(registered_models.weights("agent", RUNS / name / "evolve"))
        if version is None:
            raise UserError(f"no version of {model} has these weights: run `python -m wm evaluate {name}` first")
        versions.attach(version, page)
    return f"{page.name} is on the run of version {version} of {model} in MLflow"


def _dream_of(name: str) -> None:
    """The page of a new champion's dream, on its run in MLflow; where it cannot be made, a line that says why."""
    from wm.release import demo, page, places

    try:
        if not page.BUILT.is_file():
            raise UserError(f"the page is not built here: `python -m wm agent demo {name} --mlflow` does it")
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch, "dream.html")
            demo.write(places.find(name), out)
            print(_attach(name, out))
    except Exception as error:  # of many kinds, none of which takes the decision back
        print(f"warning: {name} has no page of its dream in MLflow: {error}", file=sys.stderr)


def _card(args: argparse.Namespace) -> None:
    from wm.release import card, places

    place = places.find(args.agent)
    print(card.write(place, args.folder or Path("card", place.name)))


def _gauge(args: argparse.Namespace) -> None:
    from wm.release import places, trust

    for option, least in (("sigma", 0), ("controllers", 3), ("episodes", 0)):
        if not getattr(args, option) > least:
            raise UserError(f"--{option} is {getattr(args, option):g}: expected more than {least}")
    print(trust.report(places.find(args.agent), args.sigma, args.controllers, args.episodes))


def _surprise(args: argparse.Namespace) -> None:
    from wm.release import places, surprise

    if args.seed < 0:
        raise UserError(f"--seed is {args.seed}: expected 0 or more")
    check_file("--out", args.out, [".png"])
    print(surprise.report(places.find(args.agent), args.episodes, args.seed, args.against, args.out))


def _ui(args: argparse.Namespace) -> None:
    from wm.records import tracking
    from wm.release import browse

    root = tracking.find_root().resolve()
    with socket.socket() as probe:  # MLflow would say it in its log, and end as if all were well
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", args.port))
        except (OSError, OverflowError) as error:
            raise UserError(f"port {args.port} of 127.0.0.1 cannot be had ({error}): another is --port N") from None
    if not os.environ.get("MLFLOW_TRACKING_URI") and not tracking.off():
        print("The agents of pretrained/ are being registered, which takes a moment the first time.", flush=True)
        browse.register(root)
        browse.start_films(root)
    tracking.ui(args.port, root)


def _keep(args: argparse.Namespace) -> None:
    from wm import params
    from wm.release import pretrained

    print(pretrained.keep(params.load(), args.name, args.commit))


def _gate(args: argparse.Namespace) -> None:
    from wm import params
    from wm.records import tracking
    from wm.records.registered_models import is_trial
    from wm.release import gate

    everything = params.load()
    entry = everything.entry("agents", args.name)
    if tracking.off():
        raise UserError("WM_TRACKING is off, and without MLflow there is no champion: unset it")
    decision = gate.gate(
        args.name, everything.experiments[entry.experiment].gate, entry.world, entry.experiment, tracking.find_root()
    )
    print(f"gate {args.name}: {decision['decision']}: {decision['why']}", flush=True)
    if decision["decision"] == "promoted" and not is_trial(entry.experiment):
        _dream_of(args.name)


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
    from wm import params
    from wm.records.registered_models import model_name

    entry = params.load().entry("agents", name)
    return model_name(entry.world, entry.experiment, "agent")


def _moved(model: str, move: dict[str, Any]) -> str:
    return f"{model}: version {move['version']} is champion, before it was version {move['before'] or '(none)'}"


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("say why")
    return text.strip()
