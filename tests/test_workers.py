"""Stages on workers: two checkouts, a remote between them, and a flow whose dvc.lock is as if all had run in place."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time

import pytest

from flows import checkout, lockfile
from tests.flow_project import STAGES, Project
from wm.core.errors import UserError

TRACKED = {"WM_TRACKING": "on", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
"""By an MLflow server that is not there."""


@pytest.fixture
def project(tmp_path, server):
    return Project(tmp_path / "project", PREFECT_API_URL=server)


def share(project: Project, *others: Project) -> None:
    """A DVC remote for all of them."""
    for each in (project, *others):
        remote = project.folder.with_name("remote")
        assert each.run("dvc", "remote", "add", "--local", "--default", "storage", str(remote))[0] == 0


def verdicts(output: str) -> dict[str, str]:
    return dict(re.findall(r"Task run '(\w+)@tiny' - Finished in state (\w+)\(", output))


def logs(project: Project) -> set[str]:
    """The stages that were handed to DVC in a checkout."""
    return {path.stem.partition("@")[0] for path in (project.folder / ".wm/logs").glob("*tiny.log")}


def test_each_stage_runs_in_the_checkout_of_its_pool_and_the_lock_is_that_of_a_run_in_place(project, made, tmp_path):
    alone, (cpu, gpu) = made, (project.clone(tmp_path / name) for name in ("cpu", "gpu"))
    share(project, cpu, gpu)
    assert project.run("dvc", "repro", "encode@tiny")[0] == 0  # half of it, in place: a worker is a matter of 10 s
    assert project.run("dvc", "push", "--run-cache")[0] == 0
    agent = project.folder / "runs/tiny/evolve/out.json"
    agent.parent.mkdir()
    agent.write_text("an older agent, which is not the one to gate")
    project.env = project.env | TRACKED

    workers = [cpu.start("flows.worker", "cpu-pool"), gpu.start("flows.worker", "gpu-pool")]
    try:
        await_workers(project)
        code, output = project.run("flows.pipeline", "tiny", "--place", "pools")
        assert code == 0, output
        assert verdicts(output) == (
            dict.fromkeys(STAGES[:3], "Cached") | dict.fromkeys(STAGES[3:], "Completed") | {"gate": "Promoted"}
        )
        assert agent.read_bytes() == (alone.folder / "runs/tiny/evolve/out.json").read_bytes()
        assert (logs(project), logs(gpu), logs(cpu)) == (set(), {"train_mdn"}, {"evolve", "evaluate"})
        for name in ("dvc.lock", "metrics/tiny.json"):
            assert (project.folder / name).read_text() == (alone.folder / name).read_text()
        assert linked(project) == [("evaluate@tiny", True), ("evolve@tiny", True), ("train_mdn@tiny", True)]
        code, output = project.run("flows.pipeline", "tiny", "--place", "pools")
        assert code == 0 and verdicts(output) == dict.fromkeys(STAGES, "Cached"), "its data are elsewhere"

        project.set("evaluate", number=2)
        code, output = project.run("flows.pipeline", "tiny", "--place", "pools")
        assert code == 1 and verdicts(output)["evaluate"] == "Failed"
        assert (
            "experiments.tiny.evaluate.number in params.yaml is 1 in the worker's checkout" in output.splitlines()[-1]
        )
    finally:
        for worker in workers:
            os.killpg(worker.pid, signal.SIGINT)
            worker.communicate(timeout=120)


def test_an_agent_that_cannot_be_fetched_is_gated_by_a_later_run(made, server, tmp_path):
    project = made.copy(tmp_path / "project", PREFECT_API_URL=server)
    share(project)
    assert project.run("dvc", "push", "--run-cache")[0] == 0
    project.git("add", "dvc.lock", "metrics")
    project.git("commit", "-qm", "made")
    flow = project.clone(tmp_path / "flow")
    share(flow)
    flow.env = flow.env | TRACKED
    due = flow.folder / ".wm/gate/tiny/due.json"
    due.parent.mkdir(parents=True)
    due.write_text("{}")  # of a run that ended before its gate
    md5 = hashlib.md5((project.folder / "runs/tiny/evolve/out.json").read_bytes()).hexdigest()
    there = tmp_path / "remote/files/md5" / md5[:2] / md5[2:]
    there.rename(tmp_path / "away")

    code, output = flow.run("flows.pipeline", "tiny", "--place", "pools")
    assert code == 0 and verdicts(output)["gate"] == "Undecided", output
    assert (
        "gate: undecided: the next run asks again, since the agent could not be fetched from the DVC remote: "
        "see that `dvc pull evolve@tiny` works here" in output
    )
    (tmp_path / "away").rename(there)
    code, output = flow.run("flows.pipeline", "tiny", "--place", "pools")
    assert code == 0 and verdicts(output)["gate"] == "Promoted", output


def await_workers(project: Project) -> None:
    """Until both pools have their deployment and a worker that has reported."""
    script = """
from prefect.client.orchestration import get_client
client = get_client(sync_client=True)
for pool in ("cpu-pool", "gpu-pool"):
    client.read_deployment_by_name(f"run-stage/{pool}")
    assert client.read_workers_for_work_pool(pool)
"""
    for _ in range(30):
        code, output = project.run_script(script)
        if code == 0:
            return
        time.sleep(1)
    raise AssertionError(output)


def linked(project: Project) -> list[tuple[str, bool]]:
    """The stages' runs, and whether each is a child of another run and has the answer as its artifact."""
    script = """
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowFilter, FlowFilterName
client = get_client(sync_client=True)
for run in client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["run-stage"]))):
    ours = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    print(run.name, bool(run.parent_task_run_id and client.read_artifacts(artifact_filter=ours)))
"""
    code, output = project.run_script(script)
    assert code == 0, output
    return sorted((line.split()[0], line.split()[1] == "True") for line in output.splitlines())


def test_another_commit_other_files_and_other_parameters_are_refused(tmp_path, monkeypatch):
    flow = Project(tmp_path / "flow")
    worker = flow.clone(tmp_path / "worker")

    def refusal() -> str:
        monkeypatch.chdir(flow.folder)
        asked = checkout.here()
        monkeypatch.chdir(worker.folder)
        with pytest.raises(UserError) as error:
            checkout.expect(asked)
        return str(error.value)

    monkeypatch.chdir(worker.folder)
    checkout.expect(checkout.here())
    flow.set("evolve", number=6)
    assert re.search(r"experiments\.tiny\.evolve\.number in params.yaml is 1 in .* and 6 in the flow's", refusal())
    worker.set("evolve", number=6)  # the same, though nobody has committed it
    (flow.folder / "dvc.lock").write_text("what it has made\n")
    monkeypatch.chdir(flow.folder)
    asked = checkout.here()
    monkeypatch.chdir(worker.folder)
    checkout.expect(asked)
    with open(flow.folder / "wm/__main__.py", "a") as file:
        file.write("# faster\n")
    assert "the flow's checkout has a wm/__main__.py that is not in commit" in refusal()
    flow.git("commit", "-qam", "faster")
    assert re.search("is at commit [0-9a-f]{12} and the flow's at [0-9a-f]{12}: run `git fetch", refusal())


def test_a_folder_without_a_remote_or_a_server_is_refused_before_anything_starts(tmp_path):
    project = Project(tmp_path / "project")
    code, output = project.run("flows.pipeline", "tiny", "--place", "pools")
    assert code == 2 and output.splitlines()[-1].startswith("error: --place pools needs the Prefect server")
    project.env["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    for words in (["flows.pipeline", "tiny", "--place", "pools"], ["flows.worker", "cpu-pool"]):
        code, output = project.run(*words)
        assert code == 2 and output.count("\n") == 1
        assert (
            output.startswith(f"error: the checkout {project.folder} has no DVC remote") and "dvc remote add" in output
        )
    code, output = project.run("flows.worker", "tpu-pool")
    assert code == 2 and output.endswith("for the pool 'tpu-pool': choose one of cpu-pool, gpu-pool\n")
    share(project)
    code, output = project.run("flows.worker", "cpu-pool")
    assert code == 2 and "no Prefect server answers at http://127.0.0.1:9/api" in output


def test_entries_travel_between_lock_files_and_leave_the_others_alone(tmp_path, monkeypatch):
    one = Project(tmp_path / "one")
    assert one.run("dvc", "repro", "encode@tiny")[0] == 0
    two = one.clone(tmp_path / "two")
    monkeypatch.chdir(one.folder)
    text = lockfile.entries(["collect@tiny", "train_vae@tiny", "evolve@tiny"])
    assert re.findall(r"^\S+", text, re.MULTILINE) == ["collect@tiny:", "train_vae@tiny:"]  # evolve has none
    rest = lockfile.entries(["encode@tiny"])
    whole = (one.folder / "dvc.lock").read_text()
    monkeypatch.chdir(two.folder)
    lockfile.put(["collect@tiny", "train_vae@tiny"], text)
    lockfile.put(["encode@tiny"], rest)
    assert (two.folder / "dvc.lock").read_text() == whole
    lockfile.put(["encode@tiny"], "")
    assert lockfile.entries([f"{stage}@tiny" for stage in STAGES]) == text
