"""What the pipeline itself costs: seconds a stage beside its computing, of a run that has nothing to do, of the list of
agents, of a help text; of this commit and of an older one, in turns.

    python -m bench.own_cost --old 452142c [--repeats 5]

Each repeat makes the smoke from nothing in a fresh clone of either commit, then gives the other commands there. What a
stage computes is measured inside it, around its function; the rest of its task is what the pipeline costs. A machine
that does something else meanwhile spoils it: the load is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wm.records import provenance

ROOT = Path(__file__).parents[1]
AGENT = "smoke"
TIMER = '''\
"""Python runs this when it starts: a stage says how long its function took."""

import importlib
import json
import os
import sys
import time

if sys.orig_argv[1:3] == ["-m", "wm"] and len(sys.orig_argv) == 5:
    plain = importlib.import_module

    def import_module(name, package=None):
        module, stage = plain(name, package), sys.orig_argv[3]
        if name == f"wm.stages.{stage}" and not hasattr(module, "untimed"):
            module.untimed = getattr(module, stage)
            setattr(module, stage, lambda *given, **named: timed(module.untimed, stage, given, named))
        return module

    def timed(function, stage, given, named):
        began = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            with open(os.environ["BENCH_SECONDS"], "a") as file:
                print(json.dumps([stage, time.perf_counter() - began]), file=file)

    importlib.import_module = import_module
'''
COMMANDS = {
    "nothing to do": ["flows.pipeline", AGENT],
    "list of agents": ["flows.pipeline"],
    "flows.pipeline --help": ["flows.pipeline", "--help"],
    "wm --help": ["wm", "--help"],
}
GOALS = {"a stage beside its computing": 6.0, "nothing to do": 5.0, "list of agents": 2.0}
GOAL_OF_HELP = 0.5


def measure(commit: str, folder: Path) -> dict[str, float]:
    """Seconds by name, of a fresh clone of `commit` in `folder`, which must not be there."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=folder, check=True)
    seconds = folder.with_suffix(".jsonl")
    timer = folder.with_suffix(".timer")
    timer.mkdir()
    (timer / "sitecustomize.py").write_text(TIMER)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PYTHONPATH": f"{timer}{os.pathsep}{folder}", "PATH": path, "BENCH_SECONDS": str(seconds)}
    output, _ = run(["flows.pipeline", AGENT], folder, env)
    told = {stage: int(took) for stage, took in re.findall(rf"^  (\w+)@{AGENT} +Completed +(\d+) s", output, re.M)}
    computed = dict(json.loads(line) for line in seconds.read_text().splitlines())
    own = [took - computed[stage] for stage, took in told.items()]
    found = {"a stage beside its computing": statistics.mean(own)}
    return found | {name: run(words, folder, env)[1] for name, words in COMMANDS.items()}


def run(words: list[str], folder: Path, env: dict[str, str]) -> tuple[str, float]:
    """What `python -m` these words printed, and how long it took."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"`python -m {' '.join(words)}` of {folder.name} ended with {done.returncode}")
    return done.stdout, time.perf_counter() - began


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", help="a commit to compare with; default: none")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    print(f"{provenance.machine()}, load {os.getloadavg()[0]:.1f} at the start")
    commits = {"old": args.old, "new": "HEAD"} if args.old else {"new": "HEAD"}
    commits = {
        side: subprocess.run(["git", "rev-parse", commit], cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.strip()
        for side, commit in commits.items()
    }
    found: dict[str, list[dict[str, float]]] = {side: [] for side in commits}
    for repeat in range(args.repeats):
        for side, commit in commits.items():
            with tempfile.TemporaryDirectory() as scratch:
                found[side].append(measure(commit, Path(scratch, f"{side}{repeat}")))
    for name in found["new"][0]:
        sides = {side: [each[name] for each in each_of] for side, each_of in found.items()}
        text = "   ".join(
            f"{side} {statistics.median(s):6.2f} s ({min(s):.2f} to {max(s):.2f})" for side, s in sides.items()
        )
        ratio = f"   {statistics.median(sides['old']) / statistics.median(sides['new']):.1f}x" if args.old else ""
        print(f"{name:30}{text}   goal {GOALS.get(name, GOAL_OF_HELP)} s{ratio}")


if __name__ == "__main__":
    main()
