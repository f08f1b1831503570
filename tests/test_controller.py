"""C: the paper's parameter counts, a plain reading of its equation, and its files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm import worlds
from wm.core import weights
from wm.core.errors import DamagedData
from wm.models.controller import Layout, load_controller, save_controller
from wm.models.mdnrnn import MDNRNN, MDNConfig, save_mdnrnn
from wm.models.vae import VAE, VAEConfig, save_vae
from wm.play import agent as agents


@pytest.mark.parametrize(
    "world, z, hidden, inputs, size",
    [("car_racing", 32, 256, ("z", "h"), 867), ("take_cover", 64, 512, ("z", "c", "h"), 1088)],
)
def test_the_papers_number_of_parameters(world, z, hidden, inputs, size):
    world = worlds.get(world)
    assert sorted(world.spec.controller_inputs) == sorted(inputs)
    memory = MDNRNN(MDNConfig(hidden=hidden), z, world.spec.action_size, world.spec.predicts_restart)
    assert agents.layout(world, memory, world.spec.controller_inputs).size == size


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("hidden", [0, 4])
def test_each_controller_reads_its_own_features(hidden, bias):
    """Against plain loops over numbers; [W, b], or [W1, b1, W2, b2] with tanh between."""
    layout, rng = Layout(inputs=5, actions=3, bias=bias, hidden=hidden), np.random.default_rng(0)
    params = rng.standard_normal((6, layout.size)).astype(np.float32)
    features = rng.standard_normal((6, 5)).astype(np.float32)
    out = layout.apply(params, features)
    assert out.shape == (6, 3) and out.dtype == np.float32
    for row in range(6):
        rest, x = list(map(float, params[row])), list(map(float, features[row]))

        def take(outputs, inputs, biased, rest=rest):
            weight = [[rest.pop(0) for _ in range(inputs)] for _ in range(outputs)]
            return weight, [rest.pop(0) if biased else 0.0 for _ in range(outputs)]

        if hidden:
            weight, add = take(hidden, 5, True)
            x = [
                np.tanh(sum(w * v for w, v in zip(line, x, strict=True)) + b)
                for line, b in zip(weight, add, strict=True)
            ]
        weight, add = take(3, len(x), bias)
        expected = [sum(w * v for w, v in zip(line, x, strict=True)) + b for line, b in zip(weight, add, strict=True)]
        assert rest == [] and np.allclose(out[row], expected, atol=1e-5)


@pytest.mark.parametrize("hidden", [0, 4])
def test_shifted_parameters_make_the_same_of_shifted_inputs(hidden):
    layout, rng = Layout(inputs=5, actions=3, hidden=hidden), np.random.default_rng(0)
    params, features, offset = (
        rng.standard_normal((6, layout.size)),
        rng.standard_normal((6, 5)),
        rng.standard_normal(5),
    )
    shifted = layout.shift(params, offset)
    assert np.allclose(layout.apply(shifted, features - offset), layout.apply(params, features))
    assert np.allclose(layout.shift(shifted, -offset), params) and not np.allclose(shifted, params)


def test_without_a_bias_only_no_offset_at_all_can_be_taken_up():
    layout = Layout(inputs=2, actions=1, bias=False)
    assert np.array_equal(layout.shift(np.ones((1, 2)), np.zeros(2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="bias"):
        layout.shift(np.ones((1, 2)), np.ones(2))


def test_a_controller_that_is_not_a_number_fails_alone():
    layout = Layout(inputs=2, actions=1)
    params = np.ones((3, layout.size), np.float32)
    params[1, 0] = np.nan
    assert np.isnan(layout.apply(params, np.ones((3, 2), np.float32))[:, 0]).tolist() == [False, True, False]


def test_files_give_back_the_same_controller(tmp_path):
    layout, params = Layout(inputs=4, actions=2, hidden=3), np.arange(23, dtype=np.float32)
    save_controller(params, layout, "tiny", ("z", "c"), tmp_path, sampled=True, selection_score=1.5)
    found, found_layout, about = load_controller(tmp_path)
    assert np.array_equal(found, params) and found_layout == layout
    assert (about["world"], about["inputs"], about["sampled"], about["selection_score"]) == (
        "tiny",
        ["z", "c"],
        True,
        1.5,
    )


def test_any_flipped_byte_of_its_files_is_named(tmp_path):
    layout = Layout(inputs=4, actions=2)
    save_controller(np.ones(layout.size), layout, "tiny", ("z",), tmp_path, sampled=True)
    for name in ("controller.safetensors", "controller.json"):
        path = tmp_path / name
        whole = path.read_bytes()
        for place in range(len(whole)):
            if not (name.endswith("json") and chr(whole[place]).isspace()):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
                with pytest.raises(DamagedData, match=name):
                    load_controller(tmp_path)
        path.unlink()
        with pytest.raises(DamagedData, match=f"{name} is missing"):
            load_controller(tmp_path)
        path.write_bytes(whole)
    assert not weights.exists(tmp_path, weights.VAE_KIND)


def test_an_agent_is_its_three_models_wired(tmp_path):
    """Two steps of a rollout against the paper's pseudo-code (section 2.4), by hand; as files and as bytes."""
    torch.manual_seed(0)
    vae, memory = VAE(VAEConfig(z_size=4)).eval(), MDNRNN(MDNConfig(hidden=8, mixtures=2), 4, 2, False).eval()
    layout = Layout(inputs=12, actions=2)
    params = np.random.default_rng(1).standard_normal(layout.size).astype(np.float32)
    save_vae(vae, "tiny", tmp_path / "v")
    save_mdnrnn(memory, "tiny", tmp_path / "m")
    agents.save(tmp_path / "v", tmp_path / "m", tmp_path)
    save_controller(params, layout, "tiny", ("z", "h"), tmp_path, sampled=True)
    agent, found, about = agents.load(tmp_path)
    obs = np.random.default_rng(2).integers(0, 256, (2, 3, 64, 64, 3), np.uint8)
    noise = [agents.PosteriorNoise(seed, 4) for seed in (7, 8, 9)]
    h, c = agent.initial_state(3)
    with torch.inference_mode():
        state = memory.initial_state(3)
        for step in range(2):
            eps = np.stack([one.draw() for one in noise])
            z = agent.see(obs[step], eps)
            mu, logvar = vae.encode(torch.from_numpy(obs[step]))
            assert np.allclose(z, mu + torch.exp(logvar / 2) * torch.from_numpy(eps), atol=1e-5)
            act = agent.act(np.repeat(found[None], 3, 0), z, h, c)
            weight, bias = params[:24].reshape(2, 12), params[24:]
            expected = np.tanh(np.concatenate([z, state[0].numpy()], 1) @ weight.T + bias)
            assert np.allclose(act, expected, atol=1e-5)
            h, c = agent.remember(z, act, h, c, np.zeros(3, np.float32))
            state = memory.step(torch.from_numpy(z), torch.from_numpy(act), state)
            assert np.allclose(h, state[0], atol=1e-6) and np.allclose(c, state[1], atol=1e-6)
    sent = agents.AgentFiles.read(tmp_path)
    there, params_there, about_there = sent.agent()
    assert np.array_equal(params_there, params) and about_there == about
    assert np.array_equal(there.see(obs[0], None), agent.see(obs[0], None))
    assert agents.AgentFiles.read(tmp_path).digest == sent.digest


def test_noise_belongs_to_the_episode():
    one, same, other = agents.PosteriorNoise(5, 3), agents.PosteriorNoise(5, 3), agents.PosteriorNoise(6, 3)
    first = [one.draw().tolist() for _ in range(150)]
    assert first == [same.draw().tolist() for _ in range(150)] and first != [other.draw().tolist() for _ in range(150)]
    assert len(set(map(tuple, first))) == 150 and abs(np.std(first) - 1) < 0.1
