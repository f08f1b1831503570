"""An agent behind MLflow's scoring server drives one episode, here and there: the two scores must be the same number.

    export MLFLOW_TRACKING_URI=sqlite:///mlflow.db
    mlflow models serve -m models:/car_racing-agent@champion --env-manager local --port 5001
    python examples/drive_over_http.py [--url http://127.0.0.1:5001] [--model models:/car_racing-agent@champion]

The world runs here and only frames and M's state travel: the server keeps nothing between two requests. The second
score is that of the same files in the engine that scored the agent (`wm.play.rollout`), without a server. Exit code 1
where they differ.
"""

from __future__ import annotations

import wm  # noqa: F401  # isort: skip  before NumPy, whose kernels it chooses

import argparse
import base64
import http.client
import json
import os
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

import mlflow
import numpy as np

from wm.play import agent, rollout
from wm.worlds.base import World


class Remote:
    """The agent behind an address; asks for an action, and sends M's state along."""

    def __init__(self, url: str):
        place = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)

    def act(self, frame: np.ndarray, state: list, seed: int, step: int) -> tuple[np.ndarray, list]:
        """frame [64, 64, 3] and M's state (a row, empty at the first step) -> action [A], the next state.

        The frame travels as base64 of its bytes. Base64 of a PNG and nested lists mean the same to the server.
        """
        text = base64.b64encode(frame.tobytes()).decode()
        request = {"inputs": {"frames": [text], "state": [state], "seed": [seed], "step": [step]}}
        self.connection.request("POST", "/invocations", json.dumps(request), {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        answer = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"the server answered {reply.status}: {answer[:300].decode(errors='replace')}")
        predictions = json.loads(answer)["predictions"]
        return np.array(predictions["actions"][0], np.float32), predictions["state"][0]


def drive(world: World, remote: Remote, seed: int) -> tuple[float, int]:
    """Score and length of one episode, driven over HTTP."""
    env = world.make()
    frame, _ = env.reset(seed=seed)
    state, score, step, over = [], 0.0, 0, False
    while not over:
        act, state = remote.act(frame, state, seed, step)
        frame, rew, end, trunc, _ = env.step(act)
        score, step, over = score + float(rew), step + 1, end or trunc
    env.close()
    return score, step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:5001", help="of `mlflow models serve`")
    parser.add_argument("--model", default="models:/car_racing-agent@champion", help="what it serves")
    parser.add_argument("--seed", type=int, default=0, help="of the episode")
    args = parser.parse_args()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as folder:
        files = mlflow.artifacts.download_artifacts(f"{args.model}/artifacts/model", dst_path=folder)
        here, params, about = agent.load(Path(files))
    began = time.monotonic()
    score, steps = drive(here.world, Remote(args.url), args.seed)
    taken = time.monotonic() - began
    print(f"over HTTP:  score {score:.6f}, {steps} steps, {taken:.0f} s, {1000 * taken / steps:.1f} ms a step")
    driver = rollout.AgentDriver(here, params[None], 1, about["sampled"])
    (alone,) = rollout.play(here.world, driver, [(0, args.seed)], 1).scores
    print(f"in process: score {alone:.6f}")
    return 0 if score == alone else 1


if __name__ == "__main__":
    sys.exit(main())
