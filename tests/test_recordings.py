"""Recordings instead of an environment: what is sound becomes data and an agent, what is not is refused by name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny_world
from gymnasium import spaces

from wm import worlds
from wm.cli import main
from wm.core.episodes import EpisodeSet
from wm.core.errors import UserError
from wm.records import gitfiles
from wm.search import recorded
from wm.worlds.by_id.actions import actions_of
from wm.worlds.recordings import importing, sources
from wm.worlds.recordings.world import describe, space_of


def episode(number: int, steps: int = 24) -> dict[str, np.ndarray]:
    """A bar that steps left or right; it is paid to be in the middle."""
    rng = np.random.default_rng(number)
    at = np.cumsum(rng.choice([-3, 3], steps + 1)).clip(-28, 28) + 32
    obs = np.zeros((steps + 1, 48, 64, 3), np.uint8)
    for step, column in enumerate(at):
        obs[step, :, column - 2 : column + 2] = 255
    return {
        "obs": obs,
        "act": (np.diff(at) > 0).astype(np.int64),
        "rew": 1 - np.abs(at[1:] - 32) / 32,
        "end": np.bool_(number % 2),
    }


def write(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    for number in range(count):
        np.savez_compressed(folder / f"episode-{number:02d}.npz", **episode(number, 20 + number))
    return folder


@pytest.fixture
def files(project) -> Path:
    return write(project / "files")


def test_a_folder_becomes_a_data_set_with_the_same_numbers(files, capsys):
    assert main(["data", "import", "line", "files"]) == 0
    said = capsys.readouterr().out
    assert "data/line: 12 episodes, 306 steps" in said and "line: {recordings: data/line}" in said
    assert main(["data", "check", "data/line"]) == 2  # nobody has pasted the entry yet
    assert "data/line is of the world 'line', which is not in `worlds`" in capsys.readouterr().err
    data = EpisodeSet(Path("data/line"))
    data.verify()
    for number in (0, 7, 11):
        made, kept = episode(number, 20 + number), data.read(number)
        assert np.allclose(kept["rew"], made["rew"]) and kept["end"].sum() == kept["end"][-1] == number % 2
        assert np.array_equal(kept["act"].argmax(1), made["act"]) and kept["act"].sum() == len(kept["act"])
        assert kept["obs"].shape == (20 + number, 64, 64, 3) and np.isnan(kept["out"]).all()
        assert np.abs(kept["obs"].mean((1, 3)) - made["obs"][:-1].mean((1, 3))).max() < 1, (
            "columns stay where they were"
        )
    assert main(["data", "import", "line", "files"]) == 2 and "data/line is there" in capsys.readouterr().err


def damage(path: Path, fault: str) -> None:
    made = episode(3)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-400])
        return
    if fault == "no zip":
        path.write_bytes(b"")
        return
    changes = {
        "no rew": lambda: made.pop("rew"),
        "float frames": lambda: made.update(obs=made["obs"] / 255),
        "frames of another size": lambda: made.update(obs=made["obs"][:, :40]),
        "rgba": lambda: made.update(obs=np.repeat(made["obs"][..., :1], 4, 3)),
        "frames missing": lambda: made.update(obs=made["obs"][:-3]),
        "actions missing": lambda: made.update(act=made["act"][:-1]),
        "a nan": lambda: made["rew"].__setitem__(5, np.nan),
        "other actions": lambda: made.update(act=made["act"].astype(np.float32)),
        "a negative choice": lambda: made["act"].__setitem__(5, -1),
        "an end inside": lambda: made.update(end=np.arange(24) == 4),
        "objects": lambda: made.update(act=np.array([{}] * 24)),
    }
    changes[fault]()
    np.savez_compressed(path, **made)


REFUSED = {
    "truncated": "is no whole .npz file",
    "no zip": "is no whole .npz file",
    "no rew": "has no array rew",
    "float frames": "obs is float64 (25, 48, 64, 3), and has to be uint8",
    "frames of another size": "its frames are (40, 64), and those before are (48, 64)",
    "rgba": "obs is uint8 (25, 48, 64, 4), and has to be uint8 [T, height, width, 3]",
    "frames missing": "obs has 22 frames and rew 24 steps",
    "actions missing": "act has 23 steps and rew 24",
    "a nan": "rew at step 5 is nan, and has to be finite",
    "other actions": "its actions are floating-point numbers [T], and those before are whole numbers [T]",
    "a negative choice": "an action is -1",
    "an end inside": "end is true at step 4",
    "objects": "is no whole .npz file",
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_bad_file_is_refused_by_name_before_anything_is_written(files, fault, capsys):
    damage(files / "episode-10.npz", fault)
    assert main(["data", "import", "line", "files"]) == 2
    said = capsys.readouterr().err
    assert "error: files/episode-10.npz" in said and REFUSED[fault] in said, said
    assert not Path("data").exists()


@pytest.mark.parametrize(
    "source, sentence",
    [
        ("nowhere/at-all-v0", "nowhere/at-all-v0 is no folder here"),
        ("params.yaml", "params.yaml is a file"),
        ("runs", "runs holds no .npz file"),
    ],
)
def test_a_source_that_is_none_is_a_sentence(project, source, sentence, capsys):
    assert main(["data", "import", "line", source]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32)),
        spaces.Discrete(4, start=-1),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
    ],
)
def test_an_action_space_goes_through_json_and_actions_come_back(space):
    space.seed(0)
    again = space_of(json.loads(json.dumps(describe(space))))
    assert again == space
    actions, taken = actions_of(space, "w"), [space.sample() for _ in range(20)]
    acts = actions.encode(np.array(taken))
    assert acts.dtype == np.float32 and acts.shape == (20, actions.size)
    assert all(np.allclose(actions.decode(act), one) for act, one in zip(acts, taken, strict=True))


def test_what_actions_have_in_common_is_the_action_space():
    seen = sources.CommonActions()
    seen.add("a", np.array([[0.5, -3.0]])), seen.add("b", np.array([[0.1, 2.0]]))
    space = seen.space()
    assert space.low.tolist() == [-1, -3] and space.high.tolist() == [1, 2]


@pytest.mark.parametrize("wrong", [-1, 300])
def test_the_choice_that_is_none_is_named(wrong):
    with pytest.raises(UserError, match=f"b: an action is {wrong}: choices are numbered from 0 to 255 at most"):
        sources.CommonActions().add("b", np.array([0, 2, wrong]))


ENTRIES = """\
models:
  line: {experiment: tiny, world: line, code: data/line, after: zero, actor: zero, seed: 3}
agents:
  line: {experiment: tiny, world: line, code: data/line, model: line, after: zero, tau: 1.0, seed: 3}
"""
IN_A_DREAM = "evolve: {dream: true, select: dream, "


def params(dream: str = IN_A_DREAM) -> None:
    text = tiny_world.PARAMS.replace("tiny:\n    own: tiny_world:Tiny", "line: {recordings: data/line, solved: 20}")
    Path("params.yaml").write_text(text[: text.index("models:")].replace("evolve: {", dream) + ENTRIES)


def test_the_whole_line_without_an_environment(files, capsys):
    """V and M as ever; C in the dream alone, whose score is said to be none of the world, beside its calibration."""
    importing.run("line", Path("data/line"), "files")
    params()
    for stage in ("collect", "train_vae", "encode", "train_mdn", "evolve", "evaluate"):
        assert main([stage, "line"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "line is recordings, so these are scores in M's dream, not in the world" in said
    collected, imported = EpisodeSet(Path("runs/line/collect")), EpisodeSet(Path("data/line"))
    assert collected.shards == imported.shards and collected.world == "line"
    scores = json.loads(Path("runs/line/evaluate/scores.json").read_text())
    told = json.loads(Path("metrics/line.json").read_text())["calibration"]
    assert scores["drawing"] == "dream" and len(scores["scores"]) == 100 and scores["calibration"] == told
    held_out = [imported.read(index, ["rew"])["rew"].sum() for index in imported.held_out]
    assert told["episodes"] == len(held_out) and told["recorded_mean"] == pytest.approx(np.mean(held_out), abs=1e-4)
    with pytest.raises(UserError, match=r"line is recordings \(data/line\), so there is no environment to play"):
        worlds.get("line").make()
    (Path("data/line") / "world.json").unlink()
    worlds.get.cache_clear()
    assert main(["collect", "line"]) == 2 and "run `dvc pull data/line`" in capsys.readouterr().err


def test_a_commit_knows_recordings_by_their_dvc_file(project):
    """Lineage compares what a stage had with the commit: git has the .dvc file, not the recordings."""
    Path("data").mkdir()
    Path("data/line.dvc").write_text("outs:\n- md5: 0123.dir\n  path: line\n")
    for words in (["init", "-q"], ["add", "data"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], check=True)
    assert gitfiles.code_md5("data/line", "HEAD") == "0123.dir" and gitfiles.code_md5("data/other", "HEAD") is None


def test_a_search_that_needs_an_environment_says_so(files, capsys):
    importing.run("line", Path("data/line"), "files")
    params("evolve: {")
    for stage in ("collect", "train_vae", "encode", "train_mdn"):
        assert main([stage, "line"]) == 0
    assert main(["evolve", "line"]) == 2
    assert "set evolve.dream to true and evolve.select to dream" in capsys.readouterr().err


def test_calibration_tells_a_dream_that_pays_too_much():
    rng = np.random.default_rng(0)
    paid = rng.normal(10, 3, 80)
    told = recorded.calibration(paid + 2 + rng.normal(0, 0.5, 80), paid)
    assert 1.7 < told["difference_low"] < told["difference"] < told["difference_high"] < 2.3
    assert told["correlation"] > 0.9
    assert recorded.calibration(np.ones(3), paid[:3])["correlation"] is None
