"""Any Gymnasium environment as a world: an entry of `worlds`, and every mistake of its environment a sentence."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from wm import params, worlds
from wm.core.errors import UserError
from wm.play import rollout
from wm.worlds.base import FRAME_SHAPE, symexp, symlog
from wm.worlds.by_id.actions import actions_of
from wm.worlds.by_id.world import GymnasiumWorld, is_picture

SPACES = {
    "box": spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 5.0]), dtype=np.float64),
    "unbounded": spaces.Box(-np.inf, np.inf, (2, 2), np.float32),
    "discrete": spaces.Discrete(4, start=-1),
    "multi": spaces.MultiDiscrete([2, 3]),
    "binary": spaces.MultiBinary(3),
}


@pytest.mark.parametrize("kind", SPACES)
def test_what_c_writes_is_an_action_for_arrays_and_tensors_alike(kind):
    space = SPACES[kind]
    actions = actions_of(space, "w")
    outs = np.random.default_rng(0).normal(0, 3, (50, actions.size)).astype(np.float32)
    acts = actions.squash(outs.copy())
    assert acts.dtype == np.float32 and acts.shape == outs.shape
    assert np.allclose(acts, actions.squash(torch.from_numpy(outs)).numpy(), atol=1e-6)
    assert all(space.contains(actions.decode(act)) for act in acts)
    assert (acts >= actions.low).all() and (acts <= actions.high).all()
    outs[3, 0] = np.nan
    assert np.isnan(actions.squash(outs.copy())[3]).any(), "a controller that failed has to be seen"
    policy = actions.explorer(np.random.default_rng(1))
    explored = np.stack([policy(np.zeros(FRAME_SHAPE, np.uint8)) for _ in range(200)])
    assert all(space.contains(actions.decode(act)) for act in explored)
    assert len(np.unique(explored, axis=0)) > 1
    again = actions.explorer(np.random.default_rng(1))
    assert np.array_equal(explored, [again(np.zeros(FRAME_SHAPE, np.uint8)) for _ in range(200)])


def test_the_actions_of_a_world_are_the_same_in_another_process():
    """As the estimate sends a world to one."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        for space in SPACES.values():
            actions = actions_of(space, "w")
            acts = actions.squash(np.random.default_rng(2).normal(0, 3, (5, actions.size)).astype(np.float32))
            there = process.map(actions.decode, acts)
            assert all(np.array_equal(act, actions.decode(own)) for act, own in zip(there, acts, strict=True))


@pytest.mark.parametrize("asked, limit", [(None, 250), (20, 20), (10_000, 250)])
def test_an_episode_is_as_long_as_both_limits_let_it(asked, limit):
    """The environment's own is 500 steps, two of which an action lasts."""
    assert GymnasiumWorld(name="w", gym="CartPole-v1", frame_skip=2, max_steps=asked).spec.max_steps == limit


def test_the_largest_output_is_the_choice_and_m_reads_it_as_one_hot():
    actions = actions_of(SPACES["multi"], "w")
    act = actions.squash(np.array([[0.1, 0.5, 3.0, -1.0, 2.0]], np.float32))
    assert act.tolist() == [[0, 1, 1, 0, 0]] and actions.decode(act[0]).tolist() == [1, 0]
    assert actions_of(SPACES["discrete"], "w").decode(np.array([0, 0, 1, 0], np.float32)) == 1


def test_actions_of_another_kind_are_a_sentence():
    with pytest.raises(UserError, match="expected Box, Discrete, MultiDiscrete or MultiBinary"):
        actions_of(spaces.Tuple([spaces.Discrete(2)]), "w")


def test_rewards_of_any_size_come_back():
    rews = torch.tensor([-200.0, -0.01, 0.0, 0.01, 1.0, 1e6], dtype=torch.float64)
    assert torch.allclose(symexp(symlog(rews)), rews) and symlog(rews).abs().max() < 15


class Fault(gymnasium.Env):
    """One step of sound play, then what `fault` names."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Box(0, 255, (40, 50, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, fault: str = "", render_mode: str | None = None):
        self.fault, self.render_mode, self.steps = fault, render_mode, 0
        if fault == "make":
            raise OSError("no display")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        if self.fault == "reset":
            raise RuntimeError("out of tracks")
        return self._frame(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        if self.steps > 1 and self.fault == "step":
            raise ValueError("a wheel fell off")
        print("chatter") if self.fault == "print" else None
        rew = float("nan") if self.steps > 1 and self.fault == "nan" else 0.5
        return self._frame(), rew, self.steps == 7 or self.fault == "once", False, {}

    def render(self):
        return self._frame()

    def _frame(self):
        frame = np.full((40, 50, 3), 10 * self.steps, np.uint8)
        if self.steps <= 1:
            return frame
        return {
            "float": frame.astype(np.float32), "rgba": np.repeat(frame[..., :1], 4, 2), "size": frame[:30],
            "grey": frame[..., 0],
        }.get(self.fault, frame)  # fmt: skip


gymnasium.register("Fault-v0", Fault)
gymnasium.register("Limited-v0", Fault, max_episode_steps=5)


def world(**options):
    return GymnasiumWorld(**{"name": "w", "gym": "Limited-v0", **options})


@pytest.mark.parametrize(
    "fault, sentence",
    {
        "make": "Limited-v0 cannot be made: OSError: no display",
        "reset": "the world w, at step 0 of the episode with seed 5: its reset raised RuntimeError: out of tracks",
        "step": "the world w, at step 2 of the episode with seed 5: its step raised ValueError: a wheel fell off",
        "float": r"seed 5: its picture is \(40, 50, 3\) float32",
        "rgba": "its picture has 4 channels",
        "size": r"its picture is \(30, 50, 3\), and was \(40, 50, 3\)",
        "nan": "the world w gave the reward nan at step 2 of the episode with seed 5",
    }.items(),
)
def test_a_mistake_of_the_environment_is_one_sentence_with_world_seed_and_step(fault, sentence):
    rollout.close_environments()
    with pytest.raises(UserError, match=sentence):
        found = world(kwargs={"fault": fault})
        rollout.play(found, rollout.ExplorerDriver(found, 1), [(0, 5)], 1)
    rollout.close_environments()


@pytest.mark.parametrize("fault, length", [("", 5), ("once", 1), ("grey", 5), ("print", 5)])
def test_what_is_no_mistake_is_played(fault, length):
    rollout.close_environments()
    found = world(kwargs={"fault": fault})
    played = rollout.play(found, rollout.ExplorerDriver(found, 2), [(0, 5), (0, 6), (0, 7)], 2)
    assert played.lengths.tolist() == [length] * 3 and np.allclose(played.scores, 0.5 * length)
    rollout.close_environments()


def test_an_entry_is_all_that_an_environment_needs():
    found = world(frame_skip=2, max_steps=3, crop=[0, 40, 10, 50])
    env = found.make()
    frame, _ = env.reset(seed=1)
    assert frame.shape == FRAME_SHAPE and frame.dtype == np.uint8
    *_, trunc, _ = env.step(np.array([1, 0, 0], np.float32))
    _, rew, end, trunc, _ = env.step(np.array([1, 0, 0], np.float32))
    assert rew == 1.0 and not end and not trunc
    *_, end, trunc, _ = env.step(np.array([1, 0, 0], np.float32))
    assert trunc, "the limit of the entry"
    assert found.spec.action_size == 3 and found.spec.fps == 10 and found.spec.solved is None


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"gym": "Nothing-v9"}, r"worlds.w.gym is 'Nothing-v9', which Gymnasium does not make"),
        ({"module": "no_such_package"}, "no_such_package is not installed: run `pip install no_such_package`"),
        ({"gym": "Fault-v0"}, "Fault-v0 never ends an episode by itself: set worlds.w.max_steps"),
        ({"crop": [0, 90, 0, 50]}, r"crop is \[0, 90, 0, 50\] .* the picture is 40 high and 50 wide"),
    ],
)
def test_a_mistake_in_an_entry_is_one_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence):
        world(**options).make().reset(seed=0)


def test_pictures_are_told_from_numbers_and_codes():
    assert is_picture(spaces.Box(0, 255, (210, 160, 3), np.uint8)) and is_picture(
        spaces.Box(0, 255, (84, 84), np.uint8)
    )
    assert not is_picture(spaces.Box(0, 255, (7, 7, 3), np.uint8)) and not is_picture(
        spaces.Box(-1, 1, (8,), np.float32)
    )


@pytest.mark.parametrize("gym, size", [("LunarLander-v3", 4), ("CartPole-v1", 2)])
def test_gymnasiums_own_environments_are_the_same_episode_for_the_same_seed(gym, size):
    found = GymnasiumWorld(name="w", gym=gym)
    assert found.spec.action_size == size
    runs = []
    for _ in range(2):
        env = found.make()
        frames, policy = [env.reset(seed=3)[0]], found.explorer(np.random.default_rng(0))
        for _ in range(12):
            frame, rew, end, trunc, _ = env.step(policy(frames[-1]))
            frames += [frame, np.float64(rew)]
            if end or trunc:
                break
        runs.append(b"".join(part.tobytes() for part in frames))
        env.close()
    assert runs[0] == runs[1]


def test_an_agent_is_disturbed_in_the_share_of_steps_that_noise_says():
    for kind in ("discrete", "binary"):
        actions, rng = actions_of(SPACES[kind], "w"), np.random.default_rng(0)
        act = np.tile(actions.squash(rng.normal(size=(1, actions.size)).astype(np.float32)), (4000, 1))
        other = actions.disturb(act, 0.2 * rng.normal(size=act.shape).astype(np.float32), 0.2)
        changed = (other != act).any(1).mean() if kind == "discrete" else (other != act).mean()
        assert 0.1 < changed < 0.23, "of the choices taken anew some are the same"
        assert all(SPACES[kind].contains(actions.decode(row)) for row in other[:50])


def test_params_takes_an_id_or_a_class_and_no_mixture(tmp_path):
    text = (Path(__file__).parent.parent / "params.yaml").read_text()
    own = "  car_racing:\n    own: "
    (tmp_path / "params.yaml").write_text(text.replace(own, "  pole: {gym: CartPole-v1, solved: 200}\n" + own, 1))
    params.load(tmp_path / "params.yaml")
    assert worlds.get("pole").spec.references == {"solved": 200.0}
    for more, sentence in (
        ("gym: X-v0\n    ", "worlds.car_racing names a world by"),
        ("solved: 9\n    ", "remove solved"),
    ):
        (tmp_path / "params.yaml").write_text(text.replace(own, own.replace("own", f"{more}own"), 1))
        with pytest.raises(UserError, match=sentence):
            params.load(tmp_path / "params.yaml")
