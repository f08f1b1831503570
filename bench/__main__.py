"""How fast every part is, next to its peer and to what the machine could do: `make bench`.

    python -m bench [--quick] [--json]

Each row: our figure, the peer's measured in the same run, their ratio, the bound that the hardware sets and the
fraction of it that is reached. Every part has a command of its own with more figures: python -m bench.drawing, …
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time

import torch

from bench import drawing, dream, rollout, training
from wm.records import provenance


def rows(quick: bool) -> list[dict]:
    """The table: part, unit, ours, peer, its name, ratio, bound, fraction."""
    found = drawing.measure_speed(3 if quick else 5)
    table = [
        _row(
            "CarRacing step, 64x64 frame, one core",
            "steps/s",
            found["fast_steps_per_s"],
            "Gymnasium's CarRacing-v3 with pixels",
            found["gymnasium_steps_per_s"],
            "physics with drawing off",
            found["physics_steps_per_s"],
        ),
    ]
    found = rollout.measure(4 if quick else 8)
    table.append(
        _row(
            "rollouts with V, M and C, 2 workers",
            "steps/s",
            found["engine_per_s"],
            "the paper's loop, one frame at a time",
            found["loop_per_s"],
            "cores / (1/env + 1/V + 1/M + 1/C)",
            found["bound_per_s"],
        )
    )
    for name, found in dream.measure(3 if quick else 5).items():
        table.append(
            _row(
                f"dream, {name.replace('_', ' ')}, 64 x 16, 2 threads",
                "steps/s",
                found["engine"][-1],
                "torch.nn.LSTM, one step at a time",
                found["loop"],
                "matrix product",
                found["bound"][-1] * 1e9 / found["flops"],
            )
        )
    for name, found in training.measure(threads=2, steps=6 if quick else 12).items():
        table.append(
            _row(
                f"training {name}, 2 threads",
                "GFLOP/s",
                found["gflop_per_s"],
                "",
                None,
                "matrix product",
                found["peak_gflop_per_s"],
            )
        )
    return table


def _row(part, unit, ours, peer_name, peer, bound_name, bound) -> dict:
    return {
        "part": part,
        "unit": unit,
        "ours": ours,
        "peer": peer,
        "peer_name": peer_name,
        "ratio": ours / peer if peer else None,
        "bound": bound,
        "bound_name": bound_name,
        "fraction": ours / bound,
    }


def machine() -> str:
    """What machine this is, and how busy."""
    return (
        f"{provenance.machine()}, load {os.getloadavg()[0]:.1f} at the start, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    where, began = machine(), time.time()
    table = rows(args.quick)
    if args.json:
        print(json.dumps({"machine": where, "rows": table}))
        return
    print(where)
    for row in table:
        peer = f"{row['peer']:>11,.1f}  {row['ratio']:>6.1f}x  {row['peer_name']}" if row["peer"] else ""
        print(f"{row['part']:<44}{row['ours']:>11,.1f} {row['unit']:<8}{peer}")
        print(f"{'':<44}{row['bound']:>11,.1f}         {row['fraction']:>6.0%} of {row['bound_name']}")
    middle = statistics.median(row["ratio"] for row in table if row["ratio"])
    print(f"median ratio {middle:.0f}x; {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
