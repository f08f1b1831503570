"""prefect.yaml, flows/up.py and compose.yaml: what is deployed, and the whole of it started for real, once."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import socket
import time
import urllib.request
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from ruamel.yaml import YAML

from flows import up
from tests.flow_project import ROOT, Project, finish
from wm import params

PREFECT = YAML(typ="safe").load(ROOT / "prefect.yaml")
COMPOSE = YAML(typ="safe").load(ROOT / "compose.yaml")
DEPLOYMENTS = {deployment["name"]: deployment for deployment in PREFECT["deployments"]}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_runs_an_agent_that_exists_one_run_at_a_time(name):
    deployment = DEPLOYMENTS[name]
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    flow = load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))
    schema = parameter_schema(flow.fn)
    assert set(deployment["parameters"]) <= set(inspect.signature(flow.fn).parameters)
    assert set(schema.required) <= set(deployment["parameters"])
    for parameter in schema.properties.values():  # the form on Prefect's page
        assert ("type" in parameter or "anyOf" in parameter) and parameter["description"].endswith(".")
    if "agent" in deployment["parameters"]:
        assert deployment["parameters"]["agent"] in params.load(ROOT / "params.yaml").agents
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert deployment["work_pool"]["name"] in up.POOLS and deployment["description"]
    for schedule in deployment["schedules"]:
        assert ZoneInfo(schedule["timezone"]) and schedule["active"] is (name == "smoke"), "hours are asked for"


def test_there_is_a_worker_for_every_pool_that_a_stage_names():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values()
    assert {stage["do"]["meta"]["pool"] for stage in stages} == set(up.POOLS)
    workers = [service["command"] for service in COMPOSE["services"].values() if "worker" in service.get("command", [])]
    assert sorted(command[command.index("--pool") + 1] for command in workers) == sorted(up.POOLS)


def test_compose_listens_on_loopback_and_runs_nothing_as_root_nor_a_secret_from_git():
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service.get("user") == "postgres" or service["build"] == ".", name  # the image's user is not root
        assert "healthcheck" in service or name == "deployments", name
    assert re.findall("^USER (.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == ["wm"]
    text = (ROOT / "compose.yaml").read_text()
    secrets = re.findall(r"^ +\w*(?:PASSWORD|SECRET\w*|AUTH_STRING): (.*)$", text, re.MULTILINE)
    assert len(secrets) >= 6 and all(re.match(r'"?\$\{WM_', secret) for secret in secrets)


def test_a_mistake_is_one_sentence(tmp_path):
    project = Project(tmp_path / "project")
    assert project.run("flows.up", "stop") == (
        2,
        "error: there is no prefect.yaml here: run this in the top folder of a checkout of the repository\n",
    )
    shutil.copy(ROOT / "prefect.yaml", project.folder)
    assert project.run("flows.up", "stop") == (0, "Nothing is up.\n")
    assert project.run("flows.up", "status")[0] == 3
    code, output = project.run("flows.up", "register")
    assert code == 2 and output.startswith("error: set PREFECT_API_URL")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, output = project.run("flows.up", "start", "--prefect-port", str(port))
    assert code == 2 and output.splitlines()[-1].startswith(f"error: port {port}, which prefect needs, is in use")
    assert not project.processes()


def ask(address: str, body: dict) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def test_a_schedule_fires_overlapping_runs_are_cancelled_and_down_leaves_nothing(tmp_path):
    project = Project(tmp_path / "project", WM_TRACKING="")
    (project.folder / "flows").symlink_to(ROOT / "flows")
    text = (ROOT / "prefect.yaml").read_text()
    text = text[: text.index("  - <<: *pipeline\n    name: car_racing")].replace("smoke", "tiny")
    text = re.sub(r'cron: "[^"]*", timezone: [\w/]*', "interval: 3", text)
    (project.folder / "prefect.yaml").write_text(text)
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    start = ["flows.up", "start", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    project.set("evolve", seconds=5)
    project.env |= {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    try:
        code, output = finish(project.start(*start), patience=400)
        assert code == 0, output
        assert f"http://127.0.0.1:{ports[0]}" in output and f"http://127.0.0.1:{ports[1]}" in output
        code, output = project.run(*start)
        assert code == 0 and output.startswith("Everything is up already:")
        states: list[tuple[str, str]] = []
        for _ in range(600):
            runs = ask(f"http://127.0.0.1:{ports[0]}/api/flow_runs/filter", {"sort": "START_TIME_ASC"})
            states = [(run["state"]["name"], run["state"]["message"]) for run in runs]
            if states.count(("Completed", "6 Cached")) and states.count(("Completed", "6 Completed")):
                break
            time.sleep(0.5)
        assert ("Completed", "6 Cached") in states
        assert ("Cancelled", "Deployment concurrency limit reached.") in states
        experiments = ask(f"http://127.0.0.1:{ports[1]}/api/2.0/mlflow/experiments/search", {"max_results": 9})
        assert "none" in [experiment["name"] for experiment in experiments["experiments"]]  # the tiny world's name
    finally:
        code, output = project.run("flows.up", "stop")
    assert code == 0 and output.startswith("Stopped:")
    assert not project.processes()  # a run may have been under way
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):  # free
            pass
    assert not [path for path in (project.folder / ".wm/spool").glob("*/run.json")]
