"""What bench.laps and bench.readout say of a CarRacing agent, on few laps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import laps, readout

AGENT = Path("pretrained/car_racing")


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
    forwards = [found[inputs]["forwards"] for inputs in ("z", "z, h", "z, h, c")]
    assert forwards == sorted(forwards) and forwards[-1] < 1


def test_laps_driven_again_are_the_laps_that_were_scored():
    """A complete lap has 1,000 points less 0.1 a step; the others the tiles that they found, less 0.1 a step."""
    found = laps.measure(AGENT, 4, workers=1)
    assert found["tracks"] == 4 == found["complete"] + found["with_gaps"] + found["lost"]
    assert found["score"] > 500 and 30 < found["speed"] < 80 and 0 <= found["braking"] <= 1


def test_a_folder_without_an_agent_is_a_sentence(tmp_path, monkeypatch, capsys):
    for module in (laps, readout):
        monkeypatch.setattr("sys.argv", ["bench", str(tmp_path)])
        with pytest.raises(SystemExit):
            module.main()
        assert "holds no agent" in capsys.readouterr().err
