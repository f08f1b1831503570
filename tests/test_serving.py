"""The agent as a model behind a server: what it answers depends on the request alone."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wm import worlds
from wm.models.controller import save_controller
from wm.models.mdnrnn import MDNRNN, MDNConfig, save_mdnrnn
from wm.models.vae import VAE, VAEConfig, save_vae
from wm.play import agent, rollout
from wm.release import agent_model

ROOT = Path(__file__).parent.parent
STEPS = 12


@pytest.fixture(scope="module", params=[True, False], ids=["z is a sample", "z is the mean"])
def folder(request, tmp_path_factory):
    """An agent of car_racing whose actions depend on what it sees and remembers."""
    folder, memory = tmp_path_factory.mktemp("agent"), MDNRNN(MDNConfig(hidden=8), 32, 3, reads_restart=True)
    layout = agent.layout(worlds.get("car_racing"), memory, ("z", "h"))
    save_vae(VAE(VAEConfig()), "car_racing", folder), save_mdnrnn(memory, "car_racing", folder)
    params = np.random.default_rng(1).normal(size=layout.size)
    save_controller(params, layout, "car_racing", ("z", "h"), folder, sampled=request.param)
    return folder


def ask(model, frames: np.ndarray, state: np.ndarray, seeds: list[int], step: int) -> dict[str, np.ndarray]:
    rows = {"seed": np.array(seeds), "step": np.full(len(seeds), step)}
    return model.predict({"frames": frames, "state": state, **rows})


def test_two_servers_and_half_an_episode_each_are_one_agent_in_process(folder):
    """Two episodes side by side; after the first half another server takes over, which has only the state."""
    frames = np.random.default_rng(0).integers(0, 255, (STEPS, 2, 64, 64, 3), np.uint8)
    loaded, params, about = agent.load(folder)
    driver = rollout.AgentDriver(loaded, params[None], 2, about["sampled"])
    driver.begin(0, (0, 21)), driver.begin(1, (0, 22))
    servers, state = [agent_model.load(folder), agent_model.load(folder)], np.zeros((2, 0), np.float32)
    seen = []
    for step in range(STEPS):
        server = servers[step >= STEPS // 2]
        ask(server, frames[step, ::-1].copy(), np.zeros((2, 0), np.float32), [3, 4], 0)  # somebody else's episodes
        reply = ask(server, frames[step], state, [21, 22], step)
        np.testing.assert_array_equal(reply["actions"], driver.act(frames[step], np.arange(2)))
        state = reply["state"]
        seen.append(reply["actions"])
    assert state.shape == (2, 16) and np.ptp(np.array(seen)[:, :, 0], axis=0).min() > 0  # it does steer


def test_the_same_request_has_the_same_answer_and_another_state_another(folder):
    model = agent_model.load(folder)
    frames = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    first = ask(model, frames, np.zeros((1, 0), np.float32), [7], 0)
    for _ in range(2):
        again = ask(model, frames, first["state"], [7], 1)
        other = ask(model, frames, first["state"] + 0.5, [7], 1)
        assert (again["actions"] != other["actions"]).any()
        np.testing.assert_array_equal(again["state"], ask(model, frames, first["state"], [7], 1)["state"])


def test_a_frame_may_travel_as_base64_of_its_bytes_or_of_a_png(folder):
    model = agent_model.load(folder)
    frames = np.random.default_rng(2).integers(0, 255, (2, 64, 64, 3), np.uint8)
    state = np.random.default_rng(3).normal(size=(2, 16)).astype(np.float32)
    expected = ask(model, frames, state, [7, 8], 1)
    raw = [base64.b64encode(frame.tobytes()).decode() for frame in frames]
    png = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        png.append(base64.b64encode(file.getvalue()).decode())
    for texts in (raw, png, [raw[0], png[1]]):
        found = ask(model, np.array(texts, object), state, [7, 8], 1)
        np.testing.assert_array_equal(found["actions"], expected["actions"])
        np.testing.assert_array_equal(found["state"], expected["state"])
    np.testing.assert_array_equal(
        ask(model, frames.astype(object), state, [7, 8], 1)["actions"], expected["actions"]
    )  # nested lists, as MLflow hands them on


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ("no base64!", "a frame is no base64: 'no base64!'"),
        (base64.b64encode(b"short").decode(), "a frame has 5 bytes: expected a PNG, or 12288 bytes"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(12288)).decode(), "a PNG of 0 x 0 that cannot be read"),
    ],
)
def test_a_frame_that_is_none_is_a_sentence(folder, frame, said):
    with pytest.raises(ValueError, match=said):
        ask(agent_model.load(folder), np.array([frame], object), np.zeros((1, 0), np.float32), [7], 0)


def test_a_huge_png_is_refused_before_it_is_unpacked(folder):
    file = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(file, "PNG")  # 400 MB unpacked, 50 kB packed
    text = base64.b64encode(file.getvalue()).decode()
    with pytest.raises(ValueError, match="a PNG of 20000 x 20000 that cannot be read: expected 64 x 64"):
        ask(agent_model.load(folder), np.array([text], object), np.zeros((1, 0), np.float32), [7], 0)


def test_a_wrong_request_is_a_sentence(folder):
    model = agent_model.load(folder)
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match=r"frames are \[1, 64, 64\], expected \[B, 64, 64, 3\]"):
        ask(model, frames[..., 0], np.zeros((1, 0), np.float32), [7], 0)
    with pytest.raises(ValueError, match="something else than whole numbers from 0 to 255"):
        ask(model, frames.astype(object) + 300, np.zeros((1, 0), np.float32), [7], 0)
    for others in (frames.astype(np.int64) + 300, frames.astype(np.float32) + 0.5, frames.astype(object) + 0.5):
        with pytest.raises(ValueError, match="something else than whole numbers from 0 to 255"):
            ask(model, others, np.zeros((1, 0), np.float32), [7], 0)
    whole = [ask(model, frames.astype(kind), np.zeros((1, 0), np.float32), [7], 0) for kind in (np.uint8, np.float64)]
    np.testing.assert_array_equal(whole[0]["actions"], whole[1]["actions"])
    if agent.load(folder)[2]["sampled"]:
        for seeds, step in (([7, 8], 0), ([-1], 0), ([7], -1)):
            with pytest.raises(ValueError, match="seed and step have to be 1 whole numbers each, from 0 on"):
                ask(model, frames, np.zeros((1, 0), np.float32), seeds, step)
        with pytest.raises(ValueError, match="the request lacks 'seed'; it has frames"):
            model.predict({"frames": frames})
    with pytest.raises(ValueError, match=r"state is \[1, 3\], expected the last reply's \[1, 16\]"):
        ask(model, frames, np.zeros((1, 3), np.float32), [7], 1)
    with pytest.raises(ValueError, match="the request lacks 'frames'; it has seed, step"):
        model.predict({"seed": np.array([0]), "step": np.array([0])})


def test_the_model_needs_no_package_that_it_does_not_name(folder):
    """Whatever it imports to act belongs to its requirements, or to theirs: a fresh environment has no more."""
    code = f"""
import importlib.metadata, re, sys
from pathlib import Path
import mlflow, numpy as np
from packaging.requirements import Requirement
from wm.release import agent_model
from wm.records.registered_models import REQUIREMENTS

def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()

allowed, waiting = set(), [*REQUIREMENTS]
while waiting:
    name = canonical(waiting.pop())
    try:
        needs = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        continue
    if name not in allowed:
        allowed.add(name)
        waiting += [r.name for r in map(Requirement, needs) if not r.marker or r.marker.evaluate({{"extra": ""}})]
before = set(sys.modules)
agent_model.load(Path({str(folder)!r})).predict(
    {{"frames": np.zeros((1, 64, 64, 3), np.uint8), "state": np.zeros((1, 0)), "seed": [0], "step": [0]}})
packages = importlib.metadata.packages_distributions()
imported = {{name.partition(".")[0] for name in set(sys.modules) - before}} & set(packages)
assert "Box2D" in imported
surplus = [name for name in imported if not allowed & set(map(canonical, packages[name]))
           and name not in ("wm", "pydot")]  # pydot: PyTorch draws graphs with it where it is there
sys.exit(f"not in the requirements: {{surplus}}" if surplus else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
