"""Agents by name and by folder; a folder from elsewhere is looked at before it is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tiny_agent

from wm.cli import main
from wm.core import files
from wm.core.errors import DamagedData, UserError
from wm.release import places

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A whole agent of a world that is not built in."""
    return tiny_agent.write(tmp_path / "agent")


def say(path: Path, **changes) -> None:
    """Another record, with the checksum that belongs to it: what a hostile folder has."""
    files.write_record(path, {**files.read_record(path), **changes})


def put(folder: Path, kind: str, **tensors: np.ndarray) -> None:
    """Other tensors in a kind's file, with the checksum that belongs to them."""
    path = folder / f"{kind}.safetensors"
    held = {**safetensors.numpy.load_file(path), **tensors}
    digest = files.write_bytes(path, safetensors.numpy.save(held))
    say(folder / f"{kind}.json", sha256=digest)


def refused(folder: Path) -> str:
    with pytest.raises((UserError, DamagedData)) as error:
        places.find(str(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_folder_is_an_agent_wherever_it_lies(folder, monkeypatch):
    place = places.find(str(folder))
    assert (place.name, place.folder, place.starts, place.tau) == ("agent", folder, folder, 1.0)
    monkeypatch.chdir(folder)
    assert places.find(".").name == "agent"


def test_agents_of_this_repository_are_whole_too(monkeypatch):
    """The second has V and M of the first."""
    monkeypatch.chdir(REPOSITORY)
    assert places.find("pretrained/take_cover").tau == 1.15
    shared = places.find("car_racing_fine", kept=True)
    assert shared.name == "car_racing_fine" and (shared.folder / "vae.safetensors").is_file()


@pytest.mark.parametrize("kind", places.KINDS)
@pytest.mark.parametrize("end", ["json", "safetensors"])
def test_a_missing_file_is_named(folder, kind, end):
    (folder / f"{kind}.{end}").unlink()
    if kind == "controller" and end == "json":
        assert refused(folder).endswith("agent does not hold a whole agent")
    else:
        assert f"{kind}.{end} is missing" in refused(folder)


def test_a_flipped_bit_is_found(folder):
    path = folder / "mdnrnn.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert "mdnrnn.safetensors is damaged" in refused(folder)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("vae", {"config": {"z_size": 10**9}}, "config.z_size: Input should be less than or equal to 1024"),
        ("vae", {"config": {"z_size": 5}}, "the length of M's z is 4, and the rest of it needs 5"),
        ("vae", {"kind": "controller"}, "kind: Input should be 'vae'"),
        ("vae", {"sha256": "../../etc/passwd"}, "sha256: String should match pattern"),
        ("mdnrnn", {"config": {"hidden": 8192, "reward_head": False, "mixtures": 3}}, "what C reads is 20"),
        ("mdnrnn", {"action_size": 3}, "the length of M's actions is 3, and the rest of it needs 2"),
        ("mdnrnn", {"reads_restart": "yes"}, "reads_restart: Input should be a valid boolean"),
        ("controller", {"inputs": ["z", "os.system"]}, "inputs.1: Input should be 'z', 'h' or 'c'"),
        ("controller", {"layout": {"inputs": -1}}, "layout.inputs: Input should be greater than 0"),
        ("controller", {"world": "mars"}, "the world mars, which nothing here plays"),
        ("controller", {"world": "os:system"}, "the world os:system, which nothing here plays"),
        ("controller", {"tau": -1.0}, "tau: Input should be greater than 0"),
        ("controller", {"ends": "never"}, "ends: Input should be 'expected', 'drawn' or 'threshold'"),
    ],
)
def test_what_no_agent_can_be_is_a_sentence(folder, kind, changes, said):
    say(folder / f"{kind}.json", **changes)
    assert said in refused(folder)


@pytest.mark.parametrize(
    ("kind", "tensors", "said"),
    [
        ("vae", {"mu.weight": np.zeros((4, 1), np.float32)}, "mu.weight is F32 [4, 1]"),
        ("vae", {"mu.weight": np.zeros((4, 1024), np.float64)}, "mu.weight is F64 [4, 1024]"),
        ("vae", {"more": np.zeros(1, np.float32)}, "other tensors than the model that its JSON describes (more)"),
        ("controller", {"params": np.zeros(3, np.float32)}, "params is F32 [3], and its JSON describes F32 ["),
        ("starts", {"mu": np.zeros((0, 4), np.float32)}, "mu is F32 [0, 4], and its JSON describes F32 ['any', 4]"),
        ("mdnrnn", {"done.bias": np.full(1, np.nan, np.float32)}, "holds numbers that are not finite"),
    ],
)
def test_tensors_of_another_shape_or_kind_are_refused(folder, kind, tensors, said):
    put(folder, kind, **tensors)
    assert said in refused(folder)


def test_files_that_are_something_else_are_refused(folder):
    (folder / "controller.json").write_text("[" * 100_000)
    assert "controller.json" in refused(folder)
    (folder / "controller.json").write_bytes(b" " * (places.LARGEST + 1))
    assert "has 4,000,001 bytes" in refused(folder)
    (folder / "vae.json").write_text("<html>not found</html>")
    assert "vae.json is not whole JSON" in refused(folder)


def test_a_header_that_lies_about_its_length_is_refused(folder):
    path = folder / "vae.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    say(folder / "vae.json", sha256=files.sha256(path))
    assert "is no whole safetensors file" in refused(folder)


def test_a_record_that_leads_elsewhere_is_refused(folder, capsys):
    made = json.loads((REPOSITORY / "pretrained/car_racing_fine/made.json").read_text())
    made["models"]["from"] = "../../../../etc"
    files.write_record(folder / "made.json", {name: value for name, value in made.items() if name != "checksum"})
    assert "says that V and M lie with another agent" in refused(folder)
    assert main(["watch", str(folder), "--steps", "1"]) == 2
    assert "V and M lie with another agent" in capsys.readouterr().err


def test_scores_that_do_not_fit_are_refused(folder):
    scores = {"world": "tiny", "mean": 1.0, "episodes": 3, "scores": [1.0, 2.0], "seeds": [1, 2]}
    (folder / "scores.json").write_text(json.dumps(scores))
    assert "another number of scores than of episodes or seeds" in refused(folder)
    (folder / "scores.json").write_text(json.dumps({**scores, "episodes": 2, "world": "car_racing"}))
    assert "is of the world car_racing, and the agent of tiny" in refused(folder)


def test_every_command_takes_a_folder(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "./agent", "--steps", "3", "--out", "film.mp4"]) == 0
    assert main(["play", "agent", "--steps", "3", "--out", "dream.mp4"]) == 0
    assert Path("film.mp4").stat().st_size > 500 and Path("dream.mp4").stat().st_size > 500
    assert main(["evaluate", "agent", "--pretrained"]) == 2
    assert "agent has no score on record (made.json, scores.json)" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert main(["watch", "./agent"]) == 2
    assert "agent" in capsys.readouterr().err
