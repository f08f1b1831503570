"""The command of the suite: `make faults`, or some of its rows, `python -m faults disk_full postgres`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from faults.row import SHORT, Outcome, Row

FOLDER = Path("build/faults")
"""A journal a row: a line a try. A suite that was stopped goes on after the last one."""
TABLE = Path("docs/faults.md")
ROWS = (
    "kill_at_write",
    "smoke_kills",
    "servers_killed",
    "postgres",
    "disk_full",
    "flipped_bits",
    "two_at_once",
    "memory",
    "network",
    "params_fuzz",
    "hostile",
)
HEAD = "| row | fault | tries | seeds | minutes | lost | said |"

EPILOG = """\
Every try is made in a folder of its own under TMPDIR, and has a limit. What was tried is in build/faults/, so that the
same command goes on where it was stopped; --anew begins anew. The table is in docs/faults.md; it keeps the lines of
rows that were not run this time.

exit codes: 0 nothing was lost; 1 something was; 2 a mistake in the command
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m faults",
        description="Make faults, see what is lost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default: all")
    parser.add_argument("--anew", action="store_true", help="forget what was tried before")
    parser.add_argument("--only", metavar="TRY", help="of the row's tries, this one; it goes into no journal")
    parser.add_argument("--short", action="store_true", help="fewer tries, into no journal")
    parser.add_argument("--unguarded", action="store_true", help="with the protection taken out: it has to lose")
    parser.add_argument("--one", nargs=3, metavar=("ROW", "TRY", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return _one(*args.one, unguarded=args.unguarded)
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"there is no row {sorted(unknown)[0]}: choose of {', '.join(ROWS)}")
    if args.short:
        os.environ[SHORT] = "1"
    lost = 0
    for name in args.rows or ROWS:
        row: Row = _row(name)
        if reason := row.lacks():
            print(f"{name}: not run: {reason}", flush=True)
            _write(name, row, f"not run: {reason}")
            continue
        kept = not (args.only or args.unguarded or args.short)
        lost += _run(name, row, args.only, args.anew, kept, args.unguarded)
    return 1 if lost else 0


def _row(name: str) -> Row:
    return importlib.import_module(f"faults.{name}").ROW


def _known() -> list[str]:
    return [name for name in ROWS if importlib.util.find_spec(f"faults.{name}")]


def _run(name: str, row: Row, only: str | None, anew: bool, kept: bool, unguarded: bool) -> int:
    """Makes the tries that the journal lacks; returns how many losses there are."""
    journal = FOLDER / f"{name}.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    if anew and kept:
        journal.unlink(missing_ok=True)
    done = {line["try"]: line for line in _lines(journal)} if kept else {}
    for each in [only] if only else row.tries:
        if each in done:
            continue
        began = time.monotonic()
        outcome = _in_a_process(name, each, row.limit, unguarded)
        done[each] = {"try": each, "seconds": round(time.monotonic() - began, 1), **outcome}
        if kept:
            with journal.open("a") as file:
                file.write(json.dumps(done[each]) + "\n")
        print(f"{name} {each}: {done[each]['seconds']:.0f} s, lost {outcome['lost'] or 'nothing'}", flush=True)
        for said in outcome["said"][:3]:
            print(f"    said: {said[:300]}", flush=True)
        if kept:
            _write(name, row, done=list(done.values()))
    return sum(len(line["lost"]) for line in done.values())


def _lines(journal: Path) -> list[dict]:
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def _in_a_process(name: str, each: str, limit: float, unguarded: bool) -> dict:
    """One try, in a session of its own, which is ended whole."""
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        answer = Path(folder, "answer.json")
        words = ["--one", name, each, str(answer), *(["--unguarded"] if unguarded else [])]
        process = subprocess.Popen([sys.executable, "-m", "faults", *words], start_new_session=True)
        try:
            process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return {"tries": 1, "lost": [f"it hung: more than {limit:.0f} s"], "said": [], "seeds": []}
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        return (
            json.loads(answer.read_text())
            if answer.exists()
            else {"tries": 1, "lost": [f"the try itself ended with {process.returncode}"], "said": [], "seeds": []}
        )


def _one(name: str, each: str, file: str, unguarded: bool) -> int:
    row, folder = _row(name), Path(tempfile.mkdtemp(prefix=f"fault-{name}-"))
    if unguarded and row.unguarded:
        row.unguarded()
    try:
        outcome = row.run(each, folder)
    except Exception:
        traceback.print_exc()
        outcome = Outcome(lost=[traceback.format_exc().strip().splitlines()[-1]])
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
    Path(file).write_text(
        json.dumps(
            {
                "tries": outcome.tries,
                "lost": list(outcome.lost),
                "said": list(outcome.said),
                "seeds": list(outcome.seeds),
            }
        )
    )
    return 0


# ---------------------------------------------------------------- the table


def _write(name: str, row: Row, reason: str = "", done: list[dict] | None = None) -> None:
    """Puts a row's line into the table."""
    text = TABLE.read_text()
    lines = dict(_table(text))
    lines[name] = _line(name, row, done or [], reason)
    table = [HEAD, "|---|---|---:|---|---:|---|---|"]
    table += [lines.get(each) or f"| `{each}` | {_row(each).fault} | | | | | not run |" for each in ROWS]
    head = text.split(HEAD)[0].rstrip()
    tail = text.split("\n\n")[-1] if text.rstrip().split("\n")[-1][:1] != "|" else ""
    TABLE.write_text("\n".join([head, "", *table, *(["", tail.rstrip()] if tail else [])]) + "\n")


def _table(text: str) -> list[tuple[str, str]]:
    return [(line.split("`")[1], line) for line in text.splitlines() if line.startswith("| `")]


def _line(name: str, row: Row, done: list[dict], reason: str) -> str:
    if not done:
        return f"| `{name}` | {row.fault} | | | | | {reason or 'not run'} |"
    tries = str(sum(line["tries"] for line in done))
    if len(done) < len(row.tries):
        tries += f" ({len(done)} of {len(row.tries)} parts)"
    seeds = sorted({seed for line in done for seed in line["seeds"]})
    shown = "" if not seeds else f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    lost = "; ".join(loss for line in done for loss in line["lost"]) or "nothing"
    said = "; ".join(text for text, _ in Counter(text for line in done for text in line["said"]).most_common(3))
    minutes = sum(line["seconds"] for line in done) / 60
    cells = (f"`{name}`", row.fault, tries, shown, f"{minutes:.1f}", _cell(lost), _cell(said) or "nothing")
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())[:600]


if __name__ == "__main__":
    sys.exit(main())
