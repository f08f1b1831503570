"""What tests share: a project folder with a tiny world, in which stages run for real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

STAGES = ("collect", "train_vae", "encode", "train_mdn", "evolve", "evaluate")


def make_project(folder: Path) -> Path:
    """A folder with params.yaml of the tiny world and runs/zero, as a clone has them."""
    import tiny_world

    for stage in STAGES[:2] + STAGES[3:5]:
        (folder / "runs" / "zero" / stage).mkdir(parents=True)
        (folder / "runs" / "zero" / stage / "empty.json").write_text("{}\n")
    (folder / "params.yaml").write_text(tiny_world.PARAMS)
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The current folder is a new project; nothing is tracked."""
    monkeypatch.setenv("WM_TRACKING", "off")
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path)
