"""Agents that come with the repository: kept whole, played without a run, scored again to the same numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import STAGES, make_project

from wm import files
from wm.cli import main


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A project whose agent has been kept, and whose runs are gone."""
    folder = make_project(tmp_path_factory.mktemp("kept"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WM_TRACKING", "off")
        patch.chdir(folder)
        assert [main([stage, "tiny"]) for stage in STAGES] == [0] * 6
        assert main(["keep", "tiny", "--commit", "abc123"]) == 0
        shutil.rmtree(folder / "runs" / "tiny")
    return folder


@pytest.fixture
def project(kept, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WM_TRACKING", "off")
    folder = shutil.copytree(kept, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return folder


def test_its_score_is_the_recorded_one(project, capsys):
    assert main(["evaluate", "tiny", "--pretrained"]) == 0
    assert "over 3 episodes; every episode's score is the recorded one" in capsys.readouterr().out
    assert not (project / "runs" / "tiny").exists()


def test_another_score_is_an_error_that_names_the_episode(project, capsys):
    recorded = files.read_json(project / "pretrained/tiny/scores.json")
    recorded["scores"][1] += 0.5
    files.write_json(project / "pretrained/tiny/scores.json", recorded)
    assert main(["evaluate", "tiny", "--pretrained"]) == 2
    assert f"1 episodes differ, the first is seed {recorded['seeds'][1]} with" in capsys.readouterr().err


def test_it_can_be_watched_and_dreamed_without_a_run(project, capsys):
    assert main(["watch", "tiny", "--pretrained", "--steps", "5", "--out", "w.mp4"]) == 0
    assert main(["dream", "tiny", "--pretrained", "--steps", "5", "--out", "d.mp4"]) == 0
    assert Path("w.mp4").stat().st_size > 1000 and Path("d.mp4").stat().st_size > 1000


def test_what_made_it_is_beside_it(project):
    made = files.read_record(project / "pretrained/tiny/made.json")
    assert made["command"] == "git checkout abc123 && python -m flows.pipeline tiny"
    assert made["experiment"]["evolve"]["population"] == 4
    assert set(made["summaries"]) == {"collect", "train_vae", "train_mdn", "evolve", "evaluate"}


def test_a_damaged_or_unknown_agent_is_a_sentence(project, capsys):
    assert main(["watch", "nobody", "--pretrained"]) == 2
    assert "no pretrained agent 'nobody' comes with this repository: there is tiny" in capsys.readouterr().err
    weights = project / "pretrained/tiny/controller.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert main(["evaluate", "tiny", "--pretrained"]) == 1
    assert "controller.safetensors is damaged" in capsys.readouterr().err
    assert main(["keep", "tiny"]) == 2
    assert "tiny has no score yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [("--seed=-1", "0 or more"), ("--steps=0", "1 or more"), ("--tau=0", "more than 0"), ("--tau=-1", "more than 0")],
)
@pytest.mark.parametrize("command", ["watch", "dream"])
def test_a_number_that_cannot_be_is_a_sentence(project, capsys, command, option, words):
    assert main([command, "tiny", "--pretrained", option]) == 2
    assert f"expected {words}" in capsys.readouterr().err


def test_a_display_that_is_not_there_is_none(project, capsys, monkeypatch):
    """With a DISPLAY that leads nowhere pygame draws where nobody looks."""
    monkeypatch.setenv("DISPLAY", ":77")
    assert main(["dream", "tiny", "--pretrained", "--steps", "3"]) == 0
    assert "wrote dream.mp4" in capsys.readouterr().out and Path("dream.mp4").exists()
