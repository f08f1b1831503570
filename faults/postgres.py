"""Prefect and MLflow on a real PostgreSQL, with passwords, as compose.yaml has them; backup and restore as documented.

Everything that starts here is read from compose.yaml and docs/operate.md: only addresses, ports and folders are others.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from faults.postgres_server import PASSWORD, Postgres, programs
from faults.project import ROOT, Project, free_port, wait_for
from faults.row import Outcome, Row

SECRETS = {
    "WM_PREFECT_AUTH": "admin:a-long-password",
    "WM_MLFLOW_PASSWORD": "twelve-letters-or-more",
    "WM_DATABASE_PASSWORD": PASSWORD,
    "WM_MLFLOW_SECRET": "signs-the-forms-of-mlflow",
}
WORKERS = ("one", "two", "three")


def lacks() -> str:
    if not programs():
        return "no PostgreSQL here (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and not shutil.which("runuser"):
        return "PostgreSQL does not run as root, and there is no runuser"
    missing = [name for name in ("psycopg2", "flask_wtf") if importlib.util.find_spec(name) is None]
    return f"{missing[0]} is not installed (pip install -e '.[servers]')" if missing else ""


class Stack:
    """The services of compose.yaml, without containers."""

    def __init__(self, folder: Path):
        text = (ROOT / "compose.yaml").read_text()
        text = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: SECRETS[found[1]], text)
        self.compose = YAML(typ="safe").load(text)
        self.folder, self._processes, self.logs = folder, {}, folder / "logs"
        self.ports = {"prefect": free_port(), "mlflow": free_port()}
        self.home = folder / "home"
        (self.home / "mlartifacts").mkdir(parents=True)
        self.logs.mkdir()
        self.database = Postgres(folder / "database", self.compose)
        self._number = 1

    def anew(self) -> None:
        """A new machine: an empty database, no files."""
        self.database.stop()
        self._number += 1
        self.database = Postgres(self.folder / f"database{self._number}", self.compose)
        shutil.rmtree(self.home / "mlartifacts")

    def here(self, text: str) -> str:
        """A value of compose.yaml with the addresses and folders of this trial."""
        for name in self.ports:
            for host in (name, "127.0.0.1", "localhost"):
                port = 4200 if name == "prefect" else 5000
                text = text.replace(f"{host}:{port}", f"127.0.0.1:{self.ports[name]}")
        text = text.replace("@database/", f"@127.0.0.1:{self.database.port}/")
        return text.replace("/home/wm", str(self.home))

    def env(self, service: str) -> dict[str, str]:
        own = {key: self.here(str(value)) for key, value in self.compose["services"][service]["environment"].items()}
        return {
            **own,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        }

    def start(self, service: str, cwd: Path | None = None, name: str = "") -> None:
        """Starts a service as compose.yaml does."""
        entry, name = self.compose["services"][service], name or service
        config = self.home / "mlflow_auth.ini"
        config.write_text(self.here(self.compose["configs"]["mlflow_auth"]["content"]))
        words = [self.here(str(word)) for word in (*entry["entrypoint"], *entry["command"])]
        words = [sys.executable if word == "python" else word for word in words if word != "--with-healthcheck"]
        words = [name if word == "cpu-worker" else word for word in words]
        words = ["127.0.0.1" if word == "0.0.0.0" else word for word in words]
        words = ["--host=127.0.0.1" if word == "--host=0.0.0.0" else word for word in words]
        words = [f"--port={self.ports['mlflow']}" if word == "--port=5000" else word for word in words]
        words += ["--port", str(self.ports["prefect"])] if service == "prefect" else []
        if entry.get("restart") == "unless-stopped":
            words = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh", *words]
        with (self.logs / f"{name}.log").open("a") as log:
            env = {**self.plain(), **self.env(service)}
            process = subprocess.Popen(
                words, cwd=cwd or self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        self._processes[name] = process

    def plain(self) -> dict[str, str]:
        extra = os.pathsep.join(path for path in sys.path if path and Path(path).is_dir() and "lib/python" not in path)
        keys = ("HOME", "PATH", "LANG", "TMPDIR")
        return {**{key: os.environ[key] for key in keys if key in os.environ}, "PYTHONPATH": f"{ROOT}:{extra}"}

    def servers(self) -> None:
        for name in self.ports:
            self.start(name)
        wait_for(f"http://127.0.0.1:{self.ports['prefect']}/api/health", 600)
        wait_for(f"http://127.0.0.1:{self.ports['mlflow']}/health", 600)

    def kill(self, *names: str) -> None:
        for name in names or tuple(self._processes):
            process = self._processes.pop(name, None)
            if process and process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()

    def ask(self, server: str, path: str, body: dict | None = None, password: str | None = None) -> Any:
        """A request with the server's password."""
        who = {"prefect": SECRETS["WM_PREFECT_AUTH"], "mlflow": f"admin:{SECRETS['WM_MLFLOW_PASSWORD']}"}[server]
        token = base64.b64encode((password if password is not None else who).encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[server]}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)


@contextmanager
def stack(folder: Path) -> Iterator[Stack]:
    """The database and what is started on it, gone at the end."""
    folder.chmod(0o755)  # the user postgres has to reach its folder
    one = Stack(folder)
    try:
        yield one
    finally:
        one.kill()
        one.database.stop("immediate")


def documented(heading: str) -> list[list[str]]:
    """The commands of a section of docs/operate.md, a list a block."""
    text = (ROOT / "docs/operate.md").read_text().split(f"### {heading}\n")[1].split("\n## ")[0]
    return [
        re.findall(r"^(docker .*?)(?:  +#.*)?$", block, re.MULTILINE)
        for block in re.findall("```\n(.*?)```", text, re.S)
    ]


def _documented_here(stack: Stack, command: str) -> None:
    """Runs a documented command without its container."""
    if command == "docker compose up -d --wait database":
        return stack.anew()
    if command == "docker compose up -d":
        return stack.servers()
    words = re.sub(r"^docker compose exec -T (database|mlflow) ", "", command)
    words = re.sub(r"^docker compose run --rm -T --no-deps --entrypoint tar mlflow ", "tar ", words)
    words = words.replace("/home/wm", str(stack.home))
    assert not words.startswith("docker"), words
    env = {**os.environ, **stack.database.env}
    done = subprocess.run(["sh", "-c", words], cwd=stack.folder, env=env, stderr=subprocess.PIPE, text=True)
    print(f"$ {words}\n{done.stderr}", flush=True)
    if done.returncode:
        raise AssertionError(f"{command}: exit {done.returncode}: {done.stderr.strip()[-300:]}")


def team(stack: Stack, folder: Path, workers: bool = True) -> list[Project]:
    """Three checkouts with a worker each, and three deployments with a schedule each."""
    project = Project(folder / "project")
    (project.folder / "flows").symlink_to(ROOT / "flows")
    text = (ROOT / "prefect.yaml").read_text()
    head, one = text.split("  - <<: *pipeline\n    name: smoke")
    one = one[: one.index("  - <<: *pipeline\n    name: car_racing")].replace("smoke", "tiny")
    one = re.sub(r'cron: "[^"]*", timezone: [\w/]*', "interval: 60", one)
    entries = "".join(f"  - <<: *pipeline\n    name: {name}{one}" for name in WORKERS)
    (project.folder / "prefect.yaml").write_text(head + entries)
    project.git("add", "-A")
    project.git("commit", "-qm", "deployments")
    clones = [project.clone(folder / name) for name in WORKERS]
    env = {**stack.plain(), **stack.env("deployments")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.up", "register"], cwd=project.folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    for name, clone in zip(WORKERS, clones, strict=True) if workers else ():
        stack.start("cpu-worker", clone.folder, name)
    return clones


def until(what: str, condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(1)
    return found


def seen(stack: Stack) -> dict[str, Any]:
    """What the servers know."""
    runs = stack.ask("prefect", "/api/flow_runs/count", {})
    done = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    experiments = stack.ask("mlflow", "/api/2.0/mlflow/experiments/search", {"max_results": 99})["experiments"]
    ids = [each["experiment_id"] for each in experiments]
    found = stack.ask("mlflow", "/api/2.0/mlflow/runs/search", {"experiment_ids": ids, "max_results": 999})
    return {
        "flow runs": runs,
        "completed": stack.ask("prefect", "/api/flow_runs/count", done),
        "deployments": sorted(each["name"] for each in stack.ask("prefect", "/api/deployments/filter", {})),
        "experiments": sorted(each["name"] for each in experiments),
        "mlflow runs": sorted(run["info"]["run_id"] for run in found.get("runs", [])),
    }


def _refused(stack: Stack, server: str, path: str) -> bool:
    try:
        stack.ask(server, path, {}, password="admin:wrong")
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    return False


def run(each: str, folder: Path) -> Outcome:
    with stack(folder) as it:
        try:
            it.servers()
            return _schedules(it, folder) if each == "schedules" else _backup(it, folder)
        except BaseException:
            for log in it.logs.glob("*.log"):
                print(f"{log.name}: {log.read_text()[-1500:]}", flush=True)
            raise


def _schedules(it: Stack, folder: Path) -> Outcome:
    """Three workers, each in a checkout of its own, three deployments on schedules; a wrong password is refused."""
    clones = team(it, folder / "team")
    until(
        "every worker has run a schedule",
        lambda: all((clone.folder / "metrics/tiny.json").exists() for clone in clones) and seen(it)["completed"] >= 5,
        1500,
    )
    it.kill(*WORKERS)
    logs = "".join(path.read_text() for path in it.logs.glob("*.log"))
    lost = ["database is locked"] if "database is locked" in logs else []
    for server, path in (("prefect", "/api/flow_runs/count"), ("mlflow", "/api/2.0/mlflow/experiments/search")):
        if not _refused(it, server, path):
            lost.append(f"{server} took a wrong password")
    return Outcome(lost=lost, said=[f"{seen(it)['completed']} scheduled runs completed on three workers"])


def _backup(it: Stack, folder: Path) -> Outcome:
    """What the servers know is backed up, and restored into empty databases, by the documented commands."""
    lost, name, data = [], "kept.txt", b"a file of a run\n"
    team(it, folder / "team", workers=False)
    until("the schedules are there", lambda: seen(it)["flow runs"] >= 3, 600)
    _artifact(it, name, data)
    backup, restore = documented("Back up, restore")
    for command in backup:
        _documented_here(it, command)
    before = seen(it)
    it.kill()
    for command in restore:
        _documented_here(it, command)
    after = seen(it)
    lost += [f"{key}: {before[key]}, then {after[key]}" for key in before if not kept(key, before, after)]
    if _artifact_of(it, name) != data:
        lost.append("a file of a run in MLflow")
    told = f"restored: {after['flow runs']} flow runs, {len(after['mlflow runs'])} runs in MLflow, their files"
    return Outcome(lost=lost, said=[told])


def kept(key: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether what the servers knew before is known after; they go on meanwhile."""
    if isinstance(before[key], int):
        return after[key] >= before[key]
    return set(before[key]) <= set(after[key])


def _client_env(stack: Stack) -> dict[str, str]:
    return {**stack.plain(), **stack.env("deployments")}


def _artifact(stack: Stack, name: str, data: bytes) -> None:
    script = f"""
import mlflow
mlflow.set_experiment("kept")
with mlflow.start_run():
    mlflow.log_text({data.decode()!r}, {name!r})
"""
    subprocess.run([sys.executable, "-c", script], env=_client_env(stack), cwd=stack.folder, check=True)


def _artifact_of(stack: Stack, name: str) -> bytes:
    script = f"""
import mlflow
run = mlflow.search_runs(experiment_names=["kept"], output_format="list")[0]
print(mlflow.artifacts.load_text(run.info.artifact_uri + "/" + {name!r}), end="")
"""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=_client_env(stack), cwd=stack.folder, check=True, stdout=subprocess.PIPE).stdout


def unguarded() -> None:
    """Nothing is restored."""
    known = documented

    def first_and_last(heading: str) -> list[list[str]]:
        return [commands[:: len(commands) - 1] if n else commands for n, commands in enumerate(known(heading))]

    globals()["documented"] = first_and_last


ROW = Row(
    fault="Prefect and MLflow on PostgreSQL, with passwords: three workers on schedules; backed up, and restored on an "
    "empty machine",
    tries=("backup and restore", "schedules"),
    run=run,
    limit=2700,
    lacks=lacks,
    unguarded=unguarded,
)
