"""The command that finds damaged data: `python -m flows.mend`."""

from __future__ import annotations

import argparse
import sys

from flows import damage, graph, guard, prepare
from wm import failures

EPILOG = """\
Every output of the stages is compared with its md5 in dvc.lock, in this folder and in DVC's cache, which reads all of
them once. A damaged object of the cache is moved to `damaged/` in it, and replaced where its file in this folder is
whole. A damaged file in this folder is removed. Then `dvc repro`, or the pipeline, brings back or makes again what is
missing. `dvc checkout` alone would not help: DVC trusts its cache.

A pipeline looks by itself at all that it restores, fetches or sends, and at what a failed stage has read.

example:
  python -m flows.mend && dvc repro evaluate@car_racing
exit codes: 0 nothing is damaged; 1 something was, and is put aside; 2 a mistake that one sentence explains
"""


def main(argv: list[str] | None = None) -> int:
    """Puts aside what is damaged; returns the exit code."""
    prepare()
    parser = argparse.ArgumentParser(
        prog="python -m flows.mend",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        description="Find damaged outputs, here and in DVC's cache, and put them aside.",
    )
    parser.add_argument("agents", nargs="*", metavar="NAME", help="agents whose stages are looked at; default: all")
    agents = parser.parse_args(argv).agents
    guard.listen()
    try:
        graph.check_folder()
        with graph.project() as repo:
            found = list(damage.put_aside_lists(repo.cache.local).values())
        for address in graph.recorded(agents):
            with graph.project() as repo:
                found += damage.put_aside(graph.find(repo, address)).values()
        print("\n".join(found) or "nothing is damaged")
    except Exception as error:
        return failures.report(error)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
