"""A model card: the folder that `hf upload` takes, read back by every command and by the hub's own classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_agent

from wm.cli import main
from wm.core import files
from wm.play import agent as agents
from wm.release import card, places

pytest.importorskip("onnxscript", reason="exports need onnxscript: pip install -e '.[export]'")
pytest.importorskip("onnxruntime", reason="exports need onnxruntime: pip install -e '.[export]'")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The card of an agent that comes with the repository and has V and M of another one."""
    out = tmp_path_factory.mktemp("card") / "fine"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        assert main(["agent", "card", "pretrained/car_racing_fine", str(out)]) == 0
    return out


def test_the_hubs_own_classes_read_the_card(folder, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="the card is read by huggingface_hub: '.[export]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    read = hub.ModelCard.load(folder / "README.md")
    data = read.data
    assert (data.license, data.pipeline_tag, data.library_name) == ("mit", "reinforcement-learning", "world-models")
    assert {"reinforcement-learning", "CarRacing-v3", "onnx", "safetensors"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.task_type, result.dataset_name) == ("reinforcement-learning", "CarRacing-v3")
    assert result.metric_type == "mean_reward" and result.metric_value == "903.40 +/- 49.87"
    assert "95% interval 892.3 to 911.8" in result.metric_name and data.model_name == "car_racing_fine"
    again = hub.ModelCard(f"---\n{data.to_yaml()}\n---\n{read.text}")
    assert again.data.to_dict() == data.to_dict(), "what the hub writes of it is the same"


def test_the_card_says_what_people_ask(folder):
    text = (folder / "README.md").read_text()
    made = files.read_record(folder / "made.json")
    for said in (
        "892.3 to 911.8", "100 test episodes", made["commit"], "collect@car_racing-1", "81,979 steps", "| C | a linear",
        "hf download", "## Limits", "Gymnasium, © Farama Foundation", "arXiv:1803.10122", "4,348,547",
    ):  # fmt: skip
        assert said in text, said
    assert "{{" not in text and "None" not in text


def test_the_folder_is_the_agent(folder):
    place = places.find(str(folder))
    kept = places.find(str(REPOSITORY / "pretrained" / "car_racing"))
    agent, params, _ = agents.load(place.folder)
    other, _, _ = agents.load(kept.folder)
    assert params.shape == (1635,) and place.tau == 1.0
    assert np.array_equal(agent.mdnrnn.mixture.weight, other.mdnrnn.mixture.weight)
    assert "models" not in files.read_record(folder / "made.json")
    names = {path.name for path in (folder / "onnx").iterdir()}
    assert names == {"agent.json", "encoder.onnx", "decoder.onnx", "memory.onnx", "controller.onnx"}
    assert not any(path.suffix in (".pkl", ".pt", ".bin") for path in folder.rglob("*"))


def test_a_card_is_made_of_a_card_again_and_replaces_no_other_folder(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "came")
    assert main(["agent", "card", str(tmp_path / "came"), str(tmp_path / "went")]) == 0
    capsys.readouterr()
    for path in folder.rglob("*.safetensors"):
        assert (tmp_path / "went" / path.relative_to(folder)).read_bytes() == path.read_bytes()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my own")
    assert main(["agent", "card", str(tmp_path / "came"), str(mine)]) == 2
    assert "is no model card: name another folder" in capsys.readouterr().err
    assert [path.name for path in mine.iterdir()] == ["README.md"]


def test_an_agent_of_ones_own_world_without_a_score_has_a_card_too(tmp_path):
    agent = tiny_agent.write(tmp_path / "agent")
    said = card.write(places.find(str(agent)), tmp_path / "out")
    assert said.startswith(f"{tmp_path / 'out'}: ") and "hf upload" in said
    text = (tmp_path / "out" / "README.md").read_text()
    assert "It has not been scored." in text and "What made it is not recorded here" in text
    assert "one hidden layer" in text and "model-index" not in text
    assert places.find(str(tmp_path / "out")).name == "out"
