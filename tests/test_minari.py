"""Minari's data sets become ours: the same frames, actions, rewards and ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wm.cli import main
from wm.core.episodes import EpisodeSet

pytest.importorskip("minari", reason="needs Minari: make install EXTRAS=minari")
HERE = Path(__file__).parent


@pytest.fixture
def toy(project, monkeypatch) -> str:
    return make(project, monkeypatch)


def make(project: Path, monkeypatch, *words: str) -> str:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(project / "minari"))
    (project / "minari").mkdir()
    command = [sys.executable, str(HERE / "minari_data.py"), "toy/square-v0", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=1200)
    return "toy/square-v0"


def test_a_data_set_is_imported_with_its_action_space(toy):
    from minari_data import EPISODES, STEPS, episode

    assert main(["data", "import", "square", toy]) == 0
    data = EpisodeSet(Path("data/square"))
    data.verify()
    assert len(data) == EPISODES and data.steps == EPISODES * STEPS
    for number in (0, 5):
        made, kept = episode(number), data.read(number)
        assert np.array_equal(kept["act"].argmax(1), made.actions) and kept["act"].shape == (STEPS, 3)
        assert np.allclose(kept["rew"], made.rewards) and kept["end"][-1] == number % 2 and not kept["end"][:-1].any()
        assert np.abs(kept["obs"].mean() - made.observations[:-1].mean()) < 1


def test_actions_without_bounds_are_kept_as_they_are(project, monkeypatch):
    from minari_data import episode

    assert main(["data", "import", "square", make(project, monkeypatch, "unbounded")]) == 0
    assert np.array_equal(EpisodeSet(Path("data/square")).read(3)["act"], episode(3, unbounded=True).actions)


def test_a_damaged_data_set_is_refused_by_name(toy, capsys):
    (path,) = Path("minari").rglob("*.hdf5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(["data", "import", "square", toy]) == 2
    assert "toy/square-v0" in capsys.readouterr().err and not Path("data").exists()
