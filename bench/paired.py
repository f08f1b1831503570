"""Does the drawing matter to an agent? The same agent on the same tracks with both drawings, compared in pairs.

    python -m bench.paired runs/car_racing

Reads what `evaluate` wrote (Gymnasium's own drawing) and plays the same episodes with the fast one. The interval of the
mean difference is a percentile bootstrap's; it should hold 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from wm.core import files
from wm.play.cluster import Cluster
from wm.stages.evaluate import EvaluateConfig, interval, play_agent


def measure(folder: Path, workers: int = 2) -> dict[str, float]:
    """Mean scores with both drawings, the mean of their differences, its 95% interval."""
    official = files.read_json(folder / "evaluate" / "scores.json")
    config = EvaluateConfig(episodes_per_job=10, slots=10)
    with Cluster(workers) as cluster:
        scores, _, _ = play_agent(
            config, official["world"], folder / "evolve", official["seeds"], cluster, "fast", "fast drawing"
        )
    difference = scores - np.array(official["scores"])
    return {
        "episodes": len(scores),
        "gymnasium_mean": official["mean"],
        "fast_mean": float(scores.mean()),
        "difference_mean": float(difference.mean()),
        **{f"difference_{name}": value for name, value in interval(difference).items()},
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an evaluated CarRacing agent: runs/NAME")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    found = measure(args.folder)
    print(json.dumps(found) if args.json else "\n".join(f"{name:<24}{value:>10.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
