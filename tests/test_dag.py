"""dvc.yaml, params.yaml and the code tell one story: inputs, outputs, numbers, and the code that a stage imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from wm import params
from wm.records import history
from wm.run import OF_AGENT, OF_MODEL, plan

dvc_repo = pytest.importorskip("dvc.repo")
ROOT = Path(__file__).parent.parent
SHELL = {"wm/records/tracking.py"}
"""Around a stage: they cannot change its outputs. The command line starts tracking."""


@pytest.fixture(scope="module")
def stages():
    with dvc_repo.Repo(str(ROOT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


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
                    if file.exists() and file not in seen and str(file.relative_to(ROOT)) not in SHELL:
                        imported(file, seen)
    return seen


def dependencies(stage) -> set[str]:
    return {Path(dep.fs_path).relative_to(ROOT).as_posix() for dep in stage.deps if hasattr(dep, "fs_path")}


@pytest.mark.parametrize("kind", OF_MODEL + OF_AGENT)
def test_the_code_that_a_stage_imports_is_among_its_deps(stages, kind):
    listed = {dep for dep in dependencies(stages[f"{kind}@smoke"]) if dep.startswith("wm/")}
    for file in imported(ROOT / "wm" / "stages" / f"{kind}.py", set()):
        name = file.relative_to(ROOT).as_posix()
        if name.endswith("__init__.py") or name == "wm/worlds/base.py":  # names and types, no behaviour
            continue
        covered = any(name == dep or name.startswith(f"{dep}/") for dep in listed)
        assert covered, f"{kind} imports {name}, which dvc.yaml does not list among its deps"
    surplus = {dep for dep in listed if dep.endswith(".py")} - {
        file.relative_to(ROOT).as_posix() for file in imported(ROOT / "wm" / "stages" / f"{kind}.py", set())
    }
    assert not surplus, f"dvc.yaml lists {surplus} for {kind}, which does not import them"


@pytest.mark.parametrize("kind", OF_MODEL + OF_AGENT)
def test_a_stage_reads_and_writes_what_dvc_yaml_says(stages, kind):
    everything = params.load(ROOT / "params.yaml")
    for name in everything.models if kind in OF_MODEL else everything.agents:
        stage, todo = stages[f"{kind}@{name}"], plan(everything, kind, name)
        assert stage.cmd == f"python -m wm {kind} {name}"
        data = {dep for dep in dependencies(stage) if dep.startswith("runs/")}
        assert data == {str(path) for path in todo.inputs.values()}
        outs = {Path(out.fs_path).relative_to(ROOT).as_posix() for out in stage.outs}
        assert outs == {str(todo.output)} | ({f"metrics/{name}.json"} if kind == "evaluate" else set())


@pytest.mark.parametrize("kind", OF_MODEL + OF_AGENT)
def test_a_step_without_a_record_names_the_numbers_that_dvc_yaml_names(stages, kind, monkeypatch):
    monkeypatch.chdir(ROOT)
    snapshot = history.Snapshot()
    monkeypatch.setitem(vars(snapshot), "lock", {})
    [step] = [step for step in snapshot.steps("smoke") if step.stage == kind]
    named = {name for dep in stages[f"{kind}@smoke"].deps for name in getattr(dep, "params", ())}
    assert {".".join(key.split(".")[:3]) for key in step.params} == named


@pytest.mark.parametrize("kind", OF_MODEL + OF_AGENT)
def test_a_stage_is_given_only_numbers_that_dvc_yaml_names(stages, kind):
    everything = params.load(ROOT / "params.yaml")
    todo = plan(everything, kind, "smoke")
    named = {key for dep in stages[f"{kind}@smoke"].deps for key in getattr(dep, "params", [])}
    expected = {f"experiments.smoke.{kind}"}
    expected |= {"experiments.smoke.world"} & {f"experiments.smoke.{key}" for key in todo.arguments}
    own = [key for key in ("seed", "tau") if key in todo.arguments]
    expected |= {f"{'models' if kind in OF_MODEL else 'agents'}.smoke.{key}" for key in own}
    assert sorted(own) == sorted(history.OWN.get(kind, ()))
    assert named == expected
