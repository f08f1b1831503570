"""Do two trainings learn alike? Their curves side by side, e.g. before and after a change that was made for speed.

    python -m bench.curves A/runs/NAME/train_vae B/runs/NAME/train_vae [--metric held_out/loss] [--picture FILE]

Reads the two `metrics.jsonl` and prints the metric where both have it, with the difference in percent of the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from wm.core import journal
from wm.pictures import figures


def compare(before: Path, after: Path, metric: str) -> list[tuple[int, float, float]]:
    """(step, before, after) of every step at which both journals have the metric.

    Raises:
        SystemExit: there is no such step, or no such journal.
    """
    both = []
    for folder in (before, after):
        if not (folder / "metrics.jsonl").exists():
            raise SystemExit(f"error: {folder} has no metrics.jsonl: name the output of a stage that trains or evolves")
        lines = journal.read(folder / "metrics.jsonl")
        both.append({line["step"]: line[metric] for line in lines if line.get(metric) is not None})
    rows = [(step, both[0][step], both[1][step]) for step in sorted(both[0].keys() & both[1].keys())]
    if not rows:
        raise SystemExit(f"error: {before} and {after} have no step with {metric} in common")
    return rows


def _change(old: float, new: float) -> float:
    return (new - old) / max(abs(old), 1e-12)


def main() -> None:
    """Prints the table; writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of a stage's output")
    parser.add_argument("after", type=Path, help="the other's")
    parser.add_argument("--metric", default="held_out/loss", help="default: held_out/loss")
    parser.add_argument("--picture", type=Path, help="a PNG to write")
    args = parser.parse_args()
    rows = compare(args.before, args.after, args.metric)
    print(f"{'step':>8}{'before':>12}{'after':>12}{'%':>8}   {args.metric}")
    for step, old, new in rows:
        print(f"{step:>8}{old:>12.4f}{new:>12.4f}{100 * _change(old, new):>8.1f}")
    print(f"median difference {median(abs(_change(old, new)) for _, old, new in rows):.1%} of {len(rows)} points")
    if args.picture:
        lines = [{"step": step, "curves/before": old, "curves/after": new} for step, old, new in rows]
        figures.curves(lines, args.picture, {args.metric: ["curves/before", "curves/after"]}, title="Before and after")


if __name__ == "__main__":
    main()
