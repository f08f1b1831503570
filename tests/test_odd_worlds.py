"""What goes wrong in other people's environments ends in one sentence with world, seed and step; nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import odd_worlds
import pytest
import tiny_world

from wm import worlds
from wm.cli import main
from wm.core import seeds
from wm.core.episodes import EpisodeSet
from wm.play import rollout

ROOT = Path(__file__).parent.parent
NUMBERS = re.search(r"experiments:\n(.*?)models:", tiny_world.PARAMS, re.S).group(1)
SENTENCES = {
    "reset": r"the world {w}, at step 0 of the episode with seed \d+: its reset raised RuntimeError: out of tracks",
    "step": r"the world {w}, at step 2 of the episode with seed \d+: its step raised ValueError: a wheel fell off",
    "float": r"the world {w}, at step 2 of the episode with seed \d+: its picture is \(48, 40, 3\) float64",
    "rgba": r"the world {w}, at step 2 of the episode with seed \d+: its picture has 4 channels",
    "changing": r"the world {w}, at step 2 of the episode with seed \d+: its picture is \(30, 40, 3\), and was",
    "nan": r"the world {w} gave the reward nan at step 2 of the episode with seed \d+",
    "inf": r"the world {w} gave the reward inf at step 2 of the episode with seed \d+",
    "unseeded": r"the world {w} gave two frames at step \d+ of the episode with seed \d+, played twice",
    "display": r"worlds.{w}: Odd-v0 cannot be made: error: .*needs a display.*xvfb-run",
    "endless": r"Endless-v0 never ends an episode by itself: set worlds.{w}.max_steps",
    "missing": r"worlds.{w}: no_such_package is not installed: run `pip install no_such_package`",
    "process": r"the world {w} keeps the process \d+ \(sleep 60\) after `close`",
}


def write(fault: str, **entry: str) -> str:
    """params.yaml with the world whose environment does that; its name."""
    name = f"odd_{fault or 'sound'}"
    keys = {"gym": "Odd-v0", "import": "odd_worlds", "kwargs": f"{{fault: '{fault}'}}", **entry}
    keys |= {"endless": {"gym": "Endless-v0"}, "missing": {"import": "no_such_package"}}.get(fault, {})
    code = "code: wm/worlds/by_id, after: zero"
    Path("params.yaml").write_text(
        f"worlds:\n  {name}: {{{', '.join(f'{key}: {value}' for key, value in keys.items())}}}\nexperiments:\n{NUMBERS}"
        f"models:\n  odd: {{experiment: tiny, world: {name}, {code}, actor: zero, seed: 3}}\n"
        f"agents:\n  odd: {{experiment: tiny, world: {name}, {code}, model: odd, tau: 1.0, seed: 3}}\n"
    )
    return name


@pytest.fixture
def odd(project):
    yield write
    rollout.close_environments()


@pytest.mark.parametrize("fault", SENTENCES)
def test_a_fault_ends_in_one_sentence_and_nothing_is_published(odd, fault, capsys):
    name = odd(fault)
    assert main(["collect", "odd"]) == (1 if fault in ("reset", "step") else 2)
    said = capsys.readouterr()
    assert re.search(f"^error: {SENTENCES[fault].replace('{w}', name)}", said.err, re.M), said.err
    assert said.err.count("error: ") == 1 + (fault == "display") and "Traceback" not in said.err
    assert not Path("runs/odd").exists()


@pytest.mark.parametrize("fault", ["print", "grey"])
def test_what_does_no_harm_is_played_and_what_it_prints_is_dropped(odd, fault, capsys):
    odd(fault)
    assert main(["collect", "odd"]) == 0
    assert "chatter" not in capsys.readouterr().out
    assert {episode["length"] for episode in EpisodeSet(Path("runs/odd/collect")).episodes} == {20}


def test_episodes_of_one_step_are_kept_and_said_to_have_nothing_to_predict(odd, capsys):
    name = odd("once")
    assert main(["collect", "odd"]) == 0
    said = capsys.readouterr().err
    assert re.search(
        rf"^note: every episode of the world {name} ends at step 1 \(the first has the seed \d+\)", said, re.M
    )


def test_a_thread_that_does_not_end_keeps_no_command_from_ending(odd):
    name = odd("thread")
    shutil.copy(odd_worlds.__file__, ".")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "wm", "collect", "odd"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"error: the world {name} keeps the thread 'left behind' after `close`" in done.stderr


def test_what_was_played_before_a_fault_is_not_lost(odd, capsys):
    """The episodes of whole jobs are there when the environment is mended, and are not played again."""
    odd("broken")
    last = Path(f"broken-{seeds.episodes(3, seeds.Purpose.EXPLORATION, 0, count=12)[-1]}")
    last.touch()
    assert main(["collect", "odd"]) == 1 and "out of tracks" in capsys.readouterr().err
    kept = sorted(path.name for path in Path(".wm").rglob("shard-*.parquet"))
    last.unlink()
    played = []
    play, rollout.play = rollout.play, lambda *args, **more: played.append(args[2]) or play(*args, **more)
    try:
        assert main(["collect", "odd"]) == 0
    finally:
        rollout.play = play
    assert len(kept) == 2 and len(played) == 1 and len(EpisodeSet(Path("runs/odd/collect"))) == 12


def test_all_rewards_equal_is_said_to_leave_nothing_to_select(odd, capsys):
    odd("constant")
    for stage in ("collect", "train_vae", "encode", "train_mdn", "evolve"):
        assert main([stage, "odd"]) == 0
    said = capsys.readouterr().out
    assert "there is nothing to select: in each of 5 generations all 4 candidates have the same score" in said
    odd("")
    for stage in ("collect", "train_vae", "encode", "train_mdn", "evolve"):
        assert main([stage, "odd"]) == 0
    assert "nothing to select" not in capsys.readouterr().out


def test_the_worlds_of_this_package_are_the_same_episode_twice():
    from wm.play import sameness

    for name in ("car_racing", "take_cover"):
        sameness.check(worlds.get(name), 5)
