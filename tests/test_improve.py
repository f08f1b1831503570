"""improve: a round a run, on a branch of its own; a failed round is finished first; a commit brings its hashes back."""

from __future__ import annotations

import re
import time

import pytest
from ruamel.yaml import YAML

from tests.flow_project import Project


@pytest.fixture
def project(tmp_path, server):
    return Project(tmp_path / "project", PREFECT_API_URL=server)


def commits(project) -> list[str]:
    """Subjects of the branch's commits, newest first, without those of the branch that it came from."""
    return project.git("log", "--format=%s", "HEAD..improve/tiny").splitlines()


def test_rounds_are_added_one_by_one_and_each_commit_brings_its_hashes_back(project, tmp_path):
    project.set("evolve", number=13)
    project.git("commit", "-qam", "evolve fails")
    code, output = project.run("flows.improve", "tiny")
    assert code == 1 and "error: tiny-r2: evolve@tiny failed" in output and commits(project) == []
    before = (project.folder / "params.yaml").read_text()

    folder = ".wm/improve/tiny"
    project.set("evolve", folder, number=1)
    code, output = project.run("flows.improve", "tiny")
    assert code == 0, output
    assert re.search("tiny-r2: score.mean 1.5; commit [0-9a-f]{12}; its name is improve/tiny:tiny-r2", output)
    assert "collect@tiny' - Finished in state Cached" in output  # it went on
    code, output = project.run("flows.improve", "tiny")
    assert code == 0, output
    assert commits(project) == ["tiny-r3: score.mean 1.5", "tiny-r2: score.mean 1.5"]

    assert (project.folder / "params.yaml").read_text() == before and not (project.folder / "dvc.lock").exists()
    params = YAML(typ="safe").load(project.git("show", "improve/tiny:params.yaml"))
    assert params["models"]["tiny-r3"] == params["models"]["tiny"] | {"after": "tiny-r2", "actor": "tiny-r2"}
    assert list(params["agents"]) == ["tiny", "tiny-r2", "tiny-r3"]

    other = project.clone(tmp_path / "other")  # which has no cache and no remote
    other.git("checkout", "-q", "origin/improve/tiny~1")
    assert other.git("ls-files", "dvc.lock", "metrics").split() == ["dvc.lock", "metrics/tiny-r2.json"]
    code, output = other.run("dvc", "repro", "evaluate@tiny-r2")
    assert code == 0 and output.count("Running stage") == 11, output
    assert other.git("status", "--porcelain") == "", "the hashes are others"


def test_its_own_server_ends_with_it(tmp_path):
    project = Project(tmp_path / "project")
    project.set("collect", number=13)
    project.git("commit", "-qam", "collect fails")
    code, output = project.run("flows.improve", "tiny")
    assert code == 1 and "error: tiny-r2: collect@tiny failed" in output
    for _ in range(100):
        if not project.processes():
            return
        time.sleep(0.1)
    raise AssertionError(project.processes())
