"""CarRacing: Gymnasium's episodes bit for bit, nearly its pixels, in flat memory."""

import cv2
import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium.utils.env_checker import check_env

from bench.drawing import Undrawn, drive, pairs, pixel_differences, record, replay, same, straight_on
from wm.worlds import get
from wm.worlds.car_racing.world import SPEC, CarRacing, GymnasiumCarRacing
from wm.worlds.contract import check_world


def test_contract():
    check_world(CarRacing())


@pytest.mark.filterwarnings("ignore")
def test_registered_environment_passes_gymnasiums_checker():
    env = gymnasium.make("wm.gym:wm/CarRacing-v0")
    check_env(env.unwrapped)
    assert env.spec.max_episode_steps == SPEC.max_steps


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_driven_episodes_are_gymnasiums_bit_for_bit(seed):
    episode = record(seed)
    assert sum(episode["rew"]) > 300, "the driver is expected to drive"
    assert same(episode, replay(get("car_racing").make("fast"), episode))


def test_leaving_the_playfield_ends_an_episode_as_in_gymnasium():
    episode = record(3, straight_on)
    assert episode["rew"][-1] == -100 and episode["end"][-1]
    assert same(episode, replay(get("car_racing").make("fast"), episode))


def test_finished_laps_end_an_episode_as_in_gymnasium():
    ended = (episode for episode in map(record, range(20)) if episode["end"][-1])
    episode = next(ended)
    assert sum(episode["rew"]) > 900
    assert same(episode, replay(get("car_racing").make("fast"), episode))


def test_switching_gymnasiums_drawing_off_changes_nothing():
    episode = record(5, steps=60)
    assert same(episode, replay(gymnasium.make("CarRacing-v3"), episode))


def test_pixels_differ_little_from_gymnasiums():
    for name, found in pixel_differences(seeds=1, every=40).items():
        assert np.mean(found) < 0.8, f"{name}: {np.mean(found):.2f} levels on average"
        assert max(found) < 1.5, f"{name}: {max(found):.2f} levels in the worst frame"


def test_the_road_under_a_driven_lap_has_gymnasiums_colour():
    """Tiles lose their shade when a wheel touches them, on the fast map too."""
    worst = max(
        abs(float(reference[45:62, 28:36].mean()) - float(fast[45:62, 28:36].mean()))
        for step, reference, fast in pairs(6, drive, every=100, steps=401)
        if step > 50
    )
    assert worst < 1.5


def test_the_gymnasium_drawing_is_gymnasiums_frame_cropped_and_resized():
    env, reference = get("car_racing").make("gymnasium"), gymnasium.make("CarRacing-v3")
    obs, _ = env.reset(seed=1)
    full, _ = reference.reset(seed=1)
    assert np.array_equal(obs, cv2.resize(full[:84], (64, 64), interpolation=cv2.INTER_AREA))
    assert env.render().shape == (400, 600, 3)


def test_render_shows_the_fast_environments_state_as_gymnasium_would():
    episode, env = record(2, steps=80), get("car_racing").make()
    replay(env, episode)
    reference = Undrawn()
    replay(reference, episode)
    assert np.array_equal(env.render(), GymnasiumCarRacing._render(reference, "rgb_array"))


def test_memory_does_not_grow_over_resets():
    env, process = get("car_racing").make(), psutil.Process()
    used = []
    for seed in range(90):
        env.reset(seed=seed % 10)
        env.step(np.array([0, 1, 0], np.float32))
        used.append(process.memory_info().rss)
    growth = (max(used[60:]) - max(used[:30])) / 1e6
    assert growth < 3, f"{growth:.1f} MB over 60 resets"


def test_squash_is_the_papers():
    act = get("car_racing").squash(np.array([[0.5, 0, -1], [-9, 9, 9]], np.float32))
    np.testing.assert_allclose(act, [[np.tanh(0.5), 0.5, 0], [-1, 1, 1]], atol=1e-6)


def test_without_variety_every_explorer_has_the_same_temper():
    def gas(seed, **options):
        policy = get("car_racing").explorer(np.random.default_rng(seed), smoothness=0, **options)
        return np.mean([policy(None)[1] for _ in range(400)])

    assert np.std([gas(seed, variety=0) for seed in range(6)]) < 0.03
    assert np.std([gas(seed, variety=1) for seed in range(6)]) > 0.06
