"""Peak memory of `wm data import`: does it grow with the number of episodes?

    python -m bench.recordings [--episodes 100 1000] [--steps 200] [--json]

Each import runs as users run it, in a process of its own, on .npz episodes that are made for it. Memory is the most
that the process held (VmHWM); the data's size is that of its frames, before compression.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
SIZE = (96, 96, 3)
MOST = 5.0
"""Per cent of the data's size that the peak may grow by."""
IMPORT = """\
import sys
from wm.cli import main
code = main(["data", "import", "bench", "episodes"])
print("VmHWM", [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0], file=sys.stderr)
sys.exit(code)
"""


def make(folder: Path, episodes: int, steps: int) -> int:
    """Writes episodes of noise on a few grey levels; bytes of their frames."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(episodes):
        obs = np.repeat(rng.integers(0, 8, (steps, *SIZE[:2], 1), np.uint8) * 30, 3, axis=3)
        arrays = {"obs": obs, "act": rng.normal(size=(steps, 2)).astype(np.float32), "rew": rng.normal(size=steps)}
        np.savez(folder / f"{number:05d}.npz", **arrays)
    return episodes * steps * int(np.prod(SIZE))


def peak(episodes: int, steps: int) -> tuple[float, float]:
    """MB that the import held at most, and MB of its frames."""
    with tempfile.TemporaryDirectory() as place:
        size = make(Path(place) / "episodes", episodes, steps)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "WM_TRACKING": "off"}
        done = subprocess.run([sys.executable, "-c", IMPORT], cwd=place, env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the import failed: {done.stderr[-500:]}")
        held = next(line.split()[1] for line in done.stderr.splitlines()[::-1] if line.startswith("VmHWM"))
        return int(held) / 1e3, size / 1e6


def main() -> int:
    """Parses the command line, imports, prints; 1 where memory grows too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, nargs=2, default=[100, 1000])
    parser.add_argument("--steps", type=int, default=200, help="of an episode")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    (few, _), (many, size) = (peak(episodes, options.steps) for episodes in options.episodes)
    share = 100 * (many - few) / size
    found = {"few_mb": few, "many_mb": many, "frames_mb": size, "growth_per_cent_of_frames": share}
    if options.json:
        print(json.dumps(found))
    else:
        a, b = options.episodes
        print(f"peak of wm data import: {few:.0f} MB at {a} episodes, {many:.0f} MB at {b} ({size:.0f} MB of frames)")
        print(f"the difference is {share:.1f}% of the data (at most {MOST:.0f}%)")
    return int(share > MOST)


if __name__ == "__main__":
    sys.exit(main())
