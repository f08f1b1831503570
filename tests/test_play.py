"""Playing by hand: keys become actions of any world, and what is played becomes a data set."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pygame
import pytest
import tiny_agent
from dream_model import write_model

from wm import worlds
from wm.core.episodes import EpisodeSet
from wm.core.errors import UserError
from wm.dream.engine import Dream, DreamRules, load_starts
from wm.gym.dream import DreamWorld
from wm.models.controller import save_controller
from wm.models.mdnrnn import load_mdnrnn
from wm.play import agent as agents
from wm.views import play, watch

worlds.register("pole", worlds.BY_ID, {"name": "pole", "gym": "CartPole-v1"})


@pytest.fixture
def agent(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny_agent.write(tmp_path / "agent")


@pytest.mark.parametrize(
    ("world", "keys", "act"),
    [
        ("car_racing", {"LEFT", "UP"}, [-1, 1, 0]),
        ("car_racing", {"RIGHT", "DOWN"}, [1, 0, 0.8]),
        ("take_cover", {"RIGHT"}, [1]),
        ("take_cover", {"LEFT", "RIGHT"}, [0]),
        ("tiny", {"LEFT", "UP"}, [-1, 1]),
        ("tiny", {"DOWN"}, [0, -1]),
        ("tiny", set(), [0, 0]),
        ("pole", {"DOWN"}, [0, 1]),  # a choice of two
        ("pole", {"UP", "DOWN"}, [1, 0]),
        ("pole", set(), [1, 0]),
    ],
)
def test_keys_are_an_action_of_any_world(world, keys, act):
    hands = play.Hands(worlds.get(world))
    assert hands.act(lambda key: key in keys).tolist() == pytest.approx(act)


def test_what_is_played_is_a_data_set_that_grows(tmp_path):
    world, folder = worlds.get("tiny"), tmp_path / "mine"
    acts = np.tile([[1.0, 0.0], [0.5, -0.5], [-1.0, 1.0]], (20, 1)).astype(np.float32)
    recorder, hand = play.Recorder(folder, world), iter(acts)
    frames = play.by_hand(world, "tiny", 5, 8, recorder, lambda: next(hand))
    shown = list(itertools.islice(frames, 20))  # two episodes of 8 steps, 3 steps of a third, one picture more
    frames.close()
    assert shown[0].shape[0] > 512 and not np.array_equal(shown[0], shown[7])
    assert recorder.close() == f"recorded 3 episodes, 19 steps, in {folder}"

    recorder, hand = play.Recorder(folder, world), iter(acts)
    frames = play.by_hand(world, "tiny", 9, 8, recorder, lambda: next(hand))
    list(itertools.islice(frames, 9))
    frames.close()
    recorder.close()

    kept = EpisodeSet(folder)
    kept.verify()
    assert [(one["seed"], one["length"], one["actor"]) for one in kept.episodes] == [
        (5, 8, "a person"), (6, 8, "a person"), (7, 3, "a person"), (9, 8, "a person"),
    ]  # fmt: skip
    episode, env = kept.read(1), world.make()
    obs, _ = env.reset(seed=6)
    for step in range(8):
        assert np.array_equal(episode["obs"][step], obs) and np.array_equal(episode["act"][step], acts[8 + step])
        obs, rew, *_ = env.step(acts[8 + step])
        assert episode["rew"][step] == np.float32(rew)
    assert np.isnan(episode["out"]).all() and not episode["end"].any()


def test_a_dream_in_a_window_is_played_until_it_is_closed_and_kept(agent):
    world, folder, steps = DreamWorld(agent), Path("recordings/dreamed"), itertools.count()

    def act() -> np.ndarray:
        if next(steps) == 6:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return np.ones(2, np.float32)

    recorder = play.Recorder(folder, world)
    frames = play.by_hand(world, "a dream", 3, 4, recorder, act)
    watch.show(frames, 100)
    frames.close()
    recorder.close()
    kept = EpisodeSet(folder)
    assert kept.world == "tiny_dream" and kept.steps == 6 and kept.episodes[0]["seed"] == 3
    assert kept.read(0)["obs"].std() > 0
    with pytest.raises(UserError, match="holds episodes of tiny_dream: record those of tiny under another name"):
        play.Recorder(folder, worlds.get("tiny"))


def test_other_things_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="holds no data set: record under another name"):
        play.Recorder(tmp_path, worlds.get("tiny"))


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("ends", ["threshold", "drawn"])
def test_a_film_of_a_dream_has_the_score_that_the_search_gives_that_dream(tmp_path, sampled, ends):
    """What C reads of z, and when the dream ends, are the agent's: seeds on which the other rules score otherwise."""
    write_model(tmp_path, "car_racing")
    agents.save(tmp_path / "train_vae", tmp_path / "train_mdn", tmp_path)
    world, memory = worlds.get("car_racing"), load_mdnrnn(tmp_path)
    spec = agents.controller_spec(world, memory, ("z", "h"))
    params = np.random.default_rng(3).normal(0, 2, spec.layout.size).astype(np.float32)
    save_controller(params, spec.layout, "car_racing", spec.inputs, tmp_path, sampled=sampled, ends=ends)
    rules = DreamRules(1.0, 30, ends=ends, reads="sample" if sampled else "mean")
    dream, seeds = Dream(memory, load_starts(tmp_path / "train_mdn"), world, spec, rules), [5, 10]
    expected = dream.scores(params[None], seeds)[0][0]
    for seed, score in zip(seeds, expected, strict=True):
        said = play.film(tmp_path, tmp_path, seed, tmp_path / "dream.mp4", 30, 1.0)
        assert said.endswith(f"score in the dream {score:.1f}")
