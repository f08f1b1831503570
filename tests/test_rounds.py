"""The next round of an agent in params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import rounds
from wm import params
from wm.core.errors import UserError

TEXT = (Path(__file__).parent.parent / "params.yaml").read_text()


def added(before: str, after: str) -> list[str]:
    """The lines of `after` that are new; all others have to be there, in their order."""
    rest = iter(before.splitlines())
    following, new = next(rest), []
    for line in after.splitlines():
        if line == following:
            following = next(rest, None)
        else:
            new.append(line)
    assert following is None, f"{following!r} is gone"
    return new


@pytest.mark.parametrize("agent", params.load(Path(__file__).parent.parent / "params.yaml").agents)
def test_a_round_is_two_lines_and_all_others_stay_as_they_are(agent, tmp_path):
    name, text = rounds.add(TEXT, agent)
    assert name == f"{agent}-r2" and rounds.last(TEXT, agent) == agent
    assert len(added(TEXT, text)) == 2
    (tmp_path / "params.yaml").write_text(text)
    everything = params.load(tmp_path / "params.yaml")
    before, model, entry = everything.agents[agent], everything.models[name], everything.agents[name]
    assert (model.after, model.actor, entry.after, entry.model) == (before.model, agent, agent, name)
    assert (model.experiment, entry.experiment, entry.tau) == (
        everything.models[before.model].experiment,
        before.experiment,
        before.tau,
    )


def test_rounds_follow_one_another_and_the_champion_may_collect():
    text = TEXT
    for _ in range(10):
        _, text = rounds.add(text, "smoke")
    name, text = rounds.add(text, "smoke", actor="smoke-r3")
    assert name == rounds.last(text, "smoke") == "smoke-r12"  # by number, not by letters
    assert added(TEXT, text)[10] == "  smoke-r12: {experiment: smoke, after: smoke-r11, actor: smoke-r3, seed: 0}"
    assert rounds.last(text, "car_racing") == "car_racing"


COMMENTED = """\
models:   # rounds
  a: {experiment: x, after: zero, actor: zero}   # the first

agents:
  # ours
  a:
    experiment: x
    model: a
    after: zero   # nobody

  # theirs
  b: {experiment: x, model: a, after: zero}
"""


def test_comments_and_blank_lines_stay_where_they_are():
    _, text = rounds.add(COMMENTED, "a")
    assert (
        text
        == """\
models:   # rounds
  a: {experiment: x, after: zero, actor: zero}   # the first
  a-r2: {experiment: x, after: a, actor: a}

agents:
  # ours
  a:
    experiment: x
    model: a
    after: zero   # nobody
  a-r2:
    experiment: x
    model: a-r2
    after: a

  # theirs
  b: {experiment: x, model: a, after: zero}
"""
    )


def test_a_search_is_shortened_and_all_else_stays_as_it_is():
    text = rounds.shorten(TEXT, "car_racing", 3)
    lines = [pair for pair in zip(TEXT.splitlines(), text.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(lines) == 1 and "generations: 3," in lines[0][1]
    assert YAML(typ="safe").load(text)["experiments"]["car_racing"]["evolve"]["generations"] == 3


def test_a_budget_may_not_shorten_what_the_agent_builds_on_nor_what_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for agent in ("car_racing", "car_racing-1", "take_cover", "dreamer-1"):
        rounds.check_alone(TEXT, agent)
    with pytest.raises(UserError, match="the search of dreamer-1, dreamer-2 too: give dreamer-3 an experiment of its"):
        rounds.check_alone(TEXT, "dreamer-3")
    Path("runs/car_racing_seed2/evolve").mkdir(parents=True)
    with pytest.raises(UserError, match="the search of car_racing_seed2 too"):
        rounds.check_alone(TEXT, "car_racing")
