"""A PostgreSQL of one's own, from Debian's package: as compose.yaml has it, on another port."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from faults.project import free_port

PASSWORD = "letters1and2digits"


def programs() -> str | None:
    """Where Debian puts PostgreSQL's own programs."""
    return next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)), None)


class Postgres:
    """A cluster of its own, with a password, and the databases that compose.yaml makes."""

    def __init__(self, folder: Path, compose: dict[str, Any]):
        self.folder, self.port, self._bin = folder, free_port(), programs()
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        folder.mkdir(parents=True)
        if self._as:
            shutil.chown(folder, "postgres")
        password = folder.with_suffix(".password")
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._do("initdb", "-D", str(folder), "-U", "wm", "--auth=scram-sha-256", f"--pwfile={password}", "-E", "UTF8")
        self.start()
        sql = ["CREATE DATABASE prefect;", *compose["configs"]["databases"]["content"].splitlines()]
        for line in sql:
            subprocess.run(["psql", "-qd", "postgres", "-c", line], check=True, env={**os.environ, **self.env})

    @property
    def env(self) -> dict[str, str]:
        """What a client needs, as inside the container."""
        password = PASSWORD
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "wm", "PGPASSWORD": password}

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        log = self.folder / "server.log"
        self._do("pg_ctl", "-D", str(self.folder), "-w", "-t", "60", "-l", str(log), "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        self._do("pg_ctl", "-D", str(self.folder), "-w", "-m", how, "stop")

    def _do(self, program: str, *words: str) -> None:
        command = [*self._as, f"{self._bin}/{program}", *words]
        done = subprocess.run(command, cwd="/tmp", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout[-500:]}")
