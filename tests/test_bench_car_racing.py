"""What bench.laps and bench.readout say of a CarRacing agent, on few laps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import laps, readout

PRETRAINED = Path(__file__).parents[1] / "pretrained"
AGENT = PRETRAINED / "car_racing"


def test_a_turn_to_the_left_is_positive_and_counted_over_the_next_tiles():
    """A circle of 100 tiles: 12 of them turn by 12% of a full turn, wherever the car is, across the start too."""
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    road = np.stack([angle, angle, 50 * np.cos(angle), 50 * np.sin(angle)], axis=1)  # alpha, direction, x, y
    for tile in (0, 40, 95):
        assert laps.turn_ahead(road, tuple(road[tile, 2:])) == pytest.approx(0.12 * 2 * np.pi)
    there = road.copy()
    there[:, 1] *= -1
    assert laps.turn_ahead(there, (50.0, 0.0)) == pytest.approx(-0.12 * 2 * np.pi)


def test_r2_is_one_for_what_is_known_and_nothing_for_what_is_not():
    rng = np.random.default_rng(0)
    read = rng.standard_normal((4000, 5))
    wanted = np.stack([read @ [1.0, 2.0, 0.0, 0.0, -1.0] + 3.0, rng.standard_normal(4000)], axis=1)
    known, unknown = readout._r2(read, wanted, np.arange(4000) % 4 == 0)
    assert known > 0.99 and abs(unknown) < 0.05


def test_an_agent_knows_more_of_its_speed_the_more_it_reads():
    found = readout.measure(AGENT, 8)
    z, h, c = (found[inputs] for inputs in ("z", "z, h", "z, h, c"))
    assert z["forwards"] < h["forwards"] < c["forwards"] and c["forwards"] > 0.6
    assert h["sideways"] < c["sideways"]


def test_laps_driven_again_are_the_laps_that_were_scored(monkeypatch):
    """The tiles found are worth 1,000 points together and a step costs 0.1; leaving the playfield costs 100."""
    again, worth = laps._again, []

    def counted(env, number, acts):
        lap = again(env, number, acts)
        worth.append(1000 * lap["share"] - 0.1 * len(acts))
        return lap

    monkeypatch.setattr(laps, "_again", counted)
    found = laps.measure(AGENT, 4, workers=1)
    missing = (np.mean(worth) - found["score"]) * 4 / 100
    assert missing == pytest.approx(round(missing), abs=1e-3) and 0 <= round(missing) <= found["lost"]
    assert found["tracks"] == 4 == len(worth) and found["score"] > 500
    assert 30 < found["speed"] < 80 and 0 <= found["braking"] <= 1


@pytest.mark.parametrize(
    "module, words, said",
    [
        (laps, ["{empty}"], "holds no agent"),
        (readout, ["{empty}"], "holds no agent"),
        (readout, [str(AGENT), "--episodes", "4"], "at least 8"),
        (readout, [str(PRETRAINED / "take_cover")], "expected an agent of car_racing"),
    ],
)
def test_what_they_cannot_measure_is_a_sentence(tmp_path, monkeypatch, capsys, module, words, said):
    monkeypatch.setattr("sys.argv", ["bench", *(word.format(empty=tmp_path) for word in words)])
    with pytest.raises(SystemExit):
        module.main()
    assert said in capsys.readouterr().err
