"""A seed, a budget, a machine: a run on a branch of its own, whose commit brings its hashes back anywhere."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows import recipe, seeds
from flows.variants import Variant
from tests.flow_project import STAGES, Project, finish
from tests.test_flow import read_until, verdicts
from wm.core.errors import UserError

PARAMS = recipe.parse((Path(__file__).parent.parent / "params.yaml").read_text())


@pytest.fixture(scope="module")
def project(tmp_path_factory, server):
    """A project for the runs of this file, each of which is on a branch of its own: what one made, the next has."""
    return Project(tmp_path_factory.mktemp("variants") / "project", PREFECT_API_URL=server)


@pytest.fixture(scope="module")
def seed4(project):
    """A run with seed 4: what the project was before, exit code, output."""
    before = project.git("rev-parse", "HEAD"), (project.folder / "params.yaml").read_text()
    code, output = project.run("flows.pipeline", "tiny", "--seed", "4")
    assert code == 0, output
    return before, output


@pytest.fixture(scope="module")
def big(project, seed4):
    """What a run on another machine printed; everything but its own numbers was made here."""
    assert project.run("dvc", "repro", "evaluate@tiny")[0] == 0
    for words in ("add -A", "commit -q -m made"):
        project.git(*words.split())
    code, output = project.run("flows.pipeline", "tiny", "--machine", "big")
    assert code == 0, output
    return output


@pytest.fixture(scope="module")
def revived(project):
    """What the second run with seed 5 printed, which asked for the gate; the first one was killed."""
    project.set("train_vae", seconds=300)
    run = project.start("flows.pipeline", "tiny", "--seed", "5")
    read_until(run, "Task run 'train_vae@tiny' - working")
    run.kill()
    finish(run)
    (project.folder / ".wm/run/tiny-seed5/.wm/hurry").touch()
    tracked = copy.copy(project)
    tracked.env = project.env | {"WM_TRACKING": "on", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    code, output = tracked.run("flows.pipeline", "tiny", "--seed", "5", "--gate")
    assert code == 0, output
    project.set("train_vae", seconds=0)
    return output


def params_of(project: Project, branch: str) -> dict:
    return YAML(typ="safe").load(project.git("show", f"{branch}:params.yaml"))


def last(output: str) -> str:
    return output.splitlines()[-1]


# ---------------------------------------------------------------- numbers


def test_a_seed_replaces_those_of_all_that_the_agent_comes_from_and_no_other():
    before = copy.deepcopy(PARAMS)
    found = Variant(seed=7).of(PARAMS, "car_racing")
    mine = set(recipe.chain(PARAMS, "car_racing"))
    for section in ("models", "agents"):
        for name, entry in found[section].items():
            assert entry["seed"] == (7 if (section, name) in mine else PARAMS[section][name]["seed"])
    assert before == PARAMS and found["experiments"] == PARAMS["experiments"]


def test_a_machine_changes_the_experiments_in_use_and_no_other():
    params = {**PARAMS, "machines": {"m": {"encode": {"batch": 5}, "evolve": {"slots": 3}}}}
    found = Variant(machine="m").of(params, "car_racing")
    used = {PARAMS[section][name]["experiment"] for section, name in recipe.chain(PARAMS, "car_racing")}
    for name, stages in found["experiments"].items():
        wanted = copy.deepcopy(PARAMS["experiments"][name])
        for stage, numbers_ in params["machines"]["m"].items():
            if name in used and stage in wanted:
                wanted[stage].update(numbers_)
        assert stages == wanted
    with pytest.raises(UserError, match=r"there is no machine 'cray' in `machines` of params\.yaml: expected one of m"):
        Variant(machine="cray").of(params, "smoke")


def test_a_budget_shortens_no_search_that_the_agent_builds_on():
    params = copy.deepcopy(PARAMS)
    params["agents"]["second"] = params["agents"]["smoke"] | {"after": "smoke"}
    found = Variant(budget="1h").of(params, "second")
    recipe.search(found, "second")["generations"] = 1
    assert recipe.search(found, "smoke") == recipe.search(params, "smoke")
    assert found["agents"]["second"]["experiment"].endswith("smoke")  # whose runs MLflow keeps apart
    assert Variant(budget="1h").of(params, "smoke") == params


def test_names():
    assert not Variant() and Variant(seed=0)
    assert Variant(seed=1, budget="1h 30m", machine="gpu16").branch("smoke") == "run/smoke-seed1-gpu16-1h30m"
    assert seeds.parse("0, 2,1") == [0, 2, 1]
    for text in ("", "1,1", "01,1", "a", "-1", "1,"):
        with pytest.raises(UserError, match="expected numbers that differ"):
            seeds.parse(text)


def test_the_interval_is_students():
    low, high = seeds.t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)


# ---------------------------------------------------------------- runs


def test_a_seed_is_a_branch_whose_commit_brings_its_hashes_back(project, seed4, tmp_path):
    before, output = seed4
    assert last(output) == "run/tiny-seed4:tiny: score.mean 4.5"
    assert verdicts(output) == dict.fromkeys(STAGES, "Completed")
    assert "gate: skipped: a run on a branch of its own, which nobody asked to make champion (--gate)" in output
    assert (project.git("rev-parse", "HEAD"), (project.folder / "params.yaml").read_text()) == before
    assert not (project.folder / "dvc.lock").exists() and not (project.folder / "runs/tiny").exists()
    assert project.git("status", "--porcelain") == ""
    params = params_of(project, "run/tiny-seed4")
    assert params["models"]["tiny"]["seed"] == params["agents"]["tiny"]["seed"] == 4
    message = project.git("log", "-1", "--format=%B", "run/tiny-seed4")
    assert message.strip() == "tiny with seed4: score.mean 4.5\n\n`dvc repro evaluate@tiny` brings it back."

    shutil.rmtree(project.folder / ".wm/run")  # the branch and the cache have all that the worktree had
    code, output = project.run("flows.pipeline", "tiny", "--seed", "4")
    assert code == 0 and verdicts(output) == dict.fromkeys(STAGES, "Cached"), output
    assert project.git("log", "-1", "--format=%B", "run/tiny-seed4") == message

    other = project.clone(tmp_path / "other")  # which has no cache and no remote
    other.git("checkout", "-q", "origin/run/tiny-seed4")
    code, output = other.run("dvc", "repro", "evaluate@tiny")
    assert code == 0 and output.count("Running stage") == 6, output
    assert other.git("status", "--porcelain") == "", "the hashes are others"


def test_what_a_variant_shares_is_cached_and_takes_no_room(project, big):
    assert last(big) == "run/tiny-big:tiny: score.mean 1.5"
    ran = dict.fromkeys(STAGES[1:5], "Completed")  # the last: its input came out the same
    assert verdicts(big) == {"collect": "Cached", **ran, "evaluate": "Restored"}
    assert params_of(project, "run/tiny-big")["experiments"]["tiny"]["train_vae"] == {"seconds": 0, "number": 7}
    assert (project.folder / ".wm/run/tiny-big/runs/tiny/collect/out.json").stat().st_nlink == 2  # with the cache
    assert json.loads((project.folder / "runs/tiny/train_vae/out.json").read_text()) == ["train_vae", "tiny", 1, 1]


@pytest.mark.usefixtures("big")  # after which the first four stages are in the cache
def test_a_search_that_is_out_of_time_is_evaluated_and_its_branch_says_how_long_it_was(project):
    project.set("evolve", number=4)
    project.git("commit", "-qam", "another search")
    before = (project.folder / "params.yaml").read_text()
    code, output = project.run("flows.pipeline", "tiny", "--budget", "1h")
    assert code == 0 and last(output) == "run/tiny-1h:tiny: score.mean 1.5", output
    assert verdicts(output) == dict.fromkeys(STAGES[:4], "Cached") | dict.fromkeys(STAGES[4:], "Completed")
    assert "the time is over after generation 2 of 5" in output and "this run's params.yaml says that now" in output
    assert (project.folder / "params.yaml").read_text() == before and project.git("status", "--porcelain") == ""
    assert recipe.search(params_of(project, "run/tiny-1h"), "tiny")["generations"] == 2
    code, output = project.run("flows.pipeline", "tiny", "--budget", "1h")
    assert code == 0 and verdicts(output) == dict.fromkeys(STAGES, "Cached")

    work = project.folder / ".wm/run/tiny-1h/.wm/work"  # of an agent `tiny-1`, whose name begins alike
    (work / "evolve-tiny-1.lock").touch()
    (other := work / f"evolve-tiny-1-{'0' * 16}/ended.json").parent.mkdir()
    other.write_text('{"generation": 4}')
    project.set("evolve", number=2)  # the same budget for another search: all generations again
    code, output = project.run("flows.pipeline", "tiny", "--budget", "1h")
    assert code == 0 and "the time is over after generation 2 of 5" in output, output
    assert verdicts(output) == dict.fromkeys(STAGES[:4], "Cached") | dict.fromkeys(STAGES[4:], "Completed")
    assert other.exists() and recipe.search(params_of(project, "run/tiny-1h"), "tiny")["generations"] == 2
    project.git("checkout", "-q", "params.yaml")


def test_a_killed_variant_goes_on_where_it_was(revived):
    found = verdicts(revived)
    assert {stage: found[stage] for stage in STAGES} == {"collect": "Cached"} | dict.fromkeys(STAGES[1:], "Completed")


def test_seeds_are_runs_one_after_another_and_a_table(project, seed4):
    code, output = project.run("flows.pipeline", "tiny", "--seeds", "4,5")
    assert code == 0, output
    low, high = seeds.t_interval([4.5, 5.5])
    assert last(output) == f"mean over 2 seeds: 5.0, 95% t interval {low:.1f} to {high:.1f}"
    rows = re.findall(r"^ +(\d)  run/tiny-seed\1:tiny +(\S+)", output, re.MULTILINE)
    assert rows == [("4", "4.5"), ("5", "5.5")]


def test_the_gate_hears_of_a_variant_if_asked(revived):
    assert "gate: promoted: it is better" in revived and verdicts(revived)["gate"] == "Promoted"


def test_new_code_is_committed_first_and_then_followed(project, seed4):
    first = project.git("rev-parse", "run/tiny-seed4").strip()
    program = project.folder / "wm/__main__.py"
    program.write_text(program.read_text() + "# changed\n")
    code, output = project.run("flows.pipeline", "tiny", "--seed", "4")
    assert code == 2 and "error: wm/__main__.py is not as in the last commit" in last(output)
    project.git("commit", "-qam", "changed")
    code, output = project.run("flows.pipeline", "tiny", "--seed", "4")
    assert code == 0 and verdicts(output) == dict.fromkeys(STAGES, "Completed"), output
    assert project.git("show", "run/tiny-seed4:wm/__main__.py").endswith("# changed\n")
    assert project.git("merge-base", first, "run/tiny-seed4").strip() == first  # nothing is lost


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--seed", "-1"], "error: the seed is -1: expected 0 or more"),
        (["--machine", "cray"], "error: there is no machine 'cray' in `machines` of params.yaml: expected one of big"),
        (["--seeds", "1,a"], "error: the seeds are '1,a': expected numbers that differ, such as 0,1,2"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(tmp_path, options, sentence):
    project = Project(tmp_path / "project")
    code, output = project.run("flows.pipeline", "tiny", *options)
    assert code == 2 and output == f"{sentence}\n"
    assert not (project.folder / ".wm").exists() and "run/" not in project.git("branch", "--list")
