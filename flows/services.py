"""Programs that stay up behind a checkout: each is started once, found again by the next command, and ended whole.

Every process of a service inherits `WM_UP=<id of this folder's services>/<service>`, so that ending a service ends
all that it started, whoever their parent is by then, and nothing else: a pid is never enough to be killed. Whether a
service is up is a matter of its first process, which is recorded with its start time.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from flows import SCRATCH, guard
from wm.core import files, watchdog
from wm.core.errors import UserError
from wm.core.locks import lock

VARIABLE = "WM_UP"
FOLDER = SCRATCH / "up"
SERVERS = ("prefect", "mlflow")
"""The services with addresses."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A program that stays up.

    Attributes:
        command: starts it in the foreground.
        ready: whether it answers; asked until it does.
        env: added to this process's environment; None takes a variable away.
        port: the one that it listens on at 127.0.0.1, if any.
        address: of its pages, if it has any.
    """

    name: str
    command: list[str]
    ready: Callable[[], bool]
    env: dict[str, str | None] = field(default_factory=dict)
    port: int | None = None
    address: str | None = None


class Services:
    """The services of a folder, which has `state.json` and a log a service (`<name>.log`)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._state = folder / "state.json"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, no other command starts or stops services of this folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        turn = lock(self.folder / "lock")
        try:
            turn.acquire(timeout=0)
        except Timeout:
            raise UserError("another command is starting or stopping the services: wait for it") from None
        try:
            yield
        finally:
            turn.release()

    def recorded(self) -> dict[str, dict[str, Any]]:
        """What was started and not stopped, by name: {"process": "<pid>:<start time>", "address", "port"}."""
        return self._read()["services"]

    def alive(self, name: str) -> bool:
        """Whether the service that was started under this name still runs."""
        record = self.recorded().get(name)
        return record is not None and watchdog.alive(record["process"])

    def log(self, name: str) -> Path:
        """Where a service's output goes; made anew at each start."""
        return self.folder / f"{name}.log"

    def start(self, service: Service) -> bool:
        """Starts a service and returns at once; False if it is up already.

        Raises:
            UserError: its port is in use.
        """
        if self.alive(service.name):
            return False
        state = self._read()
        ticket = f"{state['id']}/{service.name}"
        guard.sweep(ticket, variable=VARIABLE)  # what its dead first process may have left
        if service.port and not _is_free(service.port):
            raise UserError(
                f"port {service.port}, which {service.name} needs, is in use: stop what uses it, or choose another "
                f"(--{service.name}-port)"
            )
        files.write_json(self._state, state)  # the id is on disk before a process has it
        env = {**os.environ, **service.env, VARIABLE: ticket}
        with open(self.log(service.name), "w") as log:
            process = subprocess.Popen(
                service.command,
                env={name: value for name, value in env.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal that is closed does not end it
            )
        about = {"process": watchdog.ticket(process.pid), "address": service.address, "port": service.port}
        state["services"][service.name] = about
        files.write_json(self._state, state)
        return True

    def wait(self, service: Service, patience: float) -> None:
        """Returns when the service answers.

        Raises:
            UserError: it ended, or did not answer within `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while not service.ready():
            if not self.alive(service.name):
                raise UserError(f"{service.name} does not start; its log is {self.log(service.name)}")
            if time.monotonic() > deadline:
                raise UserError(
                    f"{service.name} did not answer within {patience:.0f} s; its log is {self.log(service.name)}"
                )
            time.sleep(0.2)

    def stop(self, names: Iterable[str], patience: float = 15.0) -> None:
        """Ends services with all that they started; asks first, kills after `patience` seconds."""
        state = self._read()
        gone = [name for name in names if name in state["services"]]
        guard.sweep(*(f"{state['id']}/{name}" for name in gone), patience=patience, variable=VARIABLE)
        for name in gone:
            del state["services"][name]
        if state["services"]:
            files.write_json(self._state, state)
        else:
            self._state.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._state.read_text())
        except FileNotFoundError:
            return {"id": uuid.uuid4().hex, "services": {}}
        except ValueError as error:
            raise UserError(f"{self._state} is damaged ({error}): end the services by hand and delete it") from None


def addresses() -> dict[str, str]:
    """What the environment of a pipeline needs to use the servers that are up in this folder; empty if none are."""
    up = Services(FOLDER)
    recorded = up.recorded()
    found = of_ports({name: recorded[name]["port"] for name in SERVERS if up.alive(name)})
    return found if "PREFECT_API_URL" in found else {}


def of_ports(ports: dict[str, int]) -> dict[str, str]:
    """The same for servers at these ports of the loopback address, by name."""
    variables = {"prefect": ("PREFECT_API_URL", "/api"), "mlflow": ("MLFLOW_TRACKING_URI", "")}
    return {variables[name][0]: f"http://127.0.0.1:{port}{variables[name][1]}" for name, port in ports.items()}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port just left is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
