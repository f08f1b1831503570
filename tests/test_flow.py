"""flows/: the pipeline on a tiny project with real DVC and real Prefect."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.flow_project import STAGES, Project, finish

SENTENCE = "Stopped; the same command goes on from the last checkpoint."


@pytest.fixture
def project(tmp_path, server):
    return Project(tmp_path / "project", PREFECT_API_URL=server)


@pytest.fixture
def offline(tmp_path):
    """A project with no server anywhere."""
    return Project(tmp_path / "project")


def verdicts(output: str) -> dict[str, str]:
    return dict(re.findall(r"Task run '(\w+)@tiny' - Finished in state (\w+)\(", output))


def wait_for(condition, seconds: float) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "waited too long"
        time.sleep(0.05)
    return time.monotonic() - start


def read_until(process: subprocess.Popen, text: str) -> str:
    output = ""
    for line in process.stdout:
        output += line
        if text in line:
            return output
    raise AssertionError(f"never said {text!r}:\n{output}")


def test_the_verdict_of_dvc_is_the_state_of_the_task(project):
    code, output = project.pipeline()
    assert code == 0, output
    assert verdicts(output) == dict.fromkeys(STAGES, "Completed")
    assert re.findall("Running stage '(.*)@tiny'", output) == list(STAGES)  # the order is DVC's
    assert "a moment" in output and "score.mean 1.5" in output

    code, output = project.pipeline()
    assert code == 0 and verdicts(output) == dict.fromkeys(STAGES, "Cached")
    assert "Running stage" not in output and "a moment" not in output

    project.set("evolve", number=2)
    kept = dict.fromkeys(STAGES[:4], "Cached")
    _, output = project.pipeline()
    assert verdicts(output) == kept | dict.fromkeys(STAGES[4:], "Completed")
    assert re.search(r"evolve@tiny +will run\n", output) and "a moment" in output
    project.set("evolve", number=1)
    _, output = project.pipeline()
    assert verdicts(output) == kept | dict.fromkeys(STAGES[4:], "Restored")
    assert re.search(r"evolve@tiny +changed; its outputs are in the cache", output) and "a moment" not in output
    code, output = project.run("dvc", "repro", "evaluate@tiny")
    assert "Data and pipelines are up to date" in output

    shutil.rmtree(project.folder / ".dvc/cache/runs")  # as after `dvc fetch`: dvc.lock and the cache are enough
    shutil.rmtree(project.folder / "runs/tiny/evolve")
    _, output = project.pipeline()
    assert re.search(r"evolve@tiny +changed; its outputs are in the cache", output) and "a moment" not in output
    assert verdicts(output)["evolve"] == "Restored"


def test_what_a_stage_finds_damaged_is_put_aside_and_made_again_in_the_same_run(project):
    """Files are links into DVC's cache here, so that the damage is in both, and DVC sees none."""
    project.run("dvc", "config", "--local", "cache.type", "hardlink")
    assert project.run("dvc", "repro", "encode@tiny")[0] == 0
    path = project.folder / "runs/tiny/train_vae/out.json"
    was, before = path.read_bytes(), path.stat()
    assert before.st_nlink == 2
    path.chmod(0o644)
    path.write_bytes(b"!" + was[1:])
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    project.set("encode", number=2)
    code, output = project.pipeline()
    assert code == 0 and "score.mean 1.5" in output, output
    name = hashlib.md5(was).hexdigest()
    assert "JSONDecodeError" in output and f"put aside as .dvc/cache/damaged/{name}" in output
    assert path.read_bytes() == was


def test_states_and_artifact_on_the_server(made, server, tmp_path):
    project = made.copy(tmp_path / "project", PREFECT_API_URL=server)  # in which nothing is left to run
    code, output = project.pipeline()
    assert code == 0 and verdicts(output) == dict.fromkeys(STAGES, "Cached")
    script = """
import time
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, TaskRunFilter
from prefect.client.schemas.filters import TaskRunFilterFlowRunId
from prefect.client.schemas.sorting import FlowRunSort
client = get_client(sync_client=True)
run, = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
ours = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
page, = client.read_artifacts(artifact_filter=ours)
ours = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
for _ in range(100):  # the server records task runs a moment later
    tasks = client.read_task_runs(task_run_filter=ours)
    if len(tasks) == 6 and all(task.state.is_final() for task in tasks):
        break
    time.sleep(0.1)
print(run.name, run.state.name, page.key, page.data)
print(sorted(f"{task.name} {task.state.name}" for task in tasks))
"""
    env = project.env | {"PREFECT_HOME": str(project.folder)}
    report = subprocess.run([sys.executable, "-c", script], env=env, text=True, capture_output=True).stdout
    assert report.startswith("tiny Completed pipeline-tiny # tiny")
    assert all(f"| {stage}@tiny | Cached |" in report for stage in STAGES)
    assert "| score.mean | 1.5 |" in report
    assert report.splitlines()[-1] == str(sorted(f"{stage}@tiny Cached" for stage in STAGES))


def test_a_failing_stage_is_one_sentence_and_is_not_retried(project):
    project.set("encode", number=13)
    code, output = project.pipeline()
    assert code == 1
    assert output.splitlines()[-1] == "error: encode@tiny failed; its log is .wm/logs/encode@tiny.log"
    assert "error: thirteen" in (project.folder / ".wm/logs/encode@tiny.log").read_text()
    assert output.count("Running stage 'encode@tiny'") == 1 and "train_mdn@tiny' - Running" not in output
    assert "Traceback" not in output
    assert verdicts(output)["encode"] == "Failed" and verdicts(output)["train_mdn"] == "NotReady"


def test_a_budget_that_is_too_short_is_refused_before_any_stage_starts(offline):
    code, output = offline.run("flows.pipeline", "tiny", "--budget", "2s")
    assert code == 2 and output.splitlines()[-1] == "error: 2 s is too short: the first rescoring would take longer"
    assert "Running stage" not in output


def test_what_was_estimated_stands_beside_what_it_took(project):
    code, output = project.pipeline()
    assert code == 0, output
    assert re.search(r"^  train_vae@tiny +Completed +\d+ s   estimate 3 s$", output, re.MULTILINE)
    code, output = project.pipeline()
    assert code == 0 and "estimate" not in output.partition("collect@tiny")[2]


@pytest.mark.parametrize("length", ["2 weeks", "0h", "-1h", "h", "1h 3", ""])
def test_a_budget_that_is_no_length_of_time_is_refused_before_anything_starts(offline, length):
    code, output = offline.run("flows.pipeline", "tiny", f"--budget={length}")
    assert code == 2 and f"error: the budget is {length!r}: expected a length of time" in output
    assert "Running stage" not in output


def test_a_new_agent_is_gated_once_and_later_where_mlflow_was_away(made, server, tmp_path):
    project = made.copy(tmp_path / "project", PREFECT_API_URL=server)
    assert "gate: skipped: nothing is tracked (WM_TRACKING=off)" in project.pipeline()[1]
    project.env |= {"WM_TRACKING": "on", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    project.set("evolve", number=2)
    project.set("gate", number=2)
    code, output = project.pipeline()
    assert code == 0 and "gate: undecided: the next run asks again, since nobody answers" in output
    project.set("gate", number=1)
    code, output = project.pipeline()
    assert code == 0 and verdicts(output) == dict.fromkeys(STAGES, "Cached") | {"gate": "Promoted"}
    assert output.splitlines()[-2] == "gate: promoted: it is better"
    assert "gate: skipped: nothing new was evaluated" in project.pipeline()[1]

    project.set("evolve", number=3)
    project.set("gate", number=13)
    code, output = project.pipeline()
    assert code == 1 and output.splitlines()[-1] == "error: the gate of tiny failed: error: thirteen"


def test_two_pipelines_take_turns(project):
    project.set("collect", seconds=4)
    first = project.start("flows.pipeline", "tiny")
    read_until(first, "working")
    second = project.start("flows.pipeline", "tiny")
    said = read_until(second, "Waiting")
    assert re.search(rf"Waiting for the pipeline tiny \(process {first.pid}, since .*\)", said)
    code, output = finish(second)
    assert code == 0 and verdicts(output) == dict.fromkeys(STAGES, "Cached")
    assert finish(first)[0] == 0


def test_somebody_elses_dvc_is_waited_for(project):
    project.set("collect", seconds=30)
    other = project.start("dvc", "repro", "-s", "collect@tiny")
    read_until(other, "working")
    flow = project.start("flows.pipeline", "tiny")
    read_until(flow, "is busy")
    (project.folder / ".wm/hurry").touch()
    code, output = finish(flow)
    assert code == 0 and verdicts(output)["collect"] in ("Cached", "Restored")
    assert finish(other)[0] == 0


def test_nothing_survives_kill_9_nor_sigterm_nor_ctrl_c(offline):
    offline.set("collect", seconds=300)
    flow = offline.start("flows.pipeline", "tiny")
    read_until(flow, "Task run 'collect@tiny' - working")
    assert len(offline.processes()) >= 6  # flow, guard, server, dvc, stage, its worker
    flow.kill()
    wait_for(lambda: not offline.processes(), 10)

    flow = offline.start("flows.pipeline", "tiny")
    read_until(flow, "Task run 'collect@tiny' - working")
    flow.terminate()  # as `timeout` and cluster schedulers do
    code, output = finish(flow)
    assert code == 143 and output.strip() == SENTENCE
    wait_for(lambda: not offline.processes(), 2)

    (offline.folder / ".dvc/tmp/rwlock").write_text('{"write": {"')  # as a kill at the wrong moment leaves it
    flow = offline.start("flows.pipeline", "tiny")
    read_until(flow, "Task run 'collect@tiny' - working")
    os.killpg(flow.pid, signal.SIGINT)  # as a terminal does
    code, output = finish(flow)
    assert code == 130 and output.strip() == SENTENCE
    wait_for(lambda: not offline.processes(), 2)


def test_a_rerun_ends_what_a_dead_run_left(project):
    project.set("collect", seconds=300)
    flow = project.start("flows.pipeline", "tiny")
    read_until(flow, "Task run 'collect@tiny' - working")
    for process in psutil.Process(flow.pid).children():
        if "flows.guard" in process.cmdline():
            process.kill()
    flow.kill()
    assert project.processes()
    project.set("collect", seconds=0, number=13)  # fails at once: what comes after is not of interest here
    code, output = project.pipeline()
    assert code == 1 and "thirteen" in output
    assert not project.processes()


@pytest.mark.parametrize(
    "name, params, sentence",
    [
        ("tinny", "", "error: there is no agent 'tinny' in params.yaml: choose one of tiny, or add a line to "),
        ("../tiny", "", "error: there is no agent '../tiny' in params.yaml: "),
        ("tiny", "typo: 1\n", "error: params.yaml: unknown key 'typo'"),
        (
            "short",
            "  short: {experiment: none, world: none, code: wm/__main__.py, model: tiny, after: zero, seed: 1}\n",
            "error: params.yaml has no agents.short.tau, which evolve@short reads",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(offline, name, params, sentence):
    with open(offline.folder / "params.yaml", "a") as file:
        file.write(params)
    code, output = offline.pipeline(name)
    assert code == 2 and output.startswith(sentence) and output.count("\n") == 1
    assert not (offline.folder / ".wm").exists()


def test_the_list_of_agents_says_what_is_to_do(offline):
    code, output = offline.run("flows.pipeline")
    assert code == 0 and output.startswith("tiny: to do: collect@tiny, train_vae@tiny, encode@tiny")
