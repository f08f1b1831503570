"""A world of somebody else's: one file of theirs, one line to register it, and the contract holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tiny_world

from wm import worlds
from wm.core.episodes import EpisodeSet
from wm.worlds.contract import check_world

ROOT = Path(__file__).parent.parent

THIRD = (ROOT / "examples" / "bars.py").read_text()


def test_a_third_world_is_one_file_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "third_world.py").write_text(THIRD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(worlds, "_REGISTRY", dict(worlds._REGISTRY))
    worlds.register("third", "third_world:BarsWorld")  # the one line
    try:
        assert "third" in worlds.names()
        check_world(worlds.get("third"))
    finally:
        worlds.get.cache_clear()
        sys.modules.pop("third_world", None)


def test_a_world_is_an_entry_of_params_yaml_and_workers_know_it_too(project):
    """Nothing else is written: the stage's processes and those that play learn it from there."""
    Path("mine").mkdir()
    Path("mine/third.py").write_text(THIRD)
    text = tiny_world.PARAMS.replace("tiny_world:Tiny", "mine/third:BarsWorld")
    text = text.replace("code: tiny_world.py", "code: mine")
    Path("params.yaml").write_text(
        text.replace("tiny:\n    own", "third:\n    own").replace("world: tiny", "world: third")
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WM_WORKERS": "2"}
    words = [sys.executable, "-m", "wm", "collect", "tiny"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    data = EpisodeSet(project / "runs/tiny/collect")
    assert data.world == "third" and len(data) == 12
