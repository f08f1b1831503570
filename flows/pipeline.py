"""The command that runs everything: `python -m flows.pipeline NAME`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from flows import claim, graph, guard, rounds
from flows.server import Server
from wm.core import watchdog, workspace
from wm.core.errors import UserError
from wm.search import budget

EPILOG = """\
NAME is an entry of `agents` in params.yaml; without one, the agents and the state of their stages are listed.

DVC knows what depends on what and what has changed, so only that runs; Prefect runs it, one task a stage, and
each task's state is DVC's verdict:
  Cached     nothing changed since the outputs were made
  Restored   made before from the same inputs: brought back from DVC's cache
  Completed  ran
`dvc repro evaluate@NAME` does the same without Prefect, and neither repeats what the other did.

examples:
  python -m flows.pipeline smoke                     the whole pipeline with tiny numbers
  python -m flows.pipeline car_racing --budget 2h    the search ends in time; params.yaml then says after how
                                                     many generations, so that the run can be reproduced
  dvc repro -f evaluate@smoke                        the same, and everything anew
  PREFECT_API_URL=http://127.0.0.1:4200/api python -m flows.pipeline smoke
                                                     on a server, whose pages show it; that of `make up` is
                                                     found; without one, a temporary server is started
  PREFECT_API_URL=… python -m flows.pipeline car_racing --place pools
                                                     each stage on a worker of the pool that dvc.yaml names
                                                     for it; `python -m flows.worker --help` says how

Ctrl-C or a kill leave no process behind, and the same command goes on from the last checkpoint.
exit codes: 0 done; 1 a stage failed; 2 a mistake in the command or in params.yaml; 130, 143 stopped by
Ctrl-C, by SIGTERM
"""
OUTLOOK = {
    "unchanged": "unchanged, will be skipped",
    "in the cache": "changed; its outputs are in the cache and will be restored",
    "to run": "will run",
    "depends": "follows: runs, unless the cache knows the outcome",
}


def main(argv: list[str] | None = None) -> int:
    """Runs the pipeline for one agent; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        description="Run every stage that an agent needs, from the first episode to its score.",
    )
    parser.add_argument("agent", nargs="?", metavar="NAME", help="an entry of `agents` in params.yaml")
    parser.add_argument(
        "--place",
        choices=("here", "pools"),
        default="here",
        help="where stages run: in this folder, or on workers of Prefect work pools (default: %(default)s)",
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="end the agent's search in time for its evaluation, so that the run takes this long: 2h, 90m, 1h30m",
    )
    args = parser.parse_args(argv)
    agent, place = args.agent, args.place
    listen()
    try:
        check_folder()
        _check_params()
        if agent is None:
            return _list()
        graph.check(agent)
        if place == "pools":
            _check_pools()
        if args.budget is not None:
            budget.seconds(args.budget)  # mistakes are told before anything starts
            rounds.check_alone(Path("params.yaml").read_text(), agent)
        with claim.workspace(agent):
            return _run(agent, place, args.budget)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def check_folder() -> None:
    """Raises UserError where no pipeline can run; writes nothing."""
    if not Path("dvc.yaml").exists():
        raise UserError("there is no dvc.yaml here: run this in the repository's top folder")
    if not Path(".git").exists():
        raise UserError("this folder is no git repository: clone it, or run `git init` first")
    if not Path(".dvc/config").exists():
        raise UserError("this folder is no DVC project: restore it with `git checkout .dvc`, or run `dvc init`")


def _check_params() -> None:
    check = subprocess.run([sys.executable, "-m", "wm", "check"], stderr=subprocess.PIPE, text=True)
    if check.returncode:
        reason = check.stderr.strip().splitlines() or [f"`wm check` ended with {check.returncode}"]
        raise UserError(reason[-1].removeprefix("error: "))


def _check_pools() -> None:
    if not os.environ.get("PREFECT_API_URL"):
        raise UserError("--place pools needs the Prefect server that has the work pools: set PREFECT_API_URL to it")
    graph.check_remote()


def _list() -> int:
    for agent in graph.agents():
        stages = graph.plan(agent)
        waiting = [stage.address for stage in stages if stage.outlook != "unchanged"]
        print(f"{agent}:", f"to do: {', '.join(waiting)}" if waiting else f"all {len(stages)} stages up to date")
    return 0


def _run(agent: str, place: str, length: str | None) -> int:
    began = time.time()  # a budget counts the planning too
    server = Server()
    stages = graph.plan(agent, remote=place == "pools")
    width = max(len(stage.address) for stage in stages)
    print(f"The pipeline of {agent}:")
    for stage in stages:
        print(f"  {stage.address:{width}}  {OUTLOOK[stage.outlook]}")
    sys.stdout.flush()
    expected = {}
    if any(stage.outlook == "to run" for stage in stages):
        waiting = [stage.address for stage in stages if stage.outlook in ("to run", "depends")]
        expected = _estimate(agent, waiting, length)
    import httpx

    from flows import flow  # Prefect takes seconds to import, and makes its folder

    flow.at_start, flow.began = listen, began
    server.wait()
    try:
        state = flow.pipeline(agent, place, length, return_state=True)
    except httpx.TransportError as error:  # after a minute of further tries
        address = os.environ["PREFECT_API_URL"]
        print(
            f"error: Prefect's server at {address} went away during the run ({error}); what the stages made is whole, "
            "and the same command goes on from there",
            file=sys.stderr,
        )
        return 1
    if not state.is_completed():
        print(f"error: {state.message}", file=sys.stderr)
        return 1
    for address, result in state.result()["stages"].items():
        whole = not (length and address == f"evolve@{agent}")  # the estimate is for all generations
        known = whole and result["verdict"] == "Completed" and address in expected
        told = f"   estimate {expected[address]:.0f} s" if known else ""
        print(f"  {address:{width}}  {result['verdict']:10}{result['seconds']:>8.0f} s{told}")
    if length:
        print(f"{(time.time() - began) / 60:.0f} min of {length} are used")
    print(state.result()["gate"])
    print(f"{agent}: " + ", ".join(f"{key} {value}" for key, value in flow.metrics(agent).items()))
    return 0


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
                raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
            if done.returncode <= 0:
                print(done.stderr, end="", file=sys.stderr)
            return json.loads(text)
    print(f"{done.stderr}warning: no estimate of the time it takes; going on without", file=sys.stderr)
    return {}


def _begun(waiting: list[str]) -> bool:
    """Whether one of these stages was stopped and goes on, of which an estimate knows nothing."""
    scratch = [path.parent.name for path in (workspace.SCRATCH / "work").glob("*/out")]  # gone once it is published
    names = [re.escape(address.replace("@", "-")) for address in waiting]
    return any(re.fullmatch(rf"{name}-[0-9a-f]+", folder) for name in names for folder in scratch)


def listen() -> None:
    """Lets Ctrl-C and SIGTERM end the run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def stop(number: int, *_) -> None:
    """Ctrl-C or SIGTERM: ends what the run started, says so in one sentence, and leaves."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: None)  # not SIG_IGN, which a child would inherit
    logging.disable()  # what is ended now will be reported as failed
    if os.environ.get("PREFECT_API_URL") and "prefect" in sys.modules:
        from prefect.runtime import flow_run

        # A server that outlives us should know; a moment is enough, and no answer is no reason to stay.
        thread = threading.Thread(target=_cancelled, args=(flow_run.id,), daemon=True)
        thread.start()
        thread.join(timeout=3)
    if os.environ.get(watchdog.VARIABLE) == watchdog.ticket():
        guard.sweep(watchdog.ticket())
    print("\nStopped; the same command goes on from the last checkpoint.", file=sys.stderr, flush=True)
    os._exit(128 + number)  # not SystemExit: Prefect would report a crash to a server that is gone


def _cancelled(run_id: str | None) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    if run_id:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run_id, Cancelled(message="Stopped by a signal"), force=True)


if __name__ == "__main__":
    sys.exit(main())
