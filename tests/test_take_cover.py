"""TakeCover: the contract, episodes that repeat bit by bit, engines that do not outlive or hang us."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import gymnasium
import numpy as np
import psutil
import pytest
from gymnasium.utils.env_checker import check_env

from wm import worlds
from wm.core.errors import UserError
from wm.worlds.contract import check_world
from wm.worlds.take_cover import doom, world
from wm.worlds.take_cover.world import TakeCoverEnv, buttons

ROOT = Path(__file__).parents[1]


@pytest.fixture
def env():
    """An environment, closed at the end."""
    made = TakeCoverEnv()
    yield made
    made.close()


def test_without_the_package_that_plays_it_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    assert worlds.get("take_cover").spec.max_steps == 2100, "its dream needs no Doom"
    with pytest.raises(UserError, match=r"take_cover is played with the package vizdoom .*world-models\[doom\]"):
        TakeCoverEnv().reset(seed=0)


def test_contract():
    check_world(worlds.get("take_cover"), seed=8)  # a temper that moves: one of 13 runs to a wall and stays


def test_gymnasium_checker(env):
    assert env.render() is None
    made = gymnasium.make("wm.gym:wm/TakeCover-v0", render_mode="rgb_array")
    check_env(made.unwrapped)
    obs, _ = made.reset(seed=0)
    assert made.render().shape == (120, 160, 3)
    assert np.array_equal(obs, cv2.resize(made.render()[:100], (64, 64), interpolation=cv2.INTER_AREA)), "cropped"
    made.close()


def test_the_scenario_is_vizdooms_at_skill_4():
    game = world.configure("160x120")
    assert game.get_doom_skill() == 4 and Path(game.get_doom_scenario_path()).name == "take_cover.wad"


def digest(env: gymnasium.Env, seed: int, hold: int = 10) -> str:
    """A digest of every frame of the random policy's whole episode."""
    policy = worlds.get("take_cover").explorer(np.random.default_rng(seed), hold=hold)
    obs, _ = env.reset(seed=seed)
    sha, over = hashlib.sha256(obs.tobytes()), False
    while not over:
        obs, _, end, trunc, _ = env.step(policy(obs))
        sha.update(obs.tobytes())
        over = end or trunc
    return sha.hexdigest()


PLAY_ONE = "import sys; from test_take_cover import *; print(digest(TakeCoverEnv(), int(sys.argv[1])))"


def test_episode_is_a_function_of_its_seed_in_any_process(env):
    seeds = (3, 2**40, 0)
    digests = [digest(env, seed) for seed in seeds]
    assert len(set(digests)) == len(seeds)
    assert [digest(env, seed) for seed in reversed(seeds)] == digests[::-1]  # after other episodes
    assert printed(PLAY_ONE, str(seeds[1])) == digests[1]


def test_the_game_is_the_same_at_every_resolution(env):
    fine = TakeCoverEnv("320x240")
    policy = worlds.get("take_cover").explorer(np.random.default_rng(1))
    frames, length = [env.reset(seed=5)[0], fine.reset(seed=5)[0]], 0
    assert np.abs(frames[0].astype(int) - frames[1]).mean() < 10
    over = False
    while not over:
        act = policy(frames[0])
        (_, _, *ends, _), (_, _, *fine_ends, _) = env.step(act), fine.step(act)
        assert ends == fine_ends
        over, length = any(ends), length + 1
    assert 50 < length < 2100
    fine.close()


def test_who_lives_to_the_last_tic_is_truncated_there(env, monkeypatch):
    monkeypatch.setattr(world, "MAX_TICS", 30)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(30)]
    assert ends == [(False, False)] * 29 + [(False, True)]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))


def test_reset_without_a_seed_goes_on_from_the_last_one(env):
    def three() -> list[bytes]:
        frames = [env.reset(seed=1)[0]]
        for _ in range(2):
            env.reset()
            frames += [env.step(np.zeros(1, np.float32))[0] for _ in range(90)][-1:]
        return [frame.tobytes() for frame in frames]

    first = three()
    assert first == three()
    assert len(set(first)) == 3


def test_thirds_of_the_action_are_left_stay_and_right():
    assert buttons(np.float32([-1])) == buttons(np.float32([-0.34])) == [1, 0]
    assert buttons(np.float32([-0.33])) == buttons(np.float32([0])) == buttons(np.float32([0.33])) == [0, 0]
    assert buttons(np.float32([0.34])) == buttons(np.float32([1])) == [0, 1]


def test_left_moves_the_view_against_right(env):
    def seen(act: float) -> np.ndarray:
        env.reset(seed=9)
        return [env.step(np.float32([act]))[0].astype(int) for _ in range(12)][-1]

    left, stay, right = seen(-1), seen(0), seen(1)

    # The world moves the other way: on a step to the left, what was at x is found further right.
    def shift(view: np.ndarray) -> int:
        return min(range(-8, 9), key=lambda s: np.abs(view[20:45, 10:54] - stay[20:45, 10 - s : 54 - s]).mean())

    assert shift(left) > 0 > shift(right)


@pytest.mark.parametrize("bad", [np.float32([np.nan]), np.float32([np.inf]), np.zeros(2), np.float32(0)])
def test_impossible_actions_are_refused(env, bad):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected one finite number"):
        env.step(bad)


def test_step_needs_reset(env):
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))
    env.reset(seed=0)
    env.close()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))


@pytest.mark.parametrize("hold", [1, 10])
def test_random_actions_are_uniform_and_held(hold):
    policy = worlds.get("take_cover").explorer(np.random.default_rng(0), hold=hold, lean=0.0)
    acts = np.array([policy(None)[0] for _ in range(20_000)])
    starts = np.flatnonzero(np.diff(acts, prepend=2))
    lengths = np.diff(starts)
    assert set(lengths) == set(range(1, hold + 1))
    assert lengths.mean() == pytest.approx((hold + 1) / 2, rel=0.05)
    thirds = np.histogram(acts[starts], 3, (-1, 1))[0] / len(starts)
    assert thirds == pytest.approx(np.full(3, 1 / 3), abs=0.03)


def test_some_episodes_are_restless_and_some_stay_at_a_wall():
    means, longest = [], []
    for seed in range(100):
        policy = worlds.get("take_cover").explorer(np.random.default_rng(seed))
        acts = np.array([policy(None)[0] for _ in range(300)])
        assert np.abs(acts).max() <= 1
        means.append(acts.mean())
        longest.append(np.diff(np.flatnonzero(np.diff(np.sign(acts), prepend=9, append=9))).max())
    assert min(means) < -0.5 and max(means) > 0.5
    assert min(longest) < 30 and sum(np.array(longest) > 250) >= 10


@pytest.mark.parametrize("hold", [0, 2.5])
def test_impossible_hold_is_refused(hold):
    with pytest.raises(ValueError, match=re.escape(f"hold is {hold}")):
        worlds.get("take_cover").explorer(np.random.default_rng(0), hold=hold)


def test_vizdoom_is_imported_only_when_played():
    make = "import sys; from wm import worlds; worlds.get('take_cover').make()"
    assert printed(f"{make}; print('vizdoom' in sys.modules)") == "False"


# Deaths. What hangs here cannot be interrupted, so such tests run in a process of their own.


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


def printed(code: str, *args: str) -> str:
    """What another Python prints; it may import this file."""
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, timeout=30, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def test_a_dead_engine_is_one_sentence_and_the_next_reset_works(env):
    expected = digest(env, 4)
    env.reset(seed=4)
    pid = env._game.pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(doom.GameDied, match=rf"^the Doom engine \(process {pid}\) died [^\n]*$"):
        for _ in range(3):
            env.step(np.zeros(1, np.float32))
    assert digest(env, 4) == expected


LOCKED = """
import ctypes
from test_take_cover import *
env = TakeCoverEnv()
env.reset(seed=0)
guard, pid = env._game._guard, env._game.pid
for queue in guard._queues:
    lock = ctypes.addressof(ctypes.c_char.from_buffer(queue, guard._MUTEX))
    assert ctypes.CDLL(None).pthread_mutex_trylock(ctypes.c_void_p(lock)) == 0
    owner = ctypes.c_uint32.from_buffer(queue, guard._OWNER)
    assert owner.value == os.getpid()  # the lock is where we look for it
    owner.value = pid
os.kill(pid, signal.SIGKILL)
try:
    env.step(np.zeros(1, np.float32))
except doom.GameDied:
    print("sentence")
env.close()
"""


def test_an_engine_that_dies_with_its_queues_locked_hangs_nobody():
    assert printed(LOCKED) == "sentence"


STOPPED = """
from test_take_cover import *
doom._Guard.PATIENCE_S = 1.2
env = TakeCoverEnv()
env.reset(seed=0)
time.sleep(2)  # idle is not stuck
env.step(np.zeros(1, np.float32))
os.kill(env._game.pid, signal.SIGSTOP)
try:
    env.step(np.zeros(1, np.float32))
except doom.GameDied:
    print("sentence")
"""


def test_an_engine_that_stops_answering_is_killed():
    assert printed(STOPPED) == "sentence"


def test_a_folder_without_programs_is_one_sentence(env, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="set TMPDIR to a folder that does"):
        env.reset(seed=0)
    monkeypatch.undo()
    env.reset(seed=0)


def test_a_forgotten_environment_takes_its_engine_along():
    env = TakeCoverEnv()
    env.reset(seed=0)
    engine = psutil.Process(env._game.pid)
    del env
    assert gone([engine])


PLAYER = """
from test_take_cover import *
envs = [TakeCoverEnv(), TakeCoverEnv()]
for env in envs:
    env.reset(seed=0)
print(*(env._game.pid for env in envs), flush=True)
if sys.argv[1] == "error":
    raise SystemExit("an error")
if sys.argv[1] == "end":
    sys.exit()
while True:
    for env in envs:
        _, _, end, trunc, _ = env.step(np.zeros(1, np.float32))
        if end or trunc:
            env.reset()
"""


@pytest.mark.parametrize("death", ["SIGKILL", "SIGTERM", "SIGINT", "error", "end"])
def test_nothing_is_left_behind(death, tmp_path):
    scratch, here = tmp_path / "tmp", tmp_path / "here"
    scratch.mkdir()
    here.mkdir()
    shared = set(os.listdir("/dev/shm"))
    player = subprocess.Popen(
        [sys.executable, "-c", PLAYER, death],
        env={**ENVIRONMENT, "TMPDIR": str(scratch)},
        cwd=here,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    engines = [psutil.Process(int(pid)) for pid in player.stdout.readline().split()]
    assert len(engines) == 2
    if death.startswith("SIG"):
        time.sleep(0.1)
        kill = os.killpg if death == "SIGINT" else os.kill  # a terminal sends Ctrl-C to the engines too
        kill(player.pid, getattr(signal, death))
    _, errors = player.communicate(timeout=20)
    assert ("KeyboardInterrupt" in errors) == (death == "SIGINT"), errors
    assert gone(engines)
    left = [name for name in set(os.listdir("/dev/shm")) - shared if name.startswith("ViZDoom")]
    assert not (left or list(scratch.iterdir()) or list(here.iterdir()))


@pytest.mark.parametrize("death", ["SIGKILL", "SIGINT"])
def test_a_stage_that_is_killed_takes_workers_and_engines_along(death, tmp_path):
    shared = set(os.listdir("/dev/shm"))
    params = (ROOT / "params.yaml").read_text()  # whose 3,000 episodes ask for 20 GB of free disk
    (tmp_path / "params.yaml").write_text(params.replace("episodes: 3000", "episodes: 300"))
    shutil.copytree(ROOT / "runs/zero", tmp_path / "runs/zero")
    stage = subprocess.Popen(
        [sys.executable, "-m", "wm", "collect", "take_cover-1"],
        env={**ENVIRONMENT, "WM_TRACKING": "off", "WM_WORKERS": "2"},
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        family, games, end = [], 0, time.monotonic() + 300
        while games < 16 and time.monotonic() < end:
            assert stage.poll() is None, "it has ended by itself"
            time.sleep(0.1)
            family = psutil.Process(stage.pid).children(recursive=True)
            games = sum(map(is_game, family))
        assert games == 16, "two workers with eight games each"
        time.sleep(1)  # the last one is playing by now
        kill = os.killpg if death == "SIGINT" else os.kill
        kill(stage.pid, getattr(signal, death))
        assert gone(family, seconds=20)
        assert stage.wait(timeout=20) not in (0, None)
        assert not (tmp_path / "runs/take_cover-1/collect").exists()
        assert not [name for name in set(os.listdir("/dev/shm")) - shared if name.startswith("ViZDoom")]
    finally:
        stage.kill()
        stage.wait()


def is_game(process: psutil.Process) -> bool:
    try:
        return process.name() == "vizdoom"
    except psutil.NoSuchProcess:
        return False


def gone(processes: list[psutil.Process], seconds: float = 5) -> bool:
    """Whether all have ended (a zombie has) in time."""

    def alive(process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    end = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(alive, processes))
