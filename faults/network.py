"""The network to the DVC remote is lost in the middle of sending and of fetching, and comes back.

In a network namespace of its own, whose loopback device is taken down: the remote, an HTTP server that is slow, is then
as far away as a cable that was pulled.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from faults.project import Project, finish, hashes
from faults.row import Outcome, Row

ADDRESS = ("127.0.0.1", 8123)
SLOW = 0.3
"""Seconds a request takes: the network is lost in the middle."""
AWAY = 20.0
"""Seconds that it is away."""


def lacks() -> str:
    try:
        done = subprocess.run(["unshare", "-n", "true"], capture_output=True)
    except FileNotFoundError:
        return "there is no unshare (Debian: util-linux)"
    return "no network namespace may be made here (it needs root)" if done.returncode else ""


def link(up: bool) -> None:
    """Brings this namespace's loopback device up, or takes it down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        flags = struct.pack("16sh", b"lo", 0x1 if up else 0)  # IFF_UP
        fcntl.ioctl(handle, 0x8914, flags)  # SIOCSIFFLAGS


class Store(BaseHTTPRequestHandler):
    """A folder behind HTTP, as DVC's http remote uses it."""

    folder: Path
    protocol_version = "HTTP/1.1"

    def _answer(self, code: int, data: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        time.sleep(SLOW)
        path = self.folder / self.path.lstrip("/")
        if path.is_file():
            return self._answer(200, path.read_bytes())
        self._answer(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        data = (
            self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else self._chunks()
        )
        time.sleep(SLOW)
        path = self.folder / self.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{threading.get_ident()}")
        temporary.write_bytes(data)
        os.replace(temporary, path)
        self._answer(200)

    do_PUT = do_POST

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def log_message(self, *_: object) -> None:
        pass


def _inside(each: str, folder: Path) -> Outcome:
    link(True)
    Store.folder = folder / "store"
    Store.folder.mkdir()
    threading.Thread(target=ThreadingHTTPServer(ADDRESS, Store).serve_forever, daemon=True).start()
    one, lost = Project(folder / "one"), []
    assert one.run("dvc", "repro", "-q", "evaluate@tiny")[0] == 0
    one.git("add", "-A")
    one.git("commit", "-qm", "made")
    two = one.clone(folder / "two")
    for each_one in (one, two):
        for words in (
            ["add", "--default", "storage", "http://{}:{}".format(*ADDRESS)],
            ["modify", "storage", "jobs", "1"],
        ):
            assert each_one.run("dvc", "remote", words[0], "--local", *words[1:])[0] == 0
    push = ("dvc", "push", *(f"{stage}@tiny" for stage in ("collect", "train_vae", "encode", "train_mdn", "evolve")))
    pull = ("dvc", "pull", *push[2:])
    if each == "fetching":
        assert one.run(*push)[0] == 0
    victim, words = (one, push) if each == "sending" else (two, pull)
    process = victim.start(*words)
    until = time.monotonic() + 60
    stored = lambda: sum(1 for path in Store.folder.rglob("*") if path.is_file())  # noqa: E731
    here = lambda: sum(1 for path in (two.folder / ".dvc/cache").rglob("*") if path.is_file())  # noqa: E731
    while (stored() if each == "sending" else here()) < 1 and time.monotonic() < until:
        time.sleep(0.1)
    link(False)
    time.sleep(AWAY)
    link(True)
    code, output = finish(process, patience=400)
    said = [] if code == 0 else [line[:150] for line in output.splitlines() if line.startswith("ERROR")][:1]
    if code and "Traceback" in output:
        lost.append(f"{each}: {output.strip().splitlines()[-1][:200]}")
    for who, again in ((one, push), (two, pull)):
        code, output = who.run(*again)
        if code:
            lost.append(f"{each}, afterwards, {again[1]}: exit {code}: {output.strip().splitlines()[-1][:200]}")
    for name in ("collect", "evolve"):
        if not lost and hashes(one.folder / "runs/tiny" / name) != hashes(two.folder / "runs/tiny" / name):
            lost.append(f"{each}: other bytes of {name}")
    return Outcome(lost=lost, said=said or ["nothing; it waited"])


def run(each: str, folder: Path) -> Outcome:
    command = ["unshare", "-n", sys.executable, "-m", "faults.network", each, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return Outcome(lost=[f"the try itself ended with {done.returncode}"])
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


ROW = Row(
    fault=f"the network to the remote is away for {AWAY:.0f} s during `dvc push` and `dvc pull` (a namespace)",
    tries=("sending", "fetching"),
    run=run,
    limit=900,
    lacks=lacks,
)

if __name__ == "__main__":
    found = _inside(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps({"lost": list(found.lost), "said": list(found.said)}))
