"""A tiny project for tests of flows/: real git, real DVC, the real graph, and stages that write a line."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from wm.stages import STAGES

ROOT = Path(__file__).parents[1]
SETTINGS = ("DASK_", "MLFLOW_", "PREFECT_", "WM_")
"""How the names of settings begin that a person's shell does not have, though the process of the tests does."""
STAGES = tuple(STAGES)

PARAMS = """\
worlds:
  none:
    own: none:None
experiments:
  tiny:
    collect: {seconds: 0, number: 1}
    train_vae: {seconds: 0, number: 1}
    encode: {seconds: 0, number: 1}
    train_mdn: {seconds: 0, number: 1}
    evolve: {seconds: 0, number: 1, generations: 5}
    evaluate: {seconds: 0, number: 1}
    gate: {number: 1}
machines:
  big:
    train_vae: {number: 7}
    gate: {number: 1}
models:
  tiny: {experiment: tiny, world: none, code: wm, after: zero, actor: zero, seed: 1}
agents:
  tiny: {experiment: tiny, world: none, code: wm, model: tiny, after: zero, tau: 1.0, seed: 1}
"""

PROGRAM = """\
import json, os, subprocess, sys, time
from pathlib import Path
from ruamel.yaml import YAML

words = sys.argv[2:] if sys.argv[1] == "agent" else sys.argv[1:]  # `wm agent gate NAME`
stage, name = (words + [None])[:2]
params = YAML(typ="safe").load(Path("params.yaml"))
if words == ["params", "check"]:
    if "typo" in params:
        sys.exit("error: params.yaml: unknown key 'typo'")
elif stage == "estimate":
    if "--seconds" in sys.argv:
        seconds = {word: 3.0 for word in sys.argv if "@" in word}
        Path(sys.argv[sys.argv.index("--seconds") + 1]).write_text(json.dumps(seconds))
    print("a moment")
    if sys.argv[-2:] == ["--budget", "2s"]:
        sys.exit("error: 2 s is too short: the first rescoring would take longer")
elif stage == "ui":
    from wm.records import tracking
    tracking.ui(int(sys.argv[3]))
else:
    section = "agents" if stage in ("evolve", "evaluate", "gate") else "models"
    entry = params[section][name]
    experiment = params["experiments"][entry["experiment"]]
    numbers = experiment[stage]
    if numbers["number"] == 13:
        sys.exit("error: thirteen")
    if stage == "gate":
        if numbers["number"] == 2:
            print("error: nobody answers", file=sys.stderr)
            sys.exit(2)
        agent = json.loads(Path("runs", name, "evolve/out.json").read_text())
        if agent != ["evolve", name, experiment["evolve"]["number"], entry["seed"]]:
            sys.exit("error: this is another agent")
        decision = {"decision": "promoted", "why": "it is better", "model": "tiny-agent"}
        Path(".wm/gate", name, "decision.json").write_text(json.dumps(decision))
        sys.exit(0)
    hurry = Path(".wm/hurry")
    if numbers["seconds"] > 30 and not hurry.exists():  # in a session of its own, and it holds the run's output open
        subprocess.Popen(["sleep", "300"], start_new_session=True)
    print("working", flush=True)
    if stage == "encode":
        json.loads(Path("runs", name, "train_vae/out.json").read_text())
    if stage == "evolve" and os.environ.get("WM_DEADLINE") and numbers["generations"] > 2:
        from wm.search.budget import OutOfTime
        Path(f".wm/work/evolve-{name}-0123456789abcdef").mkdir(parents=True, exist_ok=True)
        ended = OutOfTime(2, numbers["generations"], 1.0)
        ended.write(Path(f".wm/work/evolve-{name}-0123456789abcdef"))
        print(f"error: {ended}")
        sys.exit(ended.code)
    for _ in range(10 * numbers["seconds"]):
        if hurry.exists():
            break
        time.sleep(0.1)
    out = Path("runs", name, stage)
    out.mkdir(parents=True)
    (out / "out.json").write_text(json.dumps([stage, name, numbers["number"], entry["seed"]]))
    if stage == "evaluate":
        Path("metrics").mkdir(exist_ok=True)
        Path("metrics", f"{name}.json").write_text(json.dumps({"score": {"mean": 0.5 + entry["seed"]}}))
"""

PACKAGE = """\
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
"""

SCHEMA = """\
from pathlib import Path
from types import SimpleNamespace

from ruamel.yaml import YAML


def load():
    sections = YAML(typ="safe").load(Path("params.yaml"))
    return SimpleNamespace(
        **{key: {name: SimpleNamespace(**entry) for name, entry in sections[key].items()} for key in sections}
    )
"""


class Project:
    """A project folder and the commands that a user gives in it."""

    def __init__(self, folder: Path, **env: str):
        self.folder = folder
        self.env = {key: text for key, text in os.environ.items() if not key.startswith(SETTINGS)}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env |= {"PYTHONPATH": str(ROOT), "PATH": path, "WM_TRACKING": "off", **env}
        self._write()
        for words in ("init -q", "add -A", "commit -q -m tiny"):
            self.git(*words.split())

    def _write(self) -> None:
        (self.folder / "wm").mkdir(parents=True)
        for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
            (self.folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        # Only the commands and the schema of params.yaml are the tiny project's own; the rest is the real `wm`.
        (self.folder / "wm/__init__.py").write_text(PACKAGE)
        (self.folder / "wm/__main__.py").write_text(PROGRAM)
        (self.folder / "wm/params.py").write_text(SCHEMA)
        (self.folder / "params.yaml").write_text(PARAMS)
        graph = YAML(typ="safe").load(ROOT / "dvc.yaml")
        for stage in graph["stages"].values():  # the same graph, without the code and the tables that are not there
            stage["do"].pop("plots", None)
            data = [dep for dep in stage["do"]["deps"] if dep.startswith("runs/")]
            stage["do"]["deps"] = [*data, "wm/__main__.py"]
        YAML().dump(graph, self.folder / "dvc.yaml")
        for stage in ("collect", "train_vae", "train_mdn", "evolve"):
            (self.folder / "runs/zero" / stage).mkdir(parents=True)
            (self.folder / "runs/zero" / stage / "empty.json").write_text("{}\n")

    def clone(self, folder: Path) -> Project:
        """Another checkout of the same commit."""
        subprocess.run(["git", "clone", "-q", str(self.folder), str(folder)], check=True, env=self.env)
        other = copy.copy(self)
        other.folder = folder
        return other

    def copy(self, folder: Path, **env: str) -> Project:
        """The same folder once more, with all that was made in it."""
        shutil.copytree(self.folder, folder, symlinks=True)
        other = copy.copy(self)
        other.folder, other.env = folder, self.env | env
        return other

    def git(self, *words: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, check=True, text=True, stdout=subprocess.PIPE
        ).stdout

    def set(self, stage: str, folder: str = ".", **numbers: int) -> None:
        """Changes numbers of a stage in params.yaml."""
        path = self.folder / folder / "params.yaml"
        params = YAML(typ="safe").load(path)
        params["experiments"]["tiny"][stage].update(numbers)
        YAML().dump(params, path)

    def start(self, *words: str) -> subprocess.Popen:
        """Starts `python -m …` as the leader of a process group, as a shell does."""
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Runs `python -m …` to its end: exit code and all that it printed."""
        return finish(self.start(*words))

    def run_script(self, script: str) -> tuple[int, str]:
        """Runs a Python program: exit code and all that it printed."""
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=self.folder, env=self.env, text=True, capture_output=True
        )
        return done.returncode, done.stdout + (done.stderr if done.returncode else "")

    def pipeline(self, name: str = "tiny") -> tuple[int, str]:
        return self.run("flows.pipeline", name)

    def processes(self) -> list[str]:
        """Command lines of everything that runs in the project's folder."""
        found = []
        for process in psutil.process_iter(["cwd", "cmdline", "status"]):
            if process.info["cwd"] == str(self.folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.info["cmdline"] or []))
        return found


def finish(process: subprocess.Popen, patience: float = 600) -> tuple[int, str]:
    """Waits for the end: exit code and all that it printed."""
    output, _ = process.communicate(timeout=patience)
    return process.returncode, output
