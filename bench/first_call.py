"""Does the first call of a vector function give the same bits on two threads at once?

    python -m bench.first_call [--processes 2500] [--function exp] [--json]

Forks processes that have computed nothing yet. In each, two threads make the first call of a function on the same
numbers at the same time. Printed: in how many of them the threads disagree, and by how much, as PyTorch is and after
`wm.models.parts.settle`, which calls every such function once before there are threads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import threading
from multiprocessing.connection import Connection

import torch


def run(processes: int, function: str, settled: bool) -> tuple[int, float]:
    """(processes whose threads disagree, largest relative difference)."""
    context, differences = multiprocessing.get_context("fork"), []
    for _ in range(processes):
        answers, teller = context.Pipe(duplex=False)
        process = context.Process(target=_process, args=(function, settled, teller))
        process.start()
        differences.append(answers.recv())
        process.join()
    return sum(one > 0 for one in differences), max(differences)


def _process(function: str, settled: bool, teller: Connection) -> None:
    sys.setswitchinterval(1e-6)
    torch.set_num_threads(1)
    if settled:
        import wm.models.parts  # noqa: F401  it settles as it is imported
    numbers = torch.linspace(0.01, 3.0, 2**17)
    together, found = threading.Barrier(2), {}

    def first_call(thread: int) -> None:
        torch.set_num_threads(1)
        together.wait()
        found[thread] = getattr(torch, function)(numbers)

    threads = [threading.Thread(target=first_call, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    teller.send(((found[0] - found[1]).abs() / found[0].abs()).max().item())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.first_call", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2500, help="forked for each of the two rows (default: 2500)")
    parser.add_argument("--function", default="exp", help="of torch (default: exp)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    rows = {}
    for name, settled in (("as PyTorch is", False), ("after wm.models.parts.settle", True)):
        disagree, largest = run(args.processes, args.function, settled)
        rows[name] = {"processes": args.processes, "disagree": disagree, "largest_relative_difference": largest}
        if not args.json:
            print(f"{name:22} {disagree} of {args.processes} processes disagree, by up to {largest:.1e}", flush=True)
    if args.json:
        print(json.dumps({"function": args.function, **rows}, indent=1))


if __name__ == "__main__":
    main()
