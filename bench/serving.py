"""A step of an agent behind MLflow's scoring server, by the form in which the frame travels.

    python -m bench.serving [pretrained/car_racing] [--steps 200]

Registers the agent with an MLflow of its own in a temporary folder, starts `mlflow models serve`, and asks for actions:
milliseconds a step, frames as nested lists, as base64 of a PNG and as base64 of the frame's bytes. The actions must be
those of the same model in this process.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from wm.records import registered_models, tracking
from wm.release import agent_model, places

FORMS: dict[str, Callable[[np.ndarray], object]] = {
    "nested lists": lambda frame: frame.tolist(),
    "base64 of a PNG": lambda frame: base64.b64encode(cv2.imencode(".png", frame[:, :, ::-1])[1]).decode(),
    "base64 of the bytes": lambda frame: base64.b64encode(frame.tobytes()).decode(),
}


def measure(folder: Path, port: int, steps: int) -> list[str]:
    """A line for each form."""
    model, lines = agent_model.load(folder), []
    env = model.agent.world.make(model.agent.world.spec.drawings[0])
    for name, form in FORMS.items():
        frame, _ = env.reset(seed=1)
        state, times = np.zeros((1, 0), np.float32), []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for step in range(steps):
            about = {"seed": [1], "step": [step]}
            expected = model.predict({"frames": frame[None], "state": state, **about})
            began = time.perf_counter()
            body = json.dumps({"inputs": {"frames": [form(frame)], "state": state.tolist(), **about}})
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            found = json.loads(connection.getresponse().read())["predictions"]
            times.append(1000 * (time.perf_counter() - began))
            if not np.array_equal(np.array(found["actions"], np.float32), expected["actions"]):
                raise SystemExit(f"{name}: other actions than in this process at step {step}")
            state = np.array(found["state"], np.float32)
            frame, *_ = env.step(expected["actions"][0])
        times = np.array(times[10:])
        kilobytes, tail = len(body) / 1000, np.percentile(times, 95)
        lines.append(f"{name:20} {kilobytes:5.0f} kB  {np.median(times):5.1f} ms a step, 95th percentile {tail:.1f} ms")
    env.close()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", nargs="?", default="pretrained/car_racing", help="as `wm agent export` takes it")
    parser.add_argument("--steps", type=int, default=200, help="to ask for in each form; default: 200")
    args = parser.parse_args()
    place = places.find(args.agent)
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        client = tracking.connect(Path(scratch))
        run = client.create_run(client.create_experiment("bench", f"file://{scratch}/artifacts"))
        info = registered_models.log("agent", place.folder, {"name": place.name, "config": {}}, run.info.run_id)
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", info.model_uri, "--env-manager", "local"]
        with open(Path(scratch, "server.log"), "wb") as log:
            server = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, start_new_session=True)
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                if server.poll() is not None:
                    raise SystemExit(Path(scratch, "server.log").read_text())
                time.sleep(0.2)
            print("\n".join(measure(place.folder, port, args.steps)))
        finally:
            os.killpg(server.pid, 15)
            server.wait()


if __name__ == "__main__":
    main()
