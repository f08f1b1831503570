"""`wm world …`: what can be known of a world before a run, and what its agent has to be better than."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from wm.core.errors import UserError
from wm.records.commands import add_command, add_group

SEARCHED = 200
"""Episodes that are played to find the best constant action, where nobody says otherwise."""


def add(commands: argparse._SubParsersAction) -> None:
    """Adds them to a command line."""
    text = "a world of your own: its entries of params.yaml, whether it is sound, what an agent has to beat there"
    inside = add_group(commands, "world", text)
    command = add_command(inside, "new", "the lines of params.yaml for a Gymnasium environment, to be pasted", _new)
    command.add_argument("gym", metavar="GYM_ID", help="the environment's id: LunarLander-v3, ALE/Pong-v5")
    command.add_argument("--as", dest="called", metavar="NAME", help="of the entries; default: made of the id")
    command.add_argument("--import", dest="module", metavar="MODULE", help="the package that registers the id: ale_py")
    command.add_argument("--kwargs", metavar="YAML", help="what the environment is made with: '{continuous: true}'")
    text = "play a world and say what is wrong with it, how fast it is, and what a run will cost"
    command = add_command(inside, "check", text, _check)
    command.add_argument("world", metavar="NAME", help="an entry of `worlds` in params.yaml")
    text = "the picture to write of what V will see; default: NAME_world.png"
    command.add_argument("--out", type=Path, default=None, help=text)
    command.add_argument("--no-cost", action="store_true", help="do not measure what a run will cost (a minute or two)")
    text = "an agent's test scores beside the random policy's and the best constant action's"
    command = add_command(inside, "score", text, _score)
    command.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml, evaluated; or of `worlds`")
    command.add_argument("--episodes", type=int, default=None, help="default: the agent's; 100 of a world")
    text = f"episodes in which the best constant action is looked for; default: {SEARCHED}"
    command.add_argument("--search", type=int, default=SEARCHED, help=text)


def _new(args: argparse.Namespace) -> None:
    from wm import params
    from wm.estimate import entries

    if args.called:
        try:
            params.check_name(args.called)
        except ValueError as error:
            raise UserError(f"--as {error}") from None
    print(entries.new(args.gym, args.called, args.module, args.kwargs))


def _check(args: argparse.Namespace) -> int:
    from wm import params
    from wm.estimate import check

    everything = params.load()
    if args.world not in everything.worlds:
        raise UserError(
            f"{args.world!r} is not in `worlds` of params.yaml: expected one of {', '.join(everything.worlds)}; `wm "
            "world new GYM_ID` says what to put there"
        )
    sound = True
    for text, right in check.check(args.world, args.out or Path(f"{args.world}_world.png")):
        sound &= right
        print(text if right else f"error: {text}", file=sys.stdout if right else sys.stderr, flush=True)
    if sound and not args.no_cost:
        _cost(everything, args.world)
    return 0 if sound else 2


def _cost(everything: Any, world: str) -> None:
    from wm.estimate import needs

    agents = [name for name, agent in everything.agents.items() if agent.world == world]
    if not agents:
        print("no agent of params.yaml is of this world yet: `wm world new` prints two to paste")
        return
    name = world if world in agents else agents[-1]
    print(needs.report(name, needs.measure(everything, name)))


def _score(args: argparse.Namespace) -> None:
    import numpy as np

    from wm import params, worlds
    from wm.core import files
    from wm.estimate import baselines
    from wm.run import RUNS

    everything, agent = params.load(), None
    for option, value in (("episodes", args.episodes), ("search", args.search)):
        if value is not None and value < 1:
            raise UserError(f"--{option} is {value}: expected 1 or more")
    if args.name in everything.agents:
        world, path = everything.agents[args.name].world, RUNS / args.name / "evaluate" / "scores.json"
        if not path.is_file():
            raise UserError(f"{path} is not here: run `dvc repro evaluate@{args.name}` first, or `dvc pull`")
        agent = np.array(files.read_json(path)["scores"])[: args.episodes]
    else:
        world = args.name
    if world not in everything.worlds:
        raise UserError(f"{world!r} is neither in `agents` nor in `worlds` of params.yaml")
    if recordings := worlds.get(world).recordings:
        raise UserError(f"the world {world} is recordings ({recordings}): nobody can play there")
    episodes = len(agent) if agent is not None else args.episodes or 100
    print(baselines.table(world, agent, episodes, args.search))
