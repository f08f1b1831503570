"""What `wm ui` shows where nothing was run: the agents that come with the repository."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from wm.cli import main
from wm.core import files
from wm.records import store, tracking
from wm.records.registered_models import model_name, weights
from wm.release import browse, registry

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "pretrained" / "car_racing"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with one kept agent, registered."""
    root = tmp_path_factory.mktemp("browse")
    shutil.copytree(KEPT, root / "pretrained" / "car_racing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.address(root))
        assert browse.register(root) == ["car_racing"]
        yield root


def test_kept_agents_are_registered_once_with_score_data_and_command(root):
    assert browse.register(root) == []
    assert not list((root / ".wm/spool").glob("*/run.json"))

    made, scores = files.read_record(KEPT / "made.json"), json.loads((KEPT / "scores.json").read_text())
    model = model_name("car_racing", "car_racing", "agent")
    with registry.connected(root, model) as versions:
        assert versions.of_weights(weights("agent", KEPT)) == "1" and versions.champion() is None
        version, client = versions.versions()["1"], versions.client
    collected = [stage["output"] for stage in made["stages"] if stage["address"].startswith("collect@")]
    assert version.tags["wm.data"] in collected and version.tags["wm.commit"] == made["commit"]
    assert f"**{scores['mean']:.1f} ± {scores['std']:.1f}**" in version.description
    assert made["command"] in version.description and "figures/scores.png" in version.description
    run = client.get_run(version.run_id)
    assert run.data.metrics["mean"] == scores["mean"] and run.info.status == "FINISHED"
    assert {one.dataset.digest for one in run.inputs.dataset_inputs} >= set(collected)


def test_a_film_that_was_made_later_is_on_the_same_run(root, monkeypatch):
    monkeypatch.chdir(root)
    film = browse.SCRATCH / "car_racing" / browse.FILM
    film.parent.mkdir(parents=True)
    film.write_bytes(b"a film")
    browse.add("car_racing", root)
    client = tracking.connect(root)
    (run,) = client.search_runs([client.get_experiment_by_name("car_racing").experiment_id])
    assert [file.path for file in client.list_artifacts(run.info.run_id, "films")] == ["films/drive.mp4"]
    assert "Films: [drive](" in run.data.tags["mlflow.note.content"]
    assert len(client.search_model_versions("name = 'car_racing-agent'")) == 1


def test_a_port_that_another_program_has_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 cannot be had" in capsys.readouterr().err
    assert main(["ui", "--port", "70000"]) == 2
    assert not list(tmp_path.iterdir())
