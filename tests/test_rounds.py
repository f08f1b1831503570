"""The next round of an agent, and numbers that a branch keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import recipe, rounds
from wm import params
from wm.core.errors import UserError

FILE = Path(__file__).parent.parent / "params.yaml"
EVERYTHING = params.load(FILE)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """What params.yaml says; the current folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    return recipe.parse(FILE.read_text())


def test_numbers_are_written_as_they_were_read(file):
    recipe.write(file, "What these are.")
    assert recipe.read() == file
    text = recipe.FILE.read_text()
    assert text.startswith("# What these are.\n") and "<<" not in text and "*" not in text
    for reader in (YAML(typ="safe"), YAML(typ="safe", pure=True)):  # as DVC and others read it
        assert reader.load(text) == file
    assert list(file["agents"]) == [name for name in EVERYTHING.agents if name in file["agents"]]


def test_what_was_said_once_for_several_entries_is_each_ones_own(file):
    said = recipe.parse("a: &a {x: {y: 1}}\nb: *a\nc: {<<: *a, z: 2}\n")
    said["a"]["x"]["y"] = 3
    assert said == {"a": {"x": {"y": 3}}, "b": {"x": {"y": 1}}, "c": {"x": {"y": 1}, "z": 2}}


@pytest.mark.parametrize("text", ["a: [", None])
def test_a_file_that_is_none_is_one_sentence(file, text):
    if text:
        recipe.FILE.write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml"):
        recipe.read()


@pytest.mark.parametrize("agent", recipe.parse(FILE.read_text())["agents"])
def test_a_round_is_two_entries_and_all_others_stay_as_they_are(agent, file):
    name = rounds.add(file, agent)
    before = recipe.parse(FILE.read_text())
    assert name == f"{agent}-r2" and rounds.last(before, agent) == agent
    everything = params.Params.model_validate(file)
    last, model, entry = everything.agents[agent], everything.models[name], everything.agents[name]
    assert (model.after, model.actor, entry.after, entry.model) == (last.model, agent, agent, name)
    assert (model.experiment, entry.experiment, entry.tau) == (
        everything.models[last.model].experiment,
        last.experiment,
        last.tau,
    )
    del file["models"][name], file["agents"][name]
    assert file == before


def test_rounds_follow_one_another_and_the_champion_may_collect(file):
    for _ in range(10):
        rounds.add(file, "smoke")
    name = rounds.add(file, "smoke", actor="smoke-r3")
    assert name == rounds.last(file, "smoke") == "smoke-r12"  # by number, not by letters
    assert file["models"][name] == file["models"]["smoke"] | {"after": "smoke-r11", "actor": "smoke-r3"}
    assert rounds.last(file, "car_racing") == "car_racing"


def test_a_chain_is_all_that_an_agent_comes_from(file):
    assert recipe.chain(file, "smoke") == [("agents", "smoke"), ("models", "smoke")]
    found = recipe.chain(file, "car_racing")
    assert {"car_racing", "car_racing-1", "car_racing-2", "car_racing-3"} == {n for s, n in found if s == "agents"}
    assert {"car_racing", "car_racing-1"} == {n for s, n in found if s == "models"}
    assert len(found) == 6
