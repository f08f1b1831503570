"""What measures surprise and the gauge: areas, changed worlds, a dream made bad."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_agent
import tiny_world
import torch

from bench import gauge, surprise
from wm.core import files, weights
from wm.models.mdnrnn import load_mdnrnn
from wm.release.places import Place
from wm.worlds.car_racing.world import SPEC, CarRacing


def test_the_area_is_the_share_of_pairs_and_its_interval_is_of_episodes():
    rng = np.random.default_rng(0)
    own, changed = rng.integers(0, 9, 40).astype(float), rng.integers(3, 12, 30).astype(float)
    pairs = np.mean([(b > a) + 0.5 * (b == a) for a in own for b in changed])
    assert surprise.area(own, changed) == pytest.approx(pairs)
    alike = [np.full(50, value) for value in rng.normal(0, 1, 6)]
    found, low, high = surprise.interval(alike, alike)
    assert found == 0.5 and low < 0.35 and high > 0.65, "300 steps of 6 episodes say no more than 6 numbers"


@pytest.mark.parametrize("way", surprise.CHANGES["car_racing"])
def test_a_changed_car_racing_differs_as_it_says_and_in_nothing_else(way):
    act, own, changed = np.array([0.6, 0.5, 0], np.float32), CarRacing().make(), surprise.ChangedCarRacing(way).make()
    first, other = own.reset(seed=4)[0], changed.reset(seed=4)[0]
    for _ in range(40):
        frame, *_ = own.step(act)
        after, *_ = changed.step(act)
    angles = [env.unwrapped.car.hull.angle for env in (own, changed)]
    start = replace(SPEC, name=f"car_racing_{way}")
    assert surprise.ChangedCarRacing(way).spec == start
    if way in ("colours", "noise"):
        assert angles[0] == angles[1], "another drawing of the same drive"
        shown = frame[..., [0, 2, 1]] if way == "colours" else frame
        assert np.abs(after.astype(float) - shown).mean() < (1 if way == "colours" else 1.2 * surprise.NOISE)
        assert (after != frame).mean() > 0.3
    else:
        assert np.array_equal(first, other) and angles[0] != angles[1]
        grips = {tile.road_friction for tile in changed.unwrapped.road}
        assert grips == ({surprise.GRIP} if way == "friction" else {1.0})
    for env in (own, changed):
        env.close()


def test_the_table_of_gauges_has_the_bad_dream_last(tmp_path, monkeypatch, capsys):
    agent = tiny_agent.write(tmp_path / "kept")
    files.write_record(agent / "controller.json", {**files.read_record(agent / "controller.json"), "round": 0})
    words = ["gauge", str(agent), "--bad", str(agent), "--data", "2", "--steps", "1"]
    monkeypatch.setattr("sys.argv", words)
    gauge.main()
    said = [line for line in capsys.readouterr().out.splitlines() if "rank correlation" in line]
    assert [line.split(":")[0] for line in said] == ["kept", "kept, M of 1 steps"]


def test_a_bad_dream_has_an_m_of_its_own_and_the_agents_v(tmp_path):
    agent = tiny_agent.write(tmp_path / "agent")
    files.write_record(agent / "controller.json", {**files.read_record(agent / "controller.json"), "round": 0})
    (tmp_path / "scratch").mkdir()
    place = gauge.bad(Place("tiny", agent, agent, 1.0), 3, 2, tmp_path / "scratch")
    shas = [{kind: weights.load(where, kind)[0]["sha256"] for kind in ("vae", "mdnrnn")}
            for where in (agent, place.folder)]  # fmt: skip
    assert shas[0]["vae"] == shas[1]["vae"] and shas[0]["mdnrnn"] != shas[1]["mdnrnn"]
    before, after = load_mdnrnn(agent), load_mdnrnn(place.folder)
    assert before.config == after.config and not torch.equal(before.lstm.weight_h, after.lstm.weight_h)
    assert weights.exists(place.starts, weights.STARTS_KIND) and tiny_world.SPEC.name == "tiny"
