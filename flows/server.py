"""The Prefect server of a run: the one that PREFECT_API_URL names, that of `make up`, or one of the run's own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from flows import services
from wm.core.errors import UserError

PATIENCE = 120
"""Seconds; the first start makes a database, which takes about twenty on a slow machine."""


def is_given() -> bool:
    """Whether there is a server already: that of PREFECT_API_URL, or that of `make up`, which the environment then
    names."""
    if not os.environ.get("PREFECT_API_URL"):
        for name, address in services.addresses().items():
            os.environ.setdefault(name, address)
    return bool(os.environ.get("PREFECT_API_URL"))


class Server:
    """Started in the background, so that DVC can be asked meanwhile; ended by the guard, as everything else.

    Prefect would start one by itself, but in the terminal's process group: Ctrl-C would end it before the flow,
    with a traceback.
    """

    def __init__(self) -> None:
        self.process = None
        if is_given():
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = Path(os.environ["PREFECT_HOME"]) / "server.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        os.environ["PREFECT_UI_URL"] = ""  # it has no pages: none shall be named in the log
        with open(self.log, "w") as log:
            command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--host", "127.0.0.1"]
            self.process = subprocess.Popen(
                [*command, "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Returns when the server answers.

        Raises:
            UserError: it ended, or took longer than PATIENCE.
        """
        deadline = time.monotonic() + PATIENCE
        while self.process:
            try:
                urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health", timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise UserError(f"Prefect's server does not start{self._why()}; its log is {self.log}") from None
            time.sleep(0.1)

    def _why(self) -> str:
        """Of a database that was cut short, or that another version of Prefect wrote."""
        told = self.log.read_text(errors="replace")
        if any(words in told for words in ("file is not a database", "malformed", "Can't locate revision")):
            return f": move {self.log.with_name('prefect.db')} away, which it cannot read, and it makes a new one"
        return ""
