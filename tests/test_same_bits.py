"""tools.same_bits on a small repository: what differs is found, and only proven records are said again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tools.same_bits import cases, moved
from tools.same_bits.__main__ import main
from wm.records import gitfiles
from wm.records.history import Snapshot

ROOT = Path(__file__).parents[1]

STAGE = """\
import sys
from pathlib import Path

from wm.core import word

stage, name = (sys.argv + [""])[1:3]
if stage != "params":
    out = Path("runs", name, stage)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text(f"one\\n{word.WORD}\\n")
    if stage == "evaluate":
        Path("metrics").mkdir(exist_ok=True)
        Path("metrics", f"{name}.json").write_text("{}")
"""

PARAMS = """\
experiments:
  small: {world: car, encode: {batch: 8, workers: 2}, evaluate: {episodes: 1}}
  other: {world: car, encode: {batch: 9}}
models:
  smoke: {experiment: small}
  take_cover_smoke: {experiment: small}
  second: {experiment: other}
"""

GRAPH = """\
stages:
  encode:
    foreach: ${models}
    do:
      cmd: python -m wm encode ${key}
      params: ["experiments.${item.experiment}.world", "experiments.${item.experiment}.encode"]
      deps: [wm/__main__.py, wm/word.py]
      outs: ["runs/${key}/encode"]
  evaluate:
    foreach: {smoke: small}
    do:
      cmd: python -m wm evaluate ${key}
      params: ["experiments.${item}.evaluate"]
      deps: ["runs/${key}/encode", wm/__main__.py, wm/word.py]
      outs: ["runs/${key}/evaluate"]
      metrics: ["metrics/${key}.json": {cache: false}]
  gone:
    cmd: python -m wm gone smoke
    deps: [wm/__main__.py]
    outs: [runs/smoke/gone]
"""

MOVED_PARAMS = """\
worlds: {car: {}}
experiments:
  small: {encode: {batch: 8}, evaluate: {episodes: 1}}
  other: {encode: {batch: 10}}
models:
  smoke: {experiment: small, world: car}
  take_cover_smoke: {experiment: small, world: car}
  second: {experiment: other, world: car}
"""


class Repository:
    """A repository whose stages write a word, and the commands that a developer gives in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.run("git", "init", "-q")
        self.run("git", "config", "user.name", "t")
        self.run("git", "config", "user.email", "t@t")
        for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
            self.write(name, (ROOT / name).read_text())
        self.write(".gitignore", "/runs\n__pycache__\n")
        self.write("wm/__main__.py", STAGE.replace("wm.core", "wm"))
        self.write("wm/__init__.py", "")
        self.write("wm/word.py", "WORD = 'two'\n")
        self.write("params.yaml", PARAMS)
        self.write("dvc.yaml", GRAPH)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def run(self, *words: str) -> str:
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(words, cwd=self.folder, env=env, check=True, text=True, stdout=subprocess.PIPE)
        return done.stdout

    def commit(self) -> str:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "a step")
        return self.run("git", "rev-parse", "HEAD").strip()

    def dvc(self, *words: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *words)

    def move_code(self, word: str = "two") -> str:
        """The code's file into a room, the world's name to the models; a model's number changes, a stage goes."""
        self.run("git", "rm", "-q", "wm/word.py")
        self.write("wm/core/word.py", f"WORD = '{word}'\n")
        self.write("wm/core/__init__.py", "")
        self.write("wm/__main__.py", STAGE)
        self.write("params.yaml", MOVED_PARAMS)
        graph = GRAPH.replace("wm/word.py", "wm/core").partition("  gone:")[0]
        graph = graph.replace('"experiments.${item.experiment}.world"', '"models.${key}.world", "worlds.${item.world}"')
        self.write("dvc.yaml", graph)
        return self.commit()


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Repository(folder)


def test_proven_records_get_the_new_codes_rows(repository, tmp_path, capsys):
    repository.write("wm/word.py", "WORD = 'earlier'\n")
    repository.dvc("repro", "-q", "encode@take_cover_smoke")
    repository.write("wm/word.py", "WORD = 'two'\n")
    repository.dvc("repro", "-q", "evaluate", "encode@second", "gone")
    old, new = repository.commit(), repository.move_code()
    lock = repository.folder / "dvc.lock"
    recorded = YAML(typ="safe").load(lock)["stages"]

    assert main([old, new, "--results", str(tmp_path / "results"), "--record"]) == 0

    assert "2 records have the new rows: `encode` of smoke; `evaluate` of smoke." in capsys.readouterr().out
    found = YAML(typ="safe").load(lock)["stages"]
    assert set(found) == {"encode@smoke", "evaluate@smoke", "encode@take_cover_smoke", "encode@second"}
    for address in ("encode@take_cover_smoke", "encode@second"):  # made by other code; with another number
        assert found[address] == recorded[address]
    page = (repository.folder / "docs/same-bits.md").read_text()
    assert f"`{old}` to `{new}`" in page and "experiments.other.encode.batch was 9 and is 10" in page
    assert repository.dvc("status", "evaluate@smoke").strip() == "Data and pipelines are up to date."
    said = lock.read_text()
    repository.dvc("repro", "-q", "-f", "evaluate@smoke")
    assert lock.read_text() == said  # DVC writes the same of what it has run
    repository.commit()
    step = Snapshot().step("evaluate", "smoke")
    assert gitfiles.commit_of(step) == old, "lineage names the commit that rewrote the rows, not the one that computed"
    assert not gitfiles.changed_since(step, old)


def test_what_differs_is_named_and_nothing_is_recorded(repository, tmp_path, capsys):
    repository.dvc("repro", "-q", "evaluate@smoke")
    old, new = repository.commit(), repository.move_code(word="three")
    lock = (repository.folder / "dvc.lock").read_text()
    words = [old, new, "--results", str(tmp_path / "results")]

    assert main([*words, "--only", "smoke"]) == 1
    assert main([*words, "--record"]) == 2

    output = capsys.readouterr()
    assert "runs/smoke/encode/metrics.jsonl differs in line 2: two | three" in output.out
    assert "smoke, take_cover_smoke differ, so nothing is recorded" in output.err
    assert (repository.folder / "dvc.lock").read_text() == lock
    assert not repository.run("git", "status", "--porcelain").strip()


def test_every_option_in_use_is_compared_in_some_case():
    paths = (ROOT / "params.yaml", ROOT / "trials/params.yaml")
    contents = [YAML(typ="safe").load(path) for path in paths if path.exists()]
    assert cases.uncovered(contents, cases.load()) == {}
    contents[0]["experiments"]["smoke"]["evolve"]["new"] = 1
    contents[0]["experiments"]["car_racing"]["evolve"]["newer"] = 1
    assert cases.uncovered(contents, cases.load()) == {"evolve.newer": "car_racing"}


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ({"a.x": 1, "models.m.world": "w", "worlds.w": {"fps": 50}}, []),
        ({"a.x": 1, "worlds.w": {"fps": 50}}, []),
        ({"a.x": 1, "models.m.world": "v"}, ["world was 'w' and is 'v'"]),
        ({"a.x": 1}, ["world is gone"]),
        ({"a.x": True, "models.m.world": "w"}, ["a.x was 1 and is True"]),
        ({"a": {"x": 1, "workers": 3}, "models.m.world": "w", "a.y": 2}, ["a.y is new"]),
    ],
)
def test_numbers_may_move_and_not_change(new, expected):
    old = {"params.yaml": {"a": {"x": 1, "checkpoint_every": 5}, "experiments.e.world": "w"}}
    assert moved.differences(old, {"params.yaml": new}, "w") == expected
