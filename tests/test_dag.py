"""dvc.yaml, params.yaml and the code tell one story: inputs, outputs, numbers, and the code that a stage imports."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import graph
from wm import params
from wm.core import plots
from wm.core.errors import UserError
from wm.records import dvcfiles, history
from wm.run import plan
from wm.stages import STAGES, of

dvc_repo = pytest.importorskip("dvc.repo")
ROOT = Path(__file__).parent.parent
AROUND = {"wm/records/tracking.py", "wm/params.py"}
"""Around a stage: they cannot change its outputs. The command line starts tracking."""
MOST_ROWS = 40
"""Of code, in dvc.yaml."""


@pytest.fixture(scope="module")
def stages():
    with dvc_repo.Repo(str(ROOT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


@pytest.fixture(scope="module")
def everything():
    return params.load(ROOT / "params.yaml")


def imported(path: Path, seen: set[Path]) -> set[Path]:
    """Every file of wm/ that `path` imports, inside functions too, and what those import."""
    seen.add(path)
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == "wm":
                stem = ROOT / name.replace(".", "/")
                for file in (stem.with_suffix(".py"), stem / "__init__.py"):
                    if file.exists() and file not in seen and str(file.relative_to(ROOT)) not in AROUND:
                        imported(file, seen)
    return seen


def dependencies(stage) -> set[str]:
    return {Path(dep.fs_path).relative_to(ROOT).as_posix() for dep in stage.deps if hasattr(dep, "fs_path")}


def numbers(stage) -> set[str]:
    """Keys of params.yaml, and those of trials/params.yaml behind its name."""
    found = set()
    for dep in stage.deps:
        file = Path(dep.fs_path).relative_to(ROOT).as_posix()
        found |= {key if file == "params.yaml" else f"{file}:{key}" for key in getattr(dep, "params", ())}
    return found


def entries(everything, kind: str) -> dict:
    return getattr(everything, STAGES[kind].of)


@pytest.mark.parametrize("kind", STAGES)
def test_the_code_that_a_stage_imports_is_among_its_deps(stages, kind):
    """And that of its world: `worlds.get` imports the class that the entry of `worlds` names."""
    files = imported(ROOT / "wm" / "stages" / f"{kind}.py", set())
    if STAGES[kind].plays:
        files |= imported(ROOT / "wm/worlds/car_racing/world.py", set())
    listed = {dep for dep in dependencies(stages[f"{kind}@smoke"]) if dep.startswith("wm/")}
    assert listed == set(STAGES[kind].code_of("wm/worlds/car_racing"))
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        if name.endswith("__init__.py") or (name == "wm/worlds/base.py" and not STAGES[kind].plays):
            assert len(listed) > 2  # names and types, no behaviour
            continue
        covered = any(name == dep or name.startswith(f"{dep}/") for dep in listed)
        assert covered, f"{kind} imports {name}, which dvc.yaml does not list among its deps"
    names = {file.relative_to(ROOT).as_posix() for file in files}
    surplus = [dep for dep in listed if not any(name == dep or name.startswith(f"{dep}/") for name in names)]
    assert not surplus, f"dvc.yaml lists {surplus} for {kind}, which does not import them"


@pytest.mark.parametrize("kind", STAGES)
def test_a_stage_reads_and_writes_what_dvc_yaml_says(stages, everything, kind):
    for name, entry in entries(everything, kind).items():
        stage, todo = stages[everything.address(kind, name)], plan(everything, kind, name)
        assert stage.cmd == f"python -m wm {kind} {name}"
        data = {str(path) for path in todo.inputs.values()}
        assert dependencies(stage) - {"params.yaml", "trials/params.yaml"} == data | {*STAGES[kind].code_of(entry.code)}
        outs = {Path(out.fs_path).relative_to(ROOT).as_posix() for out in stage.outs}
        scores = {f"metrics/{name}.json"} if kind == "evaluate" else set()
        assert outs == {str(todo.output)} | scores | ({f"plots/{name}/{kind}.tsv"} if kind in plots.STAGES else set())


@pytest.mark.parametrize("kind", STAGES)
def test_a_stage_is_given_only_numbers_that_dvc_yaml_names(stages, everything, kind):
    for name, entry in entries(everything, kind).items():
        todo, address = plan(everything, kind, name), everything.address(kind, name)
        file = "trials/params.yaml:" if address.startswith("trials/") else ""
        expected = {f"{file}experiments.{entry.experiment}.{kind}"}
        expected |= {f"worlds.{entry.world}"} if "world" in todo.arguments else set()
        expected |= {f"{file}{STAGES[kind].of}.{name}.{key}" for key in todo.arguments if key != "world"}
        assert numbers(stages[address]) == expected
        assert set(todo.arguments) == set(STAGES[kind].own)


@pytest.mark.parametrize("kind", STAGES)
def test_a_step_without_a_record_names_the_numbers_that_dvc_yaml_names(stages, kind, monkeypatch):
    monkeypatch.chdir(ROOT)
    snapshot = history.Snapshot()
    monkeypatch.setitem(vars(snapshot), "lock", {})
    [step] = [step for step in snapshot.steps("smoke") if step.stage == kind]
    assert {".".join(key.split(".")[: 2 if key.startswith("worlds") else 3]) for key in step.params} == numbers(
        stages[f"{kind}@smoke"]
    )
    [trial] = [step for step in snapshot.steps("dreamer-2") if step.address == f"{kind}@dreamer-2"]
    assert trial.target == f"trials/dvc.yaml:{kind}@dreamer-2" and set(trial.inputs) < dependencies(
        stages[trial.target]
    )


def test_every_entry_has_a_pipeline_of_its_own_and_the_code_of_a_stage_is_a_few_rows(stages, everything):
    assert set(stages) == {
        everything.address(kind, name) for section in ("models", "agents") for kind in of(section)
        for name in getattr(everything, section)
    }  # fmt: skip
    rows = [dep for stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values() for dep in stage["do"]["deps"]]
    assert len([dep for dep in rows if dep.startswith(("wm/", "${item.code}"))]) <= MOST_ROWS


def test_trials_have_the_stages_of_dvc_yaml():
    ours, theirs = (YAML(typ="safe").load(ROOT / path)["stages"] for path in ("dvc.yaml", "trials/dvc.yaml"))
    for kind, stage in theirs.items():
        assert stage["do"].pop("wdir") == ".."
        plain = [key for key in stage["do"]["params"] if isinstance(key, str)]
        (named,) = [key for key in stage["do"]["params"] if not isinstance(key, str)]
        assert all(key.startswith("worlds.") for key in plain)
        stage["do"]["params"] = sorted([*plain, *named["trials/params.yaml"]])
        ours[kind]["do"]["params"].sort()
    assert theirs == ours


STRAYS = (".world.py.swp", ".world.py.swo", "4913", "#world.py#", "world.py~", ".#world.py", ".hidden.py", "notes.txt")


def test_what_editors_leave_changes_no_hash_and_the_hashes_are_dvcs(tmp_path, monkeypatch):
    """In a room, in a folder of one's own that plays a world, and beside them; a module changes the hash of both."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / ".dvcignore", ".")
    shutil.copytree(ROOT / "wm" / "worlds", "wm/worlds", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree("wm/worlds/car_racing", "mine")
    deps = {"a": "wm/worlds", "b": "mine", "c": "wm/worlds/base.py"}
    YAML().dump({"stages": {name: {"cmd": "x", "deps": [path]} for name, path in deps.items()}}, Path("dvc.yaml"))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "commit", "-f", "-q"], check=True)

    def changed() -> list[str]:
        with dvc_repo.Repo(".") as repo, dvc_repo.lock_repo(repo):
            found = sorted(stage.addressing for stage in repo.index.stages if stage.changed())
        lock = YAML(typ="safe").load(Path("dvc.lock"))["stages"]
        recorded = {name: lock[name]["deps"][0]["md5"] for name in deps}
        assert found == [name for name, path in deps.items() if dvcfiles.md5(path) != recorded[name]]
        return found

    assert changed() == []
    for folder in ("wm/worlds", "wm/worlds/car_racing", "mine"):
        for stray in STRAYS if folder.startswith("wm/") else STRAYS[:6]:
            Path(folder, stray).write_text("stray")
        Path(folder, "empty").mkdir()
        Path(folder, "__pycache__").mkdir()
        Path(folder, "__pycache__", "world.cpython-311.pyc").write_text("stray")
    assert changed() == []
    Path("wm/worlds/new.py").write_text("")
    Path("mine/numbers.json").write_text("{}")
    assert changed() == ["a", "b"]


def test_a_trial_is_not_sent_to_workers_who_have_no_lock_file_of_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="ablation is one of trials/, whose stages run in place alone"):
        graph.plan("ablation", remote=True)
