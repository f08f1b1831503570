"""The command that adds a round to an agent: `python -m flows.improve NAME`."""

from __future__ import annotations

import argparse
import sys

from flows import claim, graph, guard, prepare, start
from flows.server import Server
from wm import failures

DESCRIPTION = "Add a round to an agent, run it, and commit it on a branch of its own."
EPILOG = """\
NAME is an entry of `agents` in params.yaml. A round is one line more in `models` and one in `agents`, NAME-r2, NAME-r3,
…: the last round's agent collects, V and M go on with all data so far, and C is evolved from the last round's. The
numbers are those of the last round's experiment.

It runs in .wm/improve/NAME, a git worktree on the branch improve/NAME that shares DVC's cache with this one, and ends
with a commit of params.yaml, dvc.lock, metrics/ and plots/. The folder that you work in does not change.
To bring a round back, wherever the cache or the DVC remote is:
  git checkout COMMIT && dvc repro evaluate@NAME-r2

examples:
  python -m flows.improve smoke                 one round
  git log -p improve/smoke -- params.yaml       the rounds so far
  git worktree remove .wm/improve/smoke         forget the folder (the branch keeps the rounds)

A round that was stopped or failed is gone on with by the next run, which adds no other.
exit codes: 0 done; 1 a stage failed; 2 a mistake in the command or in params.yaml; 130, 143 stopped by
Ctrl-C, by SIGTERM
"""


def main(argv: list[str] | None = None) -> int:
    """Adds a round of one agent; returns the exit code."""
    prepare()
    parser = argparse.ArgumentParser(
        prog="python -m flows.improve",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        description=DESCRIPTION,
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("agent", metavar="NAME", help="an entry of `agents` in params.yaml")
    parser.add_argument("--actor", metavar="AGENT", help="who collects; default: the last round's agent")


def run(args: argparse.Namespace) -> int:
    """The same for a command line that has been read."""
    guard.listen()
    try:
        graph.check_folder()
        graph.check(args.agent)
        claim.watch_over()  # the server starts before the round's folder is claimed
        server = Server()
        from flows import flow  # Prefect takes seconds to import, and makes its folder

        server.wait()
        with start.given(start.Start(listen=guard.listen)):
            state = flow.improve(args.agent, args.actor, return_state=True)
    except Exception as error:
        return failures.report(error)
    print(state.message if state.is_completed() else f"error: {state.message}", file=sys.stderr)
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
