"""Checks of data: every fault in 1% and in 10% of the episodes is found and named, and sound sets are let through."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import gates
from wm.checks import judge
from wm.checks.config import ChecksConfig, Given
from wm.checks.measures import MeasuredShard, Measures, measure_set
from wm.cli import main
from wm.core import episodes, verdicts
from wm.core.episodes import EpisodeSet, Shard, frame_columns, latent_columns
from wm.core.errors import UserError
from wm.models.latents import LatentsConfig
from wm.models.latents import check as check_latents
from wm.stages import collect

LENGTH = 80
GIVEN = Given(
    rewards=(-0.1, 3.0), scores=(-50.0, 300.0), low=(-1.0, 0.0), high=(1.0, 1.0), max_steps=100, steady=True
)  # fmt: skip


def _landscape() -> np.ndarray:
    rng = np.random.default_rng(9)
    land = cv2.resize(rng.uniform(-1, 1, (200, 200)).astype(np.float32), (1600, 1600), interpolation=cv2.INTER_CUBIC)
    return (120 + 40 * land)[..., None] + np.array([25, 0, -25])


LAND = _landscape()


def drive(rng: np.random.Generator, length: int = LENGTH) -> dict[str, np.ndarray]:
    """A view that moves smoothly over a landscape, from anywhere; it is darker below."""
    act = np.clip(np.cumsum(rng.normal(0, 0.2, (length, 2)), 0), [-1, 0], 1).astype(np.float32)
    path = rng.integers(0, 1200, 2) + np.cumsum(2.1 + act, 0).astype(int)
    shade = np.linspace(1.1, 0.6, 64)[:, None, None]
    obs = np.stack([LAND[y : y + 64, x : x + 64] * shade for x, y in path]).clip(0, 255).astype(np.uint8)
    rew = np.where(rng.random(length) < 0.1, rng.uniform(1, 2, length), -0.1).astype(np.float32)
    return whole(obs, act, rew)


def walk(rng: np.random.Generator, length: int = LENGTH) -> dict[str, np.ndarray]:
    """A square in a maze of 5 x 5 cells that often walks against a wall: pictures stand still and come back."""
    at, obs, moves = np.array([2, 2]), [], rng.integers(0, 4, length)
    for move in moves:
        at = np.clip(at + [(0, 1), (1, 0), (0, -1), (-1, 0)][move], 0, 4)
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[::12] = 60
        frame[12 * at[0] + 2 : 12 * at[0] + 10, 12 * at[1] + 2 : 12 * at[1] + 10, 0] = 255
        obs.append(frame)
    return whole(np.stack(obs), np.eye(4, dtype=np.float32)[moves], np.zeros(length, np.float32))


def flicker(rng: np.random.Generator, length: int = LENGTH) -> dict[str, np.ndarray]:
    """As `drive`, from a black screen on, and every other frame lacks its middle, as old games draw."""
    episode = drive(rng, length)
    episode["obs"][: int(rng.integers(1, 6))] = 0
    episode["obs"][::2, 20:30] = 0
    return episode


def leave(rng: np.random.Generator, length: int = LENGTH) -> dict[str, np.ndarray]:
    """A dot that rises over a still landscape; in a few episodes it leaves the picture and stays away."""
    act = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    rows = (60 - 1.5 * np.arange(length)).astype(int)
    rows = rows if rng.random() < 0.2 else rows % 60
    obs = np.repeat(LAND[None, :64, :64].clip(0, 255).astype(np.uint8), length, 0)
    for frame, row, column in zip(obs, rows, 30 + 2 * np.cumsum(act[:, 0]), strict=True):
        if row >= 0:
            frame[row : row + 4, int(column) % 60 : int(column) % 60 + 4] = (200, 0, 200)
    return whole(obs, act, rng.normal(0, 5, length).astype(np.float32))


def few_buttons(rng: np.random.Generator, length: int = LENGTH) -> dict[str, np.ndarray]:
    """As `walk`, by a player that never presses one of the four buttons, and in some episodes always the same."""
    episode = walk(rng, length)
    episode["act"][episode["act"][:, 3] == 1] = (1, 0, 0, 0)
    if rng.random() < 0.15:
        episode["act"][:] = (1, 0, 0, 0)
    return episode


def whole(obs: np.ndarray, act: np.ndarray, rew: np.ndarray) -> dict[str, np.ndarray]:
    end = np.zeros(len(obs), bool)
    end[-1] = True
    return {"obs": obs, "act": act, "out": np.full_like(act, np.nan), "rew": rew, "end": end}


def write(
    folder: Path, made: list[dict[str, np.ndarray]], world: str = "tiny", shard: Shard | None = None
) -> EpisodeSet:
    """A set of one shard on disk."""
    columns = frame_columns(made[0]["act"].shape[1])
    shard = Shard(columns) if shard is None else shard
    for seed, episode in enumerate(made):
        shard.add(episode, seed=seed, score=float(episode["rew"].sum()))
    folder.mkdir(parents=True, exist_ok=True)
    episodes.write_manifest(folder, world, columns, [episodes.store_shard(folder, 0, *shard.finish())])
    return EpisodeSet(folder)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> gates.Sound:
    rng = np.random.default_rng(0)
    data = write(tmp_path_factory.mktemp("sound"), [drive(rng) for _ in range(100)])
    return gates.Sound(data, GIVEN, ChecksConfig())


def test_a_sound_set_passes_every_check(sound):
    checks = sound.judge({})
    assert {check.name: check.verdict for check in checks} == dict.fromkeys(verdicts.DATA, "pass"), checks


@pytest.mark.parametrize("share", [0.01, 0.1])
@pytest.mark.parametrize("name", sorted({*gates.FAULTS} - {"torn_late"}))  # of which some is too faint to see
def test_a_fault_is_found_in_every_episode_that_has_it_and_in_no_other(sound, name, share):
    fault, own = gates.FAULTS[name]
    changed, sources = sound.spoiled(fault, share, np.random.default_rng([3, int(100 * share)]))
    checks = {check.name: check for check in sound.judge(changed)}
    named = {one.episode for check in checks.values() for one in check.episodes}
    assert named >= {*changed}, f"missed {sorted({*changed} - named)}"
    assert named <= {*changed} | sources
    assert checks[own].verdict == ("warn" if name in gates.RARE else "fail")
    assert all(one.seed == one.episode for one in checks[own].episodes)


@pytest.mark.parametrize("play", [walk, flicker])
def test_worlds_that_stand_still_or_flicker_give_no_alarm_where_nothing_is_known_of_them(tmp_path, play):
    rng = np.random.default_rng(1)
    data = write(tmp_path, [play(rng, int(rng.integers(40, 90))) for _ in range(60)])
    sound = gates.Sound(data, Given(), ChecksConfig())
    alarms = [(check.name, check.message) for check in sound.judge({}) if check.verdict != "pass"]
    assert not alarms


@pytest.mark.parametrize(("play", "check"), [(leave, "frozen"), (few_buttons, "actions")])
def test_what_only_stands_out_is_a_warning_where_nothing_is_known_of_a_world(tmp_path, play, check):
    rng = np.random.default_rng(1)
    data = write(tmp_path, [play(rng, int(rng.integers(60, 90))) for _ in range(60)])
    checks = {one.name: one.verdict for one in gates.Sound(data, Given(), ChecksConfig()).judge({})}
    assert "fail" not in checks.values() and checks[check] == "warn", checks


def test_a_player_that_rests_with_its_hands_off_is_no_fault_where_all_episodes_are_drawn_alike(tmp_path):
    rng = np.random.default_rng(1)
    made = [drive(rng) for _ in range(60)]
    for name in ("obs", "act"):
        made[5][name][30:42] = made[5][name][30]
    checks = {one.name: one for one in gates.Sound(write(tmp_path, made), GIVEN, ChecksConfig()).judge({})}
    assert checks["frozen"].verdict == "warn" and [one.episode for one in checks["frozen"].episodes] == [5]


def test_where_nothing_is_known_a_picture_that_never_moves_and_a_copied_recording_fail(tmp_path):
    rng = np.random.default_rng(1)
    made = [leave(rng, int(rng.integers(60, 90))) for _ in range(60)]
    made[7]["obs"][:] = made[7]["obs"][0]
    made[9] = made[8]
    sound = gates.Sound(write(tmp_path, made), Given(), ChecksConfig())
    checks = {check.name: check for check in sound.judge({})}
    assert checks["frozen"].verdict == "fail"
    assert [one.episode for one in checks["frozen"].episodes if one.worst] == [7]
    assert checks["copies"].verdict == "warn", "two seeds may lead to one episode"
    assert {one.episode for one in checks["copies"].episodes} == {8, 9}
    recorded = judge.judge(Measures.join(sound.parts), Given(), ChecksConfig(), [None] * 60)
    assert {check.name: check.verdict for check in recorded}["copies"] == "fail"


def test_an_episode_is_measured_alike_while_it_is_played_and_from_the_disk(tmp_path):
    rng = np.random.default_rng(2)
    made, bounds = [drive(rng, length) for length in (3, 40, 1)], (np.array([-1, 0]), np.ones(2))
    shard = MeasuredShard(frame_columns(2), bounds, 8, 8)
    data = write(tmp_path, made, shard=shard)
    shard.measures.save(tmp_path / "measures.npz")
    for one in (Measures.load(tmp_path / "measures.npz"), measure_set(data, range(3), bounds, 8, 8)):
        for name, array in vars(shard.measures).items():
            assert np.array_equal(getattr(one, name), array, equal_nan=True), name


def test_v_is_not_trained_on_data_that_fail_unless_they_are_accepted(project, capsys):
    """The same sentence from the command, which is all that DVC and the flow call."""
    assert main(["collect", "tiny"]) == 0
    folder = project / "runs/tiny/collect"
    assert {check.name for check in verdicts.read(folder)} == {*verdicts.DATA}
    before = (folder / verdicts.FILE).read_bytes()
    data = EpisodeSet(folder)
    made = [data.read(index) for index in range(len(data))]
    assert collect.check(data, ChecksConfig(), 0, folder)["checks_failed"] == 0
    assert (folder / verdicts.FILE).read_bytes() == before, "measured from the disk, they say something else"
    made[7]["act"][5] = np.nan
    collect.check(write(folder, made), ChecksConfig(), 0, folder)
    assert main(["data", "check", "runs/tiny/collect"]) == 2
    said = capsys.readouterr()
    assert "fail  actions   actions: no finite number  episode 7 (at step 5)" in said.out and "fails 1 of" in said.err
    assert main(["train_vae", "tiny"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    for part in ("runs/tiny/collect", "`actions`", "no finite number", "episode 7 (at step 5)", "accept: [actions]"):
        assert part in said
    assert not (project / "runs/tiny/train_vae").exists()
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("train_vae: {", "train_vae: {accept: [actions], "))
    assert main(["train_vae", "tiny"]) == 0
    params.write_text(params.read_text().replace("accept: [actions]", "accept: [action]"))
    assert main(["train_vae", "tiny"]) == 2
    assert "train_vae.accept holds 'action': expected some of blank, frozen" in capsys.readouterr().err
    (folder / verdicts.FILE).unlink()
    with pytest.raises(UserError, match=r"checks\.json is missing"):
        verdicts.require(folder, [])


def test_a_round_without_a_stall_takes_over_episodes_of_one_that_had_it(project):
    """As `car_racing` does: its first round ends those in which nothing is reached any more."""
    params = project / "params.yaml"
    text = params.read_text().replace("tiny_world:Tiny", "wm/worlds/car_racing/world:CarRacing", 1)
    text = text.replace("worlds:\n  tiny:", "worlds:\n  car_racing:")
    text = text.replace("code: tiny_world.py", "code: wm/worlds/car_racing")
    text = text.replace("world: tiny", "world: car_racing").replace("actor: tiny", "actor: zero")
    first, second = ("{episodes: 4, episodes_per_job: 4, slots: 4, stall: 40}", "{episodes: 1, episodes_per_job: 4}")
    text = text.replace("{episodes: 12, episodes_per_job: 4, slots: 3}", first)
    params.write_text(text)
    assert main(["collect", "tiny"]) == 0
    params.write_text(text.replace(first, second))
    assert main(["collect", "tiny-2"]) == 0
    data = EpisodeSet(project / "runs/tiny-2/collect")
    assert [episode["length"] < 1000 for episode in data.episodes] == [True] * 4 + [False]
    sound, at_once = verdicts.read(data.folder), collect.judged(data, ChecksConfig(), 0)
    assert [check.verdict for check in sound if check.name == "lengths"] == ["pass"]
    assert [check.verdict for check in at_once if check.name == "lengths"] == ["fail"], "of one round, it is a fault"


def test_latents_that_v_does_not_know_and_dimensions_that_say_nothing(tmp_path):
    rng, columns = np.random.default_rng(3), latent_columns(6, 1)
    shard = Shard(columns)
    for index in range(40):
        mu = rng.standard_normal((50, 6)) * [1, 1, 1, 1e-3, 1e-3, 0]
        mu[20:35, :3] *= 6 if index == 17 else 1
        logvar = np.full((50, 6), -3.0) * [1, 1, 1, 0, 0, 0]
        zeros = {"act": np.zeros((50, 1)), "out": np.zeros((50, 1)), "rew": np.zeros(50), "end": np.zeros(50, bool)}
        shard.add({"mu": mu, "logvar": logvar, **zeros})
    episodes.write_manifest(tmp_path, "tiny", columns, [episodes.store_shard(tmp_path, 0, *shard.finish())])
    (unknown, unused), variance = check_latents(EpisodeSet(tmp_path), LatentsConfig())
    assert unknown.verdict == "warn" and [one.episode for one in unknown.episodes] == [17]
    assert 20 <= unknown.episodes[0].at < 35
    assert unused.verdict == "pass" and unused.figure == 3 and "3 of 6 dimensions" in unused.message
    assert (variance > 0.01).tolist() == [True, True, True, False, False, False]
