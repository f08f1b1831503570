"""A world of an installed package: an entry point that stages, their workers and DVC's commands find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_world

from wm import worlds
from wm.core.episodes import EpisodeSet
from wm.core.errors import UserError
from wm.worlds.installed import load

ROOT = Path(__file__).parent.parent
NUMBERS = re.search(r"experiments:\n(.*?)models:", tiny_world.PARAMS, re.S).group(1)
PARAMS = f"""\
worlds:
  maze: {{installed: bars}}
experiments:
{NUMBERS}models:
  maze: {{experiment: tiny, world: maze, code: wm/worlds/installed.py, after: zero, actor: zero, seed: 3}}
agents:
  maze: {{experiment: tiny, world: maze, code: wm/worlds/installed.py, model: maze, after: zero, tau: 1.0, seed: 3}}
"""


@pytest.fixture
def package(project, monkeypatch) -> Path:
    """An installed distribution, as pip leaves it, in a folder on Python's path."""
    site = project / "site"
    about = site / "bars_package-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "bars_package.py").write_text((ROOT / "examples" / "bars.py").read_text())
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bars-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[wm.worlds]\nbars = bars_package:BarsWorld\nbroken = bars_package:Nothing\n"
    )
    Path("params.yaml").write_text(PARAMS)
    monkeypatch.syspath_prepend(site)
    yield site
    worlds.get.cache_clear()
    sys.modules.pop("bars_package", None)


def test_the_stages_and_dasks_workers_find_it(package, project):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{package}", "WM_WORKERS": "2"}
    words = [sys.executable, "-m", "wm", "collect", "maze"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    data = EpisodeSet(project / "runs/maze/collect")
    assert data.world == "maze" and len(data) == 12 and data.columns[1].shape == (1,)


def test_an_entry_point_that_is_not_there_or_broken_is_a_sentence(package):
    assert load(name="maze", installed="bars").spec.name == "bars"
    with pytest.raises(UserError, match=r"worlds.maze.installed is 'cave'.*\(there is bars, broken\)"):
        load(name="maze", installed="cave")
    with pytest.raises(UserError, match="bars_package:Nothing, which cannot be imported"):
        load(name="maze", installed="broken")


def test_the_name_of_the_entry_is_the_one_that_agents_keep(package):
    worlds.register("maze", worlds.INSTALLED, {"name": "maze", "installed": "bars"})
    assert worlds.get("maze").spec.name == "maze"
