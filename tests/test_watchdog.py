"""Whether a process is still the one that a ticket names, on Linux and where there is no /proc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from wm.core import watchdog


@pytest.fixture(params=["here", "without /proc"])
def system(request, monkeypatch):
    if request.param == "without /proc":
        monkeypatch.setattr(watchdog, "_PROCESSES", Path("/nowhere"))


def test_a_process_is_alive_until_it_has_ended(system):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticket = watchdog.ticket(child.pid)
    assert watchdog.alive(ticket) and watchdog.alive(watchdog.ticket()) and ticket == watchdog.ticket(child.pid)
    number, _, _ = ticket.partition(":")
    assert not watchdog.alive(f"{number}:1"), "another process with the same number"
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert not watchdog.alive(ticket), "a zombie"
    child.wait()
    assert not watchdog.alive(ticket) and not watchdog.alive(f"{number}:")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a name of bytes that are no text")
def test_a_process_may_have_any_name(tmp_path):
    program = tmp_path / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    odd = program.rename(tmp_path / "\udcff) Z 1")
    child = subprocess.Popen([odd, "60"])
    try:
        assert watchdog.alive(watchdog.ticket(child.pid))
    finally:
        child.kill()
        child.wait()
