"""The command line: compares two commits, and with --record rewrites dvc.lock."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.same_bits import cases, compare, lock
from tools.same_bits.cases import SMOKES, Case
from tools.same_bits.commits import Commit
from tools.same_bits.compare import Row
from wm.core.errors import UserError
from wm.records import git

RESULTS = Path("~/.cache/wm-same-bits").expanduser()
QUICK = 4
"""Test episodes that --quick plays of a pretrained agent."""


def main(argv: list[str] | None = None) -> int:
    """0 where everything is equal, 1 where something differs, 2 where the tool says why it does not go on."""
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command goes on where it was.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.same_bits",
        description="Whether two commits give the same bits, and what of dvc.lock may then be said again.",
    )
    parser.add_argument("old", metavar="OLD", help="a commit")
    parser.add_argument("new", metavar="NEW", help="a commit; OLD again only prepares what a later call compares with")
    text = "pretrained agents to score (minutes each); default: all that both commits have"
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    text = "run these alone: smoke, take_cover_smoke, cases, pretrained, or a name of cases.yaml"
    parser.add_argument("--only", nargs="+", default=[], metavar="WHAT", help=text)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} episodes of each pretrained agent")
    text = "where clones and results are kept, so that a second call goes on"
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help=f"{text}; default: {RESULTS}")
    text = "where nothing differs: rewrite the rows of code in dvc.lock here, and add to docs/same-bits.md"
    parser.add_argument("--record", action="store_true", help=text)
    return parser


def _run(args: argparse.Namespace) -> int:
    root = Path(git.read(Path.cwd(), "rev-parse", "--show-toplevel").strip())
    results = args.results.absolute()
    old, new = (Commit(rev, root, results) for rev in (args.old, args.new))
    if args.record:
        if args.only or args.names:
            raise UserError("--record needs everything compared: leave NAME and --only out")
        lock.check_checkout(root, new.sha)
    pair = Pair(old, new)
    chosen = _chosen(args.only, pair.cases)
    rows = [pair.stages(name) for name in (*SMOKES, *pair.cases) if name in chosen]
    if "pretrained" in chosen:
        rows += [pair.scores(name, QUICK if args.quick else None) for name in _agents(args.names, old, new)]
    print(compare.table(rows, (old.sha[:7], new.sha[:7])))
    different = [row.what for row in rows if row.differences]
    missing = pair.uncovered()
    for option, experiment in missing.items():
        print(f"not compared: {option}, which {experiment} uses: add it to a case in tools/same_bits/cases.yaml")
    if not args.record:
        return 1 if different else 0
    if different:
        raise UserError(f"{', '.join(different)} differ, so nothing is recorded")
    if missing:
        raise UserError(f"{', '.join(missing)} is in use and was not compared, so nothing is recorded")
    print(lock.record(root, old, new, rows))
    return 0


def _chosen(only: list[str], known: Mapping[str, Case]) -> set[str]:
    everything = {*SMOKES, *known, "pretrained"}
    names = {name for word in only for name in (known if word == "cases" else [word])} or everything
    if unknown := names - everything:
        raise UserError(f"--only {min(unknown)!r} is unknown: choose of {', '.join(sorted(everything))}, cases")
    return names


def _agents(names: list[str], old: Commit, new: Commit) -> list[str]:
    """The pretrained agents to score."""
    kept = [{path.parent.name for path in commit.clone.glob("pretrained/[!.]*/made.json")} for commit in (old, new)]
    both = sorted(kept[0] & kept[1])
    if unknown := set(names) - set(both):
        raise UserError(f"no pretrained agent {min(unknown)!r} is in both commits: choose of {', '.join(both)}")
    return names or both


class Pair:
    """Two commits that run the same things, one after the other."""

    def __init__(self, old: Commit, new: Commit):
        self.commits, self.cases = (old, new), cases.load()
        for commit in self.commits:
            commit.prepare()
        self._options = [commit.options() for commit in self.commits]
        both = self._options[0] & self._options[1]
        self._without = {name: sorted(case.options - both) for name, case in self.cases.items()}
        for commit in self.commits:
            commit.write_params(cases.add(commit.params()[0], self.supported))

    @property
    def supported(self) -> dict[str, Case]:
        """The cases whose options both commits have, and those of all that they build on."""
        return {name: case for name, case in self.cases.items() if not self._missing(name)}

    def uncovered(self) -> dict[str, str]:
        """Options that kept agents use, records of the old commit too, and no case compares; and whose they are."""
        found = cases.uncovered(self.commits[1].params(), self.supported)
        return {option: experiment for option, experiment in found.items() if option in self._options[0]}

    def stages(self, name: str) -> Row:
        """Runs a smoke or a case, and what it needs, in both commits."""
        if missing := self._missing(name):
            return Row(name, skipped=f"{', '.join(missing)} is not in both commits")
        gave = [self._outputs(commit, name) for commit in self.commits]
        row = compare.stages(name, *gave, tuple(commit.clone for commit in self.commits))
        print(f"{name}: {row.verdict}", file=sys.stderr, flush=True)
        return row

    def scores(self, name: str, episodes: int | None) -> Row:
        """Scores a pretrained agent in both commits."""
        row = compare.scores(name, *(commit.score(name, episodes) for commit in self.commits))
        print(f"{row.what}: {row.verdict}", file=sys.stderr, flush=True)
        return row

    def _outputs(self, commit: Commit, name: str) -> dict[str, dict]:
        if name in SMOKES:
            runs, before = [f"{stage}@{name}" for stage in cases.STAGES], ()
        else:
            runs, before = self.cases[name].runs, self.cases[name].needs
        for other in before:
            self._outputs(commit, other)
        definition = cases.definition(name, self.cases)
        return {address: commit.run(address, definition) for address in runs}

    def _missing(self, name: str) -> list[str]:
        if name in SMOKES:
            return []
        before = (option for other in self.cases[name].needs for option in self._missing(other))
        return list(dict.fromkeys([*self._without[name], *before]))


if __name__ == "__main__":
    sys.exit(main())
