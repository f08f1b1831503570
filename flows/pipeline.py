"""The command that runs everything: `python -m flows.pipeline NAME`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from flows import claim, due, graph, guard, prepare, recipe, seeds, start, variants
from flows.server import Server, is_given
from flows.variants import Variant
from wm import failures
from wm.core.errors import UserError, without_password

DESCRIPTION = "Run every stage that an agent needs, from the first episode to its score."
EPILOG = """\
NAME is an entry of `agents` in params.yaml; without one, the agents and the state of their stages are listed.

DVC knows what depends on what and what has changed, so only that runs; Prefect runs it, one task a stage, and
each task's state is DVC's verdict:
  Cached     nothing changed since the outputs were made
  Restored   made before from the same inputs: brought back from DVC's cache
  Completed  ran
`dvc repro evaluate@NAME` does the same without Prefect, and neither repeats what the other did.

--seed, --budget and --machine give a run on a branch of its own, run/NAME-seed1 and so on, in a worktree in .wm/run/
that shares DVC's cache; your own files stay as they are. It ends with a commit of whole numbers (params.yaml),
dvc.lock and scores, and is called BRANCH:NAME from then on: python -m wm why run/smoke-seed1:smoke smoke.
To bring its files back anywhere:  git checkout run/smoke-seed1 && dvc repro evaluate@smoke

examples:
  python -m flows.pipeline smoke                     the whole pipeline with tiny numbers
  python -m flows.pipeline car_racing --budget 2h    the search ends in time for its evaluation
  python -m flows.pipeline smoke --seeds 0,1,2       three runs, and the mean over them with its t interval
  python -m flows.pipeline smoke --machine gpu16     with the numbers of `machines` in params.yaml
  dvc repro -f evaluate@smoke                        the same, and everything anew
  PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.pipeline smoke
                                                     on a server, whose pages show it; that of `make up` is
                                                     found; without one, a temporary server is started
  PREFECT_API_URL=… python -m flows.pipeline car_racing --place pools
                                                     each stage on a worker of the pool that dvc.yaml names
                                                     for it; `python -m flows.worker --help` says how

Ctrl-C or a kill leave no process behind, and the same command goes on from the last checkpoint.
exit codes: 0 done; 1 a stage failed; 2 a mistake in the command or in params.yaml; 129, 130, 143 stopped by
a closed terminal, by Ctrl-C, by SIGTERM
"""
OUTLOOK = {
    "unchanged": "unchanged, will be skipped",
    "in the cache": "changed; its outputs are in the cache and will be restored",
    "to run": "will run",
    "depends": "follows: runs, unless the cache knows the outcome",
}


def main(argv: list[str] | None = None) -> int:
    """Runs the pipeline for one agent; returns the exit code."""
    prepare()
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        description=DESCRIPTION,
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """The same for a command line that has been read."""
    agent, place = args.agent, args.place
    variant = Variant(seed=args.seed, budget=args.budget, machine=args.machine)
    guard.listen()
    try:
        graph.check_folder()
        if agent is None:
            return _list()
        with _params_checked():
            graph.check(agent)
        if place == "pools":
            _check_pools()
        variant.of(recipe.read(), agent)  # mistakes are told before anything starts
        if args.seeds is not None:
            return seeds.run(agent, variant, seeds.parse(args.seeds), options(args))
        return _run(agent, place, variant, args.gate)
    except Exception as error:
        return failures.report(error)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("agent", nargs="?", metavar="NAME", help="an entry of `agents` in params.yaml")
    parser.add_argument(
        "--place",
        choices=("here", "pools"),
        default="here",
        help="where stages run: in this folder, or on workers of Prefect work pools (default: %(default)s)",
    )
    seed = parser.add_mutually_exclusive_group()
    seed.add_argument("--seed", type=int, metavar="N", help="instead of every seed that the agent comes from")
    seed.add_argument("--seeds", metavar="N,N,…", help="several runs, one after another, and a table of them")
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="end the agent's search in time for its evaluation, so that the run takes this long: 2h, 90m, 1h30m",
    )
    parser.add_argument("--machine", metavar="KIND", help="an entry of `machines` in params.yaml, such as gpu16")
    parser.add_argument(
        "--gate",
        action="store_true",
        default=None,
        help="let the agent of a branch of its own become champion; that of this folder always may",
    )


def options(args: argparse.Namespace) -> list[str]:
    """The options that were given, but for seeds, as they stand on a command line."""
    given = {
        "--budget": args.budget,
        "--machine": args.machine,
        "--place": None if args.place == "here" else args.place,
    }
    return [
        *(word for pair in given.items() if pair[1] is not None for word in pair),
        *(["--gate"] if args.gate else []),
    ]


@contextlib.contextmanager
def _params_checked() -> Iterator[None]:
    """Lets `wm params check` look at params.yaml meanwhile: what it finds comes first."""
    command = [sys.executable, "-m", "wm", "params", "check"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as check:
        try:
            yield
        finally:
            _, found = check.communicate()
            if check.returncode:
                reason = found.strip().splitlines() or [f"`wm params check` ended with {check.returncode}"]
                raise UserError(reason[-1].removeprefix("error: "))


def _check_pools() -> None:
    if not os.environ.get("PREFECT_API_URL"):
        raise UserError("--place pools needs the Prefect server that has the work pools: set PREFECT_API_URL to it")
    graph.check_remote()


def _list() -> int:
    for agent, stages in graph.waiting().items():
        waiting = [address for address, is_waiting in stages.items() if is_waiting]
        print(f"{agent}:", f"to do: {', '.join(waiting)}" if waiting else f"all {len(stages)} stages up to date")
    return 0


def _run(agent: str, place: str, variant: Variant, gated: bool | None) -> int:
    begin = start.Start(listen=guard.listen)  # a budget counts the planning too
    if not variant:
        with claim.workspace(agent):
            stages = graph.plan(agent, remote=place == "pools")
            if _is_over(agent, stages):
                return _say_so(agent, stages)
            return _pipeline(begin, Server(), agent, place, variant, gated, stages)
    claim.watch_over()  # the server, which belongs to this folder, starts before the variant's is entered
    server = Server()
    with variants.inside(agent, variant):
        stages = graph.plan(agent, remote=place == "pools")
        return _pipeline(begin, server, agent, place, variant, gated, stages)


def _is_over(agent: str, stages: list[graph.Stage]) -> bool:
    """Whether there is nothing to run, nothing to decide, and no server of somebody's that would show it."""
    return all(stage.outlook == "unchanged" for stage in stages) and bool(due.idle(agent)) and not is_given()


def _say_so(agent: str, stages: list[graph.Stage]) -> int:
    """What a run without anything to do says; no server is started for it."""
    _announce(agent, stages, Variant())
    verdicts = {stage.address: {"verdict": "Cached", "seconds": 0.0} for stage in stages}
    _tell(None, agent, Variant(), {"stages": verdicts, "gate": f"gate: skipped: {due.idle(agent)}"}, {})
    return 0


def _pipeline(
    begin: start.Start,
    server: Server,
    agent: str,
    place: str,
    variant: Variant,
    gated: bool | None,
    stages: list[graph.Stage],
) -> int:
    expected = _announce(agent, stages, variant)
    import httpx

    from flows import flow  # Prefect takes seconds to import, and makes its folder

    server.wait()
    try:
        with start.given(begin):
            state = flow.pipeline(agent, place, variant.seed, variant.budget, variant.machine, gated, return_state=True)
    except httpx.TransportError as error:  # after a minute of further tries
        address = without_password(os.environ["PREFECT_API_URL"])
        print(
            f"error: Prefect's server at {address} went away during the run ({error}); what the stages made is whole, "
            "and the same command goes on from there",
            file=sys.stderr,
        )
        return 1
    if not state.is_completed():
        print(f"error: {state.message}", file=sys.stderr)
        return 1
    _tell(begin, agent, variant, state.result(), expected)
    return 0


def _announce(agent: str, stages: list[graph.Stage], variant: Variant) -> dict[str, float]:
    """Prints what will be done; returns how many seconds of it are expected, by address."""
    width = max(len(stage.address) for stage in stages)
    print(f"The pipeline of {agent}{f' with {variant.text}, on {variant.branch(agent)}' if variant else ''}:")
    for stage in stages:
        print(f"  {stage.address:{width}}  {OUTLOOK[stage.outlook]}")
    sys.stdout.flush()
    if not any(stage.outlook == "to run" for stage in stages):
        return {}
    waiting = [graph.key(stage.address) for stage in stages if stage.outlook in ("to run", "depends")]
    return _estimate(agent, waiting, variant.budget)


def _tell(begin: start.Start | None, agent: str, variant: Variant, result: dict, expected: dict[str, float]) -> None:
    """Prints what was done; the last line names the run and its score."""
    from flows import pages

    width = max(map(len, result["stages"]))
    for address, stage in result["stages"].items():
        whole = not (variant.budget and address == f"evolve@{agent}")  # the estimate is for all generations
        known = whole and stage["verdict"] == "Completed" and graph.key(address) in expected
        told = f"   estimate {expected[graph.key(address)]:.0f} s" if known else ""
        print(f"  {address:{width}}  {stage['verdict']:10}{stage['seconds']:>8.0f} s{told}")
    if begin and variant.budget:
        print(f"{(time.time() - begin.began) / 60:.0f} min of {variant.budget} are used")
    print(result["gate"])
    print(f"{result.get('run', agent)}: {', '.join(f'{key} {value}' for key, value in pages.metrics(agent).items())}")


def _estimate(agent: str, waiting: list[str], length: str | None) -> dict[str, float]:
    """Prints how long these stages will take; returns their seconds, none where nothing could be measured.

    Raises:
        UserError: the budget is too short to begin.
    """
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "wm", "estimate", agent, "--seconds", file.name, "--only", *waiting]
        limit = ["--budget", length] if length else []
        done = subprocess.run([*command, *limit], start_new_session=True, stderr=subprocess.PIPE, text=True)
        if text := Path(file.name).read_text():
            if done.returncode > 0 and not _begun(waiting):  # what was measured does not fit into the budget
                said = done.stderr.strip().splitlines() or [f"`wm estimate {agent}` ended with {done.returncode}"]
                raise UserError(said[-1].removeprefix("error: "))
            if done.returncode <= 0:
                print(done.stderr, end="", file=sys.stderr)
            return json.loads(text)
    print(f"{done.stderr}warning: no estimate of the time it takes; going on without", file=sys.stderr)
    return {}


def _begun(waiting: list[str]) -> bool:
    """Whether one of these stages was stopped and goes on, of which an estimate knows nothing."""
    from wm.core import workspace  # with NumPy, which a help text need not load

    pairs = [address.split("@") for address in waiting]
    scratch = [folder for stage, name in pairs for folder in workspace.folders(stage, name)]
    return any((folder / "out").exists() for folder in scratch)  # gone once it is published


if __name__ == "__main__":
    sys.exit(main())
