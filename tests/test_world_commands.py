"""`wm world new`, `check` and `score`: what to paste, what is wrong, what has to be beaten."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import odd_worlds  # noqa: F401  registers Odd-v0
import pytest
import tiny_world
from ruamel.yaml import YAML
from test_odd_worlds import write

from wm import params, worlds
from wm.cli import main
from wm.core import files
from wm.estimate import baselines, check, entries
from wm.play import rollout
from wm.play.cluster import Cluster

ROOT = Path(__file__).parent.parent


@pytest.fixture
def short(project, monkeypatch):
    """`world check` with a few resets and seconds."""
    for name, value in (("RESETS", 30), ("SPEED_SECONDS", 0.3), ("SCORE_SECONDS", 1.0)):
        monkeypatch.setattr(check, name, value)
    monkeypatch.setattr(check, "_apart", _here)
    yield
    rollout.close_environments()


def _here(look, *arguments):
    """In this process, where a test has set other numbers."""
    from wm.core.errors import UserError

    said = []
    try:
        look(*arguments, lambda text: said.append((text, True)))
    except UserError as error:
        said.append((str(error), False))
    yield from said


def test_new_prints_entries_that_params_takes(tmp_path, capsys, monkeypatch):
    assert main(["world", "new", "LunarLander-v3", "--as", "lander", "--kwargs", "{continuous: true}"]) == 0
    said = capsys.readouterr().out
    pasted = YAML(typ="safe").load(said)
    assert pasted["worlds"] == {"lander": {"gym": "LunarLander-v3", "kwargs": {"continuous": True}}}
    assert len([line for line in said.splitlines() if line.startswith("  ")]) == 5
    text, section = (ROOT / "params.yaml").read_text(), ""
    for line in said.splitlines():
        if line.startswith("  "):
            text = re.sub(
                rf"^{section}.*$", lambda found, line=line: f"{found.group(0)}\n{line}", text, count=1, flags=re.M
            )
        elif not line.startswith("#"):
            section = line
    (tmp_path / "params.yaml").write_text(text)
    everything = params.load(tmp_path / "params.yaml")
    assert everything.agents["lander"].after == "lander-1" and everything.models["lander"].actor == "lander-1"
    assert everything.experiments["any"].evolve.dream is False and everything.experiments["any"].collect.explore == 0.25


@pytest.mark.parametrize(
    "value",
    [True, None, "true", "null", "1", "1e5", "a b", "it's", "", "words/of-one", 0.1, 2, [1, "2"], {"a": "no: 1"}],
)
def test_what_is_pasted_is_what_was_asked_for(value):
    assert files.parse_yaml(f"{{kwargs: {entries._yaml(value)}}}", "") == {"kwargs": value}


def test_new_cuts_off_what_never_ends_and_says_what_cannot_be_made(capsys):
    said = entries.new("Endless-v0", None, "odd_worlds", None)
    assert "endless: {gym: Endless-v0, import: odd_worlds, max_steps: 2000}" in said and "cut off there" in said
    assert main(["world", "new", "Nothing-v3"]) == 2
    assert "which Gymnasium does not make" in capsys.readouterr().err
    assert main(["world", "new", "Odd-v0", "--import", "odd_worlds", "--kwargs", "[1]"]) == 2
    assert "--kwargs is [1]: expected a mapping" in capsys.readouterr().err


def test_check_says_what_is_known_of_a_sound_world(short, capsys):
    name = write("")
    assert main(["world", "check", name, "--no-cost"]) == 0
    said = capsys.readouterr().out
    for words in (
        "the same seed is the same episode", "another seed is another episode", "steps a second in one process",
        f"what V will see, beside what the environment shows: {name}_world.png", "% of frames differ",
        "memory grows by", "the random policy", "the best constant", "of 3 that were tried",
    ):  # fmt: skip
        assert words in said, said
    assert Path(f"{name}_world.png").stat().st_size > 1000
    assert "the constant is [0, 0, 1]" in said, "the bar pays more the further it is to the right"


@pytest.mark.parametrize(
    "fault, sentence",
    [
        ("unseeded", "gave two frames at step"),
        ("reset", "its reset raised RuntimeError: out of tracks"),
        ("nan", "gave the reward nan at step 2"),
        ("picture", "render() of the world odd_picture gave (48, 40, 3) float64, which is no picture"),
        ("missing", "no_such_package is not installed"),
    ],
)
def test_check_says_what_is_wrong_in_one_sentence(short, capsys, fault, sentence):
    name = write(fault)
    assert main(["world", "check", name, "--no-cost"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("error: ") == 1 and "Traceback" not in said


def test_check_of_a_world_that_is_not_there_is_a_sentence(project, capsys):
    assert main(["world", "check", "moon"]) == 2
    assert "'moon' is not in `worlds` of params.yaml" in capsys.readouterr().err


def _crash(name, say):
    say("alive")
    os.abort()


def _hang(name, say):
    import time

    time.sleep(60)


def test_an_environment_that_crashes_or_hangs_is_told_by_the_process_beside_it(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    *before, (said, sound) = check._apart(_crash, "w")
    assert before == [("alive", True)] and not sound and "ended the process that it was played in (signal 6)" in said
    monkeypatch.setattr(check, "PATIENCE", 1.0)
    ((said, sound),) = check._apart(_hang, "w")
    assert not sound and "said nothing for 1 s" in said


def test_the_best_constant_is_found_among_choices_and_among_numbers(project):
    params.load()
    with Cluster(1) as cluster:
        found = baselines.best_constant("tiny", 120, cluster)
    assert found.act.shape == (2,) and found.episodes <= 130
    worlds.register("odd", worlds.BY_ID, {"name": "odd", "gym": "Odd-v0"})
    assert len(baselines.choices_of(worlds.get("odd"))) == 3


def test_score_sets_an_agent_beside_what_it_has_to_beat(project, capsys):
    assert main(["world", "score", "tiny"]) == 2 and "evaluate@tiny" in capsys.readouterr().err
    Path("runs/tiny/evaluate").mkdir(parents=True)
    files.write_json(Path("runs/tiny/evaluate/scores.json"), {"scores": [100.0] * 6})
    assert main(["world", "score", "tiny", "--search", "40"]) == 0
    said = capsys.readouterr().out
    assert "tiny: 6 test episodes each, the same ones" in said
    (random,) = [line for line in said.splitlines() if "the random policy" in line]
    numbers = [float(word) for word in re.findall(r"-?\d+\.\d+", random)]
    assert numbers[0] + numbers[3] == pytest.approx(100, abs=0.02), "the paired difference"
    assert np.isfinite(numbers).all() and tiny_world.SPEC.name in said
