"""An exported agent drives CarRacing with onnxruntime, NumPy and Gymnasium alone: nothing of this repository is needed.

    python -m wm agent export pretrained/car_racing agent/
    python examples/drive_onnx.py agent/ --seed 7
    python examples/drive_onnx.py agent/ --scores pretrained/car_racing/scores.json --tracks 20

With `--scores` it drives the first test tracks and says by how much its scores differ from those on record, track by
track: the mean and its 95% interval.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gymnasium
import numpy as np
import onnxruntime


class Agent:
    """V's encoder, M and C of an exported agent, and the state of one episode."""

    def __init__(self, folder: Path):
        self.about = json.loads((folder / "agent.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.graphs = {
            name: onnxruntime.InferenceSession(folder / f"{name}.onnx", options)
            for name in ("encoder", "controller", "memory")
        }
        rows, columns = self.about["frame"]["picture"]["rows"], self.about["frame"]["picture"]["columns"]
        self.rows, self.columns = slice(*rows), slice(*columns)
        self.down, self.across = areas(rows[1] - rows[0], 64), areas(columns[1] - columns[0], 64)

    def begin(self, seed: int) -> None:
        """At an episode's first frame."""
        sizes = self.about["sizes"]
        self.states = {"h": np.zeros((1, sizes["h"]), np.float32), "c": np.zeros((1, sizes["h"]), np.float32)}
        self.restart, self.random = np.ones(1, np.float32), np.random.default_rng(seed)

    def act(self, picture: np.ndarray) -> np.ndarray:
        """The world's picture, uint8 -> an action; M remembers both."""
        mu, logvar = self.graphs["encoder"].run(["mu", "logvar"], {"frame": self.frame(picture)[None]})
        if self.about["z"]["rule"] == "sample":
            mu = mu + np.exp(logvar / 2) * self.random.standard_normal(mu.shape, np.float32)
        reads = {"z": mu, **self.states}
        (act,) = self.graphs["controller"].run(["act"], {name: reads[name] for name in self.about["controller_reads"]})
        takes = {"z": mu, "act": act, **self.states, "restart": self.restart}
        wanted = [port["name"] for port in self.about["graphs"]["memory"]["inputs"]]
        h, c = self.graphs["memory"].run(["h_next", "c_next"], {name: takes[name] for name in wanted})
        self.states, self.restart = {"h": h, "c": c}, np.zeros(1, np.float32)
        return act[0]

    def frame(self, picture: np.ndarray) -> np.ndarray:
        """What V sees of the world's picture, [64, 64, 3] uint8: a part of it, shrunk by the mean over areas."""
        part = picture[self.rows, self.columns].astype(np.float32)
        return np.rint(np.einsum("yr,rcd,xc->yxd", self.down, part, self.across, optimize=True)).astype(np.uint8)


def areas(before: int, after: int) -> np.ndarray:
    """[after, before] float32: how much of each old pixel lies in each new one, rows that sum to 1."""
    edges = np.arange(after + 1) * before / after
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(before)
    shared = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return (shared * after / before).astype(np.float32)


def drive(agent: Agent, seed: int) -> tuple[float, int]:
    """Score and length of one episode."""
    env = gymnasium.make("CarRacing-v3")
    picture, _ = env.reset(seed=seed)
    agent.begin(seed)
    score, steps, over = 0.0, 0, False
    while not over:
        picture, reward, end, trunc, _ = env.step(agent.act(picture))
        score, steps, over = score + float(reward), steps + 1, end or trunc
    env.close()
    return score, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `wm agent export` wrote")
    parser.add_argument("--seed", type=int, default=0, help="of the track; default: 0")
    parser.add_argument("--scores", type=Path, help="scores.json of the same agent, to compare with")
    parser.add_argument("--tracks", type=int, default=20, help="of those in --scores; default: 20")
    args = parser.parse_args()
    agent = Agent(args.folder)
    if not args.scores:
        score, steps = drive(agent, args.seed)
        print(f"seed {args.seed}: score {score:.1f} in {steps} steps")
        return
    record = json.loads(args.scores.read_text())
    differences = []
    for seed, before in list(zip(record["seeds"], record["scores"], strict=True))[: args.tracks]:
        score, steps = drive(agent, seed)
        differences.append(score - before)
        print(f"seed {seed}: score {score:.1f} in {steps} steps, {before:.1f} on record", flush=True)
    mean, half = np.mean(differences), 1.96 * np.std(differences, ddof=1) / np.sqrt(len(differences))
    print(
        f"difference over {len(differences)} tracks: {mean:+.1f}, 95% interval {mean - half:+.1f} to {mean + half:+.1f}"
    )


if __name__ == "__main__":
    main()
