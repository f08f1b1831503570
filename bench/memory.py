"""Peak memory of the stages: does it grow with the data set, or with the generations?

    python -m bench.memory [--episodes 100 1000] [--generations 200] [--json]

Every stage runs as users run it (`python -m wm <stage> NAME`), on CarRacing, in a folder of its own. Memory is the PSS
of its whole process tree (shared pages counted once), looked at five times a second. For collect, train_vae, encode and
train_mdn it is the peak with few and with many episodes; for evolve the median of the run's second and last quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from wm.stages import of

ROOT = Path(__file__).parent.parent
STAGES = of("models")
PARAMS = """\
worlds:
  car_racing:
    own: wm/worlds/car_racing/world:CarRacing
experiments:
  bench:
    collect: {{episodes: {episodes}, stall: 40, episodes_per_job: 20, slots: 10}}
    train_vae: {{steps: 60, batch: 100, held_out_every: 30}}
    encode: {{batch: 64}}
    train_mdn: {{steps: 40, batch: 32, length: 128, held_out_every: 20}}
    evolve: {{population: 6, generations: {generations}, episodes: 1, stall: 10, sampled: false, rescore_every: 10000,
             rescore_episodes: 2, episodes_per_job: 3, slots: 3}}
    evaluate: {{episodes: 2}}
models:
  bench: {{experiment: bench, world: car_racing, code: wm/worlds/car_racing, after: zero, actor: zero, seed: 0}}
agents:
  bench:
    {{experiment: bench, world: car_racing, code: wm/worlds/car_racing, model: bench, after: zero, tau: 1.0, seed: 0}}
"""


def run(stage: str, folder: Path) -> list[float]:
    """Runs a stage to its end; MB of its process tree, five times a second."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WM_TRACKING": "off"}
    process = subprocess.Popen(
        [sys.executable, "-m", "wm", stage, "bench"],
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = []
    while process.poll() is None:
        seen.append(_tree(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{stage} failed: {process.stderr.read()[-500:]}")
    return seen


def _tree(pid: int) -> float:
    total = 0
    try:
        top = psutil.Process(pid)
        for process in [top, *top.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it has just ended
                continue
    except psutil.Error:
        pass
    return total / 1e6


def measure(episodes: list[int], generations: int) -> list[dict]:
    """A row a stage: MB with few and with many episodes (for evolve: early and late), and their ratio."""
    peaks: dict[str, list[float]] = {stage: [] for stage in STAGES}
    evolve: list[float] = []
    for count in episodes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shutil.copytree(ROOT / "runs" / "zero", folder / "runs" / "zero")
            (folder / "params.yaml").write_text(PARAMS.format(episodes=count, generations=generations))
            for stage in STAGES:
                peaks[stage].append(max(run(stage, folder)))
            if count == episodes[0]:
                evolve = run("evolve", folder)
    quarter = len(evolve) // 4
    rows = [{"stage": stage, "MB": found, "ratio": found[-1] / found[0]} for stage, found in peaks.items()]
    early, late = median(evolve[quarter : 2 * quarter]), median(evolve[3 * quarter : -5])
    return [*rows, {"stage": "evolve", "MB": [early, late], "ratio": late / early}]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, nargs=2, default=[100, 1000], help="few and many; default: 100 1000")
    parser.add_argument("--generations", type=int, default=200, help="of evolve; default: 200")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    rows = measure(args.episodes, args.generations)
    if args.json:
        print(json.dumps(rows))
        return
    few, many = args.episodes
    print(f"{'stage':<12}{f'{few} episodes':>16}{f'{many} episodes':>16}{'ratio':>8}")
    for row in rows:
        early, late = row["MB"]
        note = f"   second and last quarter of {args.generations} generations" if row["stage"] == "evolve" else ""
        print(f"{row['stage']:<12}{early:>13,.0f} MB{late:>13,.0f} MB{row['ratio']:>8.2f}{note}")


if __name__ == "__main__":
    main()
