"""The dream as Gymnasium environments, on a model made by hand."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import wm.gym  # noqa: F401  registers wm/Dream-v0
from tests.dream_model import H, Z, write_model
from wm import worlds
from wm.core.errors import DamagedData
from wm.dream.engine import Dream, DreamRules, load_starts
from wm.gym.dream import DreamVectorEnv, DreamWorld
from wm.models.mdnrnn import load_mdnrnn
from wm.models.vae import load_vae
from wm.play.agent import controller_spec
from wm.worlds.contract import check_world


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("world", ["car_racing", "take_cover"])
def test_contract(world, tmp_path):
    check_world(DreamWorld(write_model(tmp_path, world), tau=1.1, max_steps=60), seed=8)


@pytest.mark.parametrize("observation", ["features", "frame"])
def test_gymnasium_checker(model, observation):
    env = gymnasium.make("wm/Dream-v0", model=model, observation=observation, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(minimum|maximum) value is -?infinity")
        check_env(env.unwrapped)
    env.reset(seed=0)
    decoded = load_vae(model / "train_vae").decode(env.unwrapped.dreams.z)
    assert np.array_equal(env.render(), decoded[0].numpy()) and env.render().dtype == np.uint8
    env.close()


def test_importing_the_package_imports_nothing_heavy_and_its_gym_registers():
    heavy = "{'gymnasium', 'matplotlib', 'mlflow', 'numpy', 'torch'}"
    code = f"import sys, wm; assert not {heavy} & set(sys.modules), 'wm is heavy'\n"
    code += "import wm.gym, gymnasium; assert 'wm/Dream-v0' in gymnasium.registry and not 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("max_steps", [0, -3])
def test_a_limit_is_at_least_a_step(model, max_steps):
    with pytest.raises(ValueError, match=f"max_steps is {max_steps}: expected 1 or more"):
        gymnasium.make("wm/Dream-v0", model=model, max_steps=max_steps)


def test_observation_is_z_and_h(model):
    env = gymnasium.make("wm/Dream-v0", model=model)
    obs, _ = env.reset(seed=3)
    assert env.observation_space.shape == (Z + H,) and not obs[Z:].any() and obs[:Z].any()
    assert np.abs(env.step(np.zeros(1, np.float32))[0][Z]) > 0, "h stays zero"


def test_ends_when_the_logit_says_so_and_truncates_at_the_limit(model):
    env = gymnasium.make("wm/Dream-v0", model=model, max_steps=80, ends="threshold")
    for act, expected in ((1.0, (True, False)), (-1.0, (False, True))):
        env.reset(seed=1)
        for step in range(1, 81):  # noqa: B007
            _, rew, end, trunc, _ = env.step(np.array([act], np.float32))
            assert rew == 1.0
            if end or trunc:
                break
        assert (end, trunc) == expected and (step == 80) == trunc
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.unwrapped.step(np.zeros(1, np.float32))


@pytest.mark.parametrize("reads", ["sample", "mean"])
@pytest.mark.parametrize("ends", ["threshold", "drawn", "expected"])
@pytest.mark.parametrize(("name", "seed"), [("car_racing", 5), ("take_cover", 0)])
def test_agrees_with_the_engine_that_evolution_uses(name, seed, ends, reads, tmp_path):
    model = write_model(tmp_path, name)
    world, mdnrnn, inputs = worlds.get(name), load_mdnrnn(model / "train_mdn"), ("z", "c", "h")
    spec = controller_spec(world, mdnrnn, inputs)
    shape = spec.layout
    params = np.random.default_rng(seed).normal(0, 1, (3, shape.size)).astype(np.float32)
    seeds = [5, 6, 7, 8]
    rules = DreamRules(tau=1.3, max_steps=90, ends=ends, reads=reads)
    dream = Dream(mdnrnn, load_starts(model / "train_mdn"), world, spec, rules)
    scores, lengths = dream.scores(params, seeds)
    counts = name == "take_cover" and ends != "expected"
    assert len(np.unique(lengths)) > 3 and np.array_equal(scores, lengths) == counts
    for p, controller in enumerate(params):
        envs = DreamVectorEnv(len(seeds), model=model, tau=1.3, max_steps=90, ends=ends, reads=reads)
        envs.reset(seed=seeds)
        first, total = np.zeros(len(seeds), int), np.zeros(len(seeds))
        for step in range(1, 91):
            states = torch.cat([envs.dreams.seen, envs.dreams.c, envs.dreams.h], dim=1).numpy()
            acts = world.squash(shape.apply(np.tile(controller, (len(seeds), 1)), states))
            _, rew, end, trunc, _ = envs.step(acts)
            total += np.where(first == 0, rew, 0.0)
            first[(first == 0) & (end | trunc)] = step
        assert first.tolist() == lengths[p].tolist()
        np.testing.assert_allclose(total, scores[p], rtol=1e-4, atol=1e-4)


def test_vector_steps_as_the_single_one_and_resets_in_the_same_step(model):
    assert DreamVectorEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    envs = gymnasium.make_vec("wm/Dream-v0", num_envs=3, model=model, tau=1.2, max_steps=50)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and envs.metadata["render_fps"] == 35
    single = gymnasium.make("wm/Dream-v0", model=model, tau=1.2, max_steps=50)
    obs, _ = envs.reset(seed=[10, 20, 30])
    expected, _ = single.reset(seed=20)
    assert envs.observation_space.contains(obs)
    rng, ended = np.random.default_rng(0), False
    while not ended:
        acts = rng.uniform(-0.5, 1, (3, 1)).astype(np.float32)
        obs, rew, end, trunc, infos = envs.step(acts)
        expected, single_rew, single_end, single_trunc, _ = single.step(acts[1])
        ended = single_end or single_trunc
        assert (rew[1], end[1], trunc[1]) == (single_rew, single_end, single_trunc)
        seen = infos["final_obs"][1] if ended else obs[1]
        np.testing.assert_allclose(seen, expected, atol=1e-5)
    assert infos["_final_obs"][1] and not obs[1, Z:].any(), "the next episode has not begun in the same step"
    assert envs.step(acts)[1][1] == 1.0, "the step after an end is not experience"


def test_vector_is_a_function_of_its_seed(model):
    def play(seed):
        envs = DreamVectorEnv(4, model=model, max_steps=30)
        frames = [envs.reset(seed=seed)[0]]
        frames += [envs.step(np.full((4, 1), 0.2, np.float32))[0] for _ in range(50)]
        return np.stack(frames)

    assert np.array_equal(play(3), play(3))
    assert not np.array_equal(play(3), play(4))
    assert np.array_equal(play(3)[0, 1], play(4)[0, 0]), "slot i of seed s is episode s + i"


def test_vector_render(model):
    envs = DreamVectorEnv(2, model=model, observation="frame", render_mode="rgb_array")
    obs, _ = envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2 and np.array_equal(frames[1], obs[1]) and obs.dtype == np.uint8


def test_ppo_learns_in_the_dream(model):
    """stable-baselines3 takes the vector environment as it is, and survives longer and longer."""
    from examples.ppo_in_dream import learn

    scores = learn(model, steps=8_000, limit=200, tau=1.0, seed=0, count=8)
    assert scores[-20:].mean() > 2 * scores[:20].mean()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": 0.0}, "tau"),
        ({"observation": "smell"}, "smell"),
        ({"render_mode": "human"}, "human"),
        ({"reward": "head"}, "reward_head"),
    ],
)
def test_impossible_options_are_named(model, options, words):
    with pytest.raises(ValueError, match=words):
        DreamVectorEnv(1, model=model, **options)


def test_missing_model_is_named(tmp_path):
    with pytest.raises(DamagedData, match=r"mdnrnn\.json"):
        DreamVectorEnv(1, model=tmp_path)


def test_actions_that_are_not_finite_are_refused(model):
    envs = DreamVectorEnv(1, model=model)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        envs.step(np.array([[np.nan]], np.float32))
