"""Everything that schedules need, on this machine: `wm up start` is `make up`, `wm up stop` is `make down`."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from flows import prepare
from flows.services import FOLDER, SERVERS, Service, Services, of_ports
from wm import failures
from wm.core.errors import UserError
from wm.records import store

POOLS = ("cpu-pool", "gpu-pool")
"""As `meta` in dvc.yaml and prefect.yaml name them: a worker each, under the same name."""
PATIENCE = 180.0
"""Seconds; Prefect's first start makes a database, which takes a minute on a busy machine."""

ACTIONS = {
    "start": "start what is not up: Prefect's server, MLflow's server, a worker for each work pool, the deployments",
    "stop": "end all of it; a run under way is recorded as cancelled, and the next one goes on from its checkpoint",
    "status": "say what is up; the exit code is 3 if something is not",
    "register": "register the deployments of prefect.yaml alone, on the server that PREFECT_API_URL names",
}
DESCRIPTION = "Start and stop what schedules need: Prefect, MLflow, workers."
EPILOG = """\
start    Prefect's server, MLflow's server, a worker for each work pool; then the deployments of prefect.yaml
         are registered. What is up already is left alone.
stop     ends all of it; a run under way is recorded as cancelled, and the next one goes on from its checkpoint
status   what is up (exit code 3 if something is not)
register the deployments alone, on the server that PREFECT_API_URL names

Everything listens on 127.0.0.1 alone; logs, Prefect's database and its settings are in .wm/up/, MLflow's database is
mlflow.db, as without a server.
exit codes: 0 done; 2 a mistake that one sentence explains; 3 not everything is up
"""


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    prepare()
    parser = argparse.ArgumentParser(
        prog="python -m flows.up",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=ACTIONS)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What starting takes."""
    parser.add_argument("--prefect-port", type=int, default=4200, help="default: 4200")
    parser.add_argument("--mlflow-port", type=int, default=5000, help="default: 5000")


def run(args: argparse.Namespace) -> int:
    """The same for a command line that has been read."""
    try:
        if not Path("prefect.yaml").exists():
            raise UserError("there is no prefect.yaml here: run this in the top folder of a checkout of the repository")
        if args.action == "status":
            return status()
        if args.action == "register":
            if not os.environ.get("PREFECT_API_URL"):
                raise UserError("set PREFECT_API_URL to the server's address, such as http://127.0.0.1:4200/api")
            register()
            return 0
        with Services(FOLDER).alone():
            if args.action == "stop":
                return stop()
            return start(dict(zip(SERVERS, (args.prefect_port, args.mlflow_port), strict=True)))
    except Exception as error:
        return failures.report(error)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def start(ports: dict[str, int]) -> int:
    """Starts what is not up, waits until it answers, and registers the deployments.

    Args:
        ports: of the servers, by name; where one is up already, its own counts.

    Raises:
        UserError: a port is in use, or something did not start; what this call started is stopped again.
    """
    up = Services(FOLDER)
    if all(up.alive(name) for name in (*SERVERS, *POOLS)):
        print("Everything is up already:")
        return status()
    ports = ports | {name: up.recorded()[name]["port"] for name in SERVERS if up.alive(name)}
    os.environ.update(_environment(ports))
    print("Starting Prefect, MLflow and the workers: a minute the first time, half of it later.", flush=True)
    dead = [name for name in (*SERVERS, *POOLS) if not up.alive(name)]
    up.stop(dead)  # what they may have left
    try:
        _start(up, _servers(ports))
        register()
        _end_runs([pool for pool in POOLS if pool in dead], "Crashed", "The machine or its worker went down.")
        _start(up, [_worker(pool) for pool in POOLS])
    except BaseException:
        up.stop(dead)
        raise
    return status()


def _start(up: Services, services: list[Service]) -> None:
    for service in services:
        up.start(service)
    for service in services:
        up.wait(service, PATIENCE)


def register() -> None:
    """Makes the work pools and deployments what prefect.yaml says, on the server that PREFECT_API_URL names.

    Raises:
        UserError: it could not be done.
    """
    from flows import worker

    for pool in POOLS:
        worker.register(pool)
    FOLDER.mkdir(parents=True, exist_ok=True)
    log = FOLDER / "deploy.log"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    with open(log, "w") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    if done.returncode:
        raise UserError(f"prefect.yaml could not be registered; why is in {log}")


def stop() -> int:
    """Ends the workers and their runs, then the servers: runs can tell the servers how they ended."""
    up = Services(FOLDER)
    recorded = up.recorded()
    if not recorded:
        print("Nothing is up.")
        return 0
    up.stop(POOLS)
    if up.alive("prefect"):
        os.environ.update(_environment({name: record["port"] for name, record in recorded.items() if record["port"]}))
        _end_runs(POOLS, "Cancelled", "Stopped by `make down`; the next run goes on from the last checkpoint.")
    up.stop(recorded)
    print("Stopped:", ", ".join(recorded))
    return 0


def status() -> int:
    """Prints what is up; 3 if something is not."""
    up = Services(FOLDER)
    recorded = up.recorded()
    alive = {name: up.alive(name) for name in (*SERVERS, *POOLS)}
    for name, is_alive in alive.items():
        died = f"down, its log is {up.log(name)}" if name in recorded else "down"
        print(f"  {name:10}", f"up    {recorded[name]['address'] or ''}".rstrip() if is_alive else died)
    if alive["prefect"]:
        print(f"For `prefect` commands: export PREFECT_API_URL={recorded['prefect']['address']}/api")
    return 0 if all(alive.values()) else 3


def _environment(ports: dict[str, int]) -> dict[str, str]:
    """For this process, before it imports Prefect, and so for all services."""
    return {
        **of_ports(ports),
        "PREFECT_HOME": str(store.plain(Path.cwd()) / FOLDER / "prefect"),  # not the caller's: profiles, database, logs
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }


def _servers(ports: dict[str, int]) -> list[Service]:
    prefect, mlflow = (f"http://127.0.0.1:{ports[name]}" for name in SERVERS)
    server = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(ports["prefect"])]
    return [
        Service(
            name="prefect",
            command=[sys.executable, *server],
            ready=lambda: _answers(f"{prefect}/api/health"),
            env=_NOT_A_RUNS,
            port=ports["prefect"],
            address=prefect,
        ),
        Service(
            name="mlflow",
            command=[sys.executable, "-m", "wm", "ui", "--port", str(ports["mlflow"])],
            ready=lambda: _answers(f"{mlflow}/health"),
            env={**_NOT_A_RUNS, "MLFLOW_TRACKING_URI": None},  # it serves mlflow.db
            port=ports["mlflow"],
            address=mlflow,
        ),
    ]


def _worker(pool: str) -> Service:
    command = ["-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", platform.node()]
    since = time.time()
    return Service(
        name=pool,
        command=[sys.executable, *command],
        ready=lambda: _has_reported(pool, since),
        env=_NOT_A_RUNS,
    )


_NOT_A_RUNS: dict[str, str | None] = {"WM_WATCH": None, "WM_PARENT_RUN": None}
"""What a service must not inherit where it is started from inside a run."""


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


def _has_reported(pool: str, since: float) -> bool:
    """Whether this machine's worker of the pool has sent a heartbeat since then."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(pool)
    beats = [worker.last_heartbeat_time for worker in workers if worker.name == platform.node()]
    return any(beat and beat.timestamp() > since for beat in beats)


def _end_runs(pools: Iterable[str], name: str, message: str) -> None:
    """Records runs of these pools, whose processes are gone, as what became of them."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas import filters
    from prefect.states import Cancelled, Crashed, StateType

    ended = {"Cancelled": Cancelled, "Crashed": Crashed}[name]
    types = filters.FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    under_way = filters.FlowRunFilter(state=filters.FlowRunFilterState(type=types))
    ours = filters.WorkPoolFilter(name=filters.WorkPoolFilterName(any_=list(pools)))
    try:
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_run_filter=under_way, work_pool_filter=ours):
                client.set_flow_run_state(run.id, ended(message=message), force=True)
    except httpx.HTTPError as error:
        print(f"warning: Prefect still shows runs as running that are not ({error})", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
