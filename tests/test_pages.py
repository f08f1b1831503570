"""What the artifact of a pipeline's run shows."""

import base64

import numpy as np

from flows import pages
from wm.pictures import figures


def test_pictures_of_the_newest_round_are_in_place_and_large_ones_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [{"step": step, "best": 2.0, "mean": 1.0, "worst": 0.0, "sigma": 0.1 * step} for step in (1, 2)]
    folders = ["runs/a-1/evolve", "runs/a/train_vae", "runs/a/evolve", "runs/a/evaluate", "runs/a/collect"]
    for number, folder in enumerate(folders[:3], 1):
        figures.evolution(lines[:number], tmp_path / folder / "figures/curves.png")
    figures.scores([1.0, 2.0], tmp_path / "runs/a/evaluate/figures/scores.png")
    shown = pages.pictures(folders)
    for path in ("runs/a/evaluate/figures/scores.png", "runs/a/evolve/figures/curves.png"):
        assert base64.b64encode((tmp_path / path).read_bytes()).decode() in shown
    assert shown.count("![") == 2 and "![Scores of the test episodes](data:image/png;base64," in shown
    monkeypatch.setattr(pages, "LARGEST", 10)
    assert "![" not in pages.pictures(folders)


def test_there_are_no_links_without_a_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert pages.links(["runs/a/evolve"]) == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    asked = []
    monkeypatch.setattr(pages.earlier, "run_of", lambda digest: asked.append(digest))
    figures.scores(np.arange(3), tmp_path / "runs/a/evolve/figures/scores.png")
    assert pages.links(["runs/a/evolve", "runs/a/evaluate"]) == "" and len(asked) == 1  # only what is here
