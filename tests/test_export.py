"""An agent as ONNX files: what they say, what they compute, what cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_agent
import torch
from tiny_agent import A, H, Z

from wm import worlds
from wm.cli import main
from wm.core.errors import UserError
from wm.dream.engine import NOISE_STEPS, DreamNoise, load_starts
from wm.gym.dream import Dreams
from wm.play import agent as agents
from wm.release import export, onnx_models, places

pytest.importorskip("onnxscript", reason="exports need onnxscript: pip install -e '.[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="exports need onnxruntime: pip install -e '.[export]'")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with an untrained agent of a world that is not built in; C has a hidden layer and reads c too."""
    return tiny_agent.write(tmp_path_factory.mktemp("export") / "agent")


@pytest.fixture(scope="module")
def exported(tiny):
    """The same agent, exported."""
    export.export(places.find(str(tiny)), tiny.parent / "out")
    return tiny.parent / "out"


@pytest.fixture(scope="module")
def car_racing(tmp_path_factory):
    """The agent of CarRacing that comes with the repository, exported."""
    out = tmp_path_factory.mktemp("export") / "car_racing"
    export.export(places.find("pretrained/car_racing"), out)
    return out


def run(folder, graph: str, **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(folder / f"{graph}.onnx").run(None, inputs)


class _Logarithm(torch.nn.Module):
    names = ("out",)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


class _OfTheSize(_Logarithm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs().log()


def test_a_graph_that_gives_no_number_where_torch_gives_one_is_not_exact():
    x = torch.full((2, 1), -2.0)
    data = onnx_models._export(_Logarithm(), {"x": -x}).SerializeToString()
    onnx_models._judge("controller", onnx_models._errors(data, _OfTheSize(), [{"x": -x}]), False)
    errors = onnx_models._errors(data, _OfTheSize(), [{"x": x}, {"x": -x}])
    with pytest.raises(UserError, match="the exported controller gives another out than torch does, by nan"):
        onnx_models._judge("controller", errors, False)


def test_an_agent_of_ones_own_world_is_exported_and_described(tiny, exported):
    about = json.loads((exported / "agent.json").read_text())
    assert about["world"] == "tiny" and about["sizes"] == {"z": Z, "h": H, "act": A, "mixtures": 3}
    assert about["action"]["choices"] == []
    assert about["controller_reads"] == ["z", "c", "h"] and about["action"]["low"] == [-1.0, -1.0]
    assert about["dream"]["reward"] == "survival" and about["dream"]["end"] == {
        "rule": "threshold", "logit": 0.0, "shift": agents.load(tiny)[0].mdnrnn.end_shift
    }  # fmt: skip
    assert about["dream"]["controller_z"] == about["z"]["rule"]
    memory = about["graphs"]["memory"]
    assert [port["name"] for port in memory["inputs"]] == ["z", "act", "h", "c", "restart"]
    assert [port["name"] for port in memory["outputs"]][-1] == "done", "there is no reward head"

    agent, params, _ = agents.load(tiny)
    rng = np.random.default_rng(1)
    z, h, c = (rng.standard_normal((5, size)).astype(np.float32) for size in (Z, H, H))
    act, _ = run(exported, "controller", z=z, h=h, c=c)
    assert np.abs(act - agent.act(params[None].repeat(5, 0), z, h, c)).max() < 1e-6
    restart = np.array([1, 0, 0, 1, 0], np.float32)
    h_next, c_next, *_ = run(exported, "memory", z=z, act=act, h=h, c=c, restart=restart)
    expected = agent.remember(z, act, h, c, restart)
    assert np.abs(h_next - expected[0]).max() < 1e-6 and np.abs(c_next - expected[1]).max() < 1e-6


def test_two_exports_are_the_same_bytes_and_hold_no_path_of_this_machine(tiny, exported, capsys):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert main(["agent", "export", str(tiny), str(exported)]) == 0
    assert "controller.onnx" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    for name, data in before.items():
        assert b"site-packages" not in data and b"/wm/" not in data, name


def described(folder, first, mean, noise, tau) -> dict[str, np.ndarray]:
    """A dream by agent.json and the graphs alone, C acting: what it says under "dream", in NumPy."""
    about = json.loads((folder / "agent.json").read_text())
    rules, hidden = about["dream"], about["sizes"]["h"]
    graphs = {name: onnx_models.session((folder / f"{name}.onnx").read_bytes()) for name in ("memory", "controller")}
    outputs = [port["name"] for port in about["graphs"]["memory"]["outputs"]]
    z, seen, restart = first[None], mean[None] if rules["controller_z"] == "mean" else first[None], 1.0
    h, c, told = np.zeros((1, hidden), np.float32), np.zeros((1, hidden), np.float32), {"z": [], "rew": [], "end": []}
    for uniform, normal in noise:
        reads = {"z": seen, "h": h, "c": c}
        act = graphs["controller"].run(["act"], {name: reads[name] for name in about["controller_reads"]})[0]
        takes = {"z": z, "act": act, "h": h, "c": c, "restart": np.full(1, restart, np.float32)}
        wanted = [port["name"] for port in about["graphs"]["memory"]["inputs"]]
        m = dict(zip(outputs, graphs["memory"].run(outputs, {name: takes[name] for name in wanted}), strict=True))
        h, c, restart = m["h_next"], m["c_next"], 0.0
        scaled = m["log_pi"][0].astype(np.float64) / tau
        weight = np.exp(scaled - scaled.max(0))
        weight /= weight.sum(0)
        component = np.minimum((weight.cumsum(0) < uniform).sum(0), len(weight) - 1)[None]
        mu, sigma = (np.take_along_axis(m[name][0], component, 0)[0] for name in ("mu", "log_sigma"))
        z = (mu + np.exp(sigma) * np.sqrt(tau) * normal)[None].astype(np.float32)
        seen = (weight * m["mu"][0]).sum(0)[None].astype(np.float32) if rules["controller_z"] == "mean" else z
        told["z"].append(z[0])
        told["rew"].append(m["reward"][0] if rules["reward"] == "head" else 1.0)
        told["end"].append(1 / (1 + np.exp(rules["end"]["shift"] - m["done"][0])))
    return {name: np.array(values) for name, values in told.items()}


@pytest.mark.parametrize("which", ["tiny", "car_racing"])
def test_a_dream_by_the_description_alone_is_the_dream(which, tiny, exported, car_racing):
    """200 steps with the same luck; one M reads a restart flag and knows no reward, the other the opposite."""
    folder, out = (tiny, exported) if which == "tiny" else ("pretrained/car_racing", car_racing)
    agent, params, about = agents.load(places.find(str(folder)).folder)
    dreams = Dreams(folder, 1.15, 1, "features", None, 200, None, reads="sample" if about["sampled"] else "mean")
    dreams.begin(0, 7)
    noise = DreamNoise(7, agent.mdnrnn.z_size)
    drawn = np.concatenate([noise.block(index) for index in range(-(-200 // NOISE_STEPS))])[:200]
    mu, logvar = load_starts(folder)
    found = described(out, noise.start(mu, logvar).numpy(), noise.mean(mu).numpy(), drawn, 1.15)
    for step in range(200):
        act = agent.act(params[None], dreams.seen.numpy(), dreams.h.numpy(), dreams.c.numpy())
        rew, _, _ = dreams.step(act)
        end = torch.sigmoid(agent.mdnrnn.heads(dreams.h)[2] - agent.mdnrnn.end_shift).item()
        assert np.abs(found["z"][step] - dreams.z[0].numpy()).max() < 1e-3
        assert abs(found["rew"][step] - rew[0]) < 1e-3 and abs(found["end"][step] - end) < 1e-4


def test_actions_on_a_recorded_episode_are_those_of_torch(car_racing):
    """60 frames of CarRacing, as Gymnasium draws them."""
    agent, params, about = agents.load(Path("pretrained/car_racing"))
    assert about["sampled"] is False
    graphs = {
        name: onnx_models.session((car_racing / f"{name}.onnx").read_bytes())
        for name in ("encoder", "controller", "memory")
    }
    env = agent.world.make("gymnasium")
    frame, _ = env.reset(seed=3)
    (h, c), restart = agent.initial_state(1), np.zeros(1, np.float32)
    state, largest = {"h": h, "c": c}, 0.0
    for _ in range(60):
        z = agent.see(frame[None], None)
        act = agent.act(params[None], z, h, c)
        h, c = agent.remember(z, act, h, c, restart)
        (mu,) = graphs["encoder"].run(["mu"], {"frame": frame[None]})
        reads = {"z": mu, **state}
        (ours,) = graphs["controller"].run(["act"], {name: reads[name] for name in agent.inputs})
        largest = max(largest, float(np.abs(ours - act).max()))
        h_next, c_next = graphs["memory"].run(["h_next", "c_next"], {"z": mu, "act": ours, **state})
        state = {"h": h_next, "c": c_next}
        frame, *_ = env.step(act[0])
    env.close()
    assert 0 < largest < 1e-4


def test_half_precision_halves_the_decoder_and_moves_no_pixel_by_more_than_two(tiny, exported):
    agent, params, _ = agents.load(tiny)
    half = onnx_models.make(agent, params, ("decoder",))["decoder"]
    assert len(half.data) < 0.51 * (exported / "decoder.onnx").stat().st_size and half.errors["frame"] <= 2


def test_a_folder_with_other_things_stays_as_it_is(tiny, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("dear diary")
    assert main(["agent", "export", str(tiny), str(mine)]) == 2
    assert "is no exported agent: name another folder" in capsys.readouterr().err
    assert [path.name for path in mine.iterdir()] == ["diary.txt"]


def test_a_squash_that_reads_arrays_only_is_named(tiny):
    agent, params, _ = agents.load(tiny)

    class Arrays(type(agent.world)):
        def squash(self, out):
            return np.tanh(np.asarray(out))

    with pytest.raises(UserError, match="squash of Arrays reads NumPy arrays only"):
        onnx_models.make(agents.Agent(**{**vars(agent), "world": Arrays()}), params)


def test_a_graph_that_computes_something_else_is_refused_and_nothing_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_models, "LARGEST", 1e-12)
    with pytest.raises(UserError, match=r"encoder gives another \w+ than torch does, by"):
        export.export(places.find(str(tiny)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_action_that_is_a_choice_says_so():
    worlds.register("pole", worlds.BY_ID, {"name": "pole", "gym": "CartPole-v1"})
    assert export.choices(worlds.get("pole")) == [2] and export.choices(worlds.get("car_racing")) == []


def test_a_missing_agent_is_a_sentence(project, capsys):
    assert main(["agent", "export", "tiny", "out"]) == 2
    assert "there is no agent in runs/tiny/evolve: run `dvc repro evolve@tiny` first" in capsys.readouterr().err
