"""The temperature sweep in one command: `python -m flows.sweep MODEL`."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

from flows import claim, prepare
from wm import failures

EPILOG = """\
Runs the pipeline of every agent in params.yaml whose `model` is MODEL and whose experiment has `dream: true` (they
share V, M and their data: only evolve and evaluate differ), then writes table and plot to results/MODEL_tau/ and to
MLflow. What has been made is not made again, and a sweep that was stopped goes on.

  python -m flows.sweep take_cover-1   the paper's table of temperatures
"""


PATIENCE_S = 10
"""Seconds that a run has to end after Ctrl-C."""


def main(argv: list[str] | None = None) -> int:
    """Runs the agents one after another, then the table; the first failure's exit code ends it."""
    prepare()
    parser = argparse.ArgumentParser(
        prog="python -m flows.sweep",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        description="Run every agent that dreams in a model, and compare their temperatures.",
    )
    parser.add_argument("model", metavar="MODEL", help="an entry of `models` in params.yaml")
    return run_all(parser.parse_args(argv).model)


def run_all(model: str) -> int:
    """The same for a model."""
    from wm import params
    from wm.views import sweep

    try:
        names = sweep.agents(params.load(), model)
    except Exception as error:
        return failures.report(error)
    claim.watch_over()  # a sweep that is killed takes its run along
    for command in (*(["flows.pipeline", name] for name in names), ["wm", "results", "temperatures", model]):
        if code := run(command):
            return code
    return 0


def run(command: list[str]) -> int:
    """The exit code of `python -m` this; SIGTERM, and SIGHUP of a terminal that closes, are passed on to it."""
    child = subprocess.Popen([sys.executable, "-m", *command])
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` leaves it
            signal.signal(number, lambda *_: child.terminate())
    try:
        return child.wait()
    except KeyboardInterrupt:  # a terminal sends it to the child too, which may have something to end
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.terminate()
            child.wait()
        raise


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
