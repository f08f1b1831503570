"""flows/services.py: programs that stay up, with stand-ins that start at once."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import psutil
import pytest

from flows.services import VARIABLE, Service, Services
from wm.core import watchdog
from wm.core.errors import UserError

LISTENS = """
import socket, subprocess, sys, time
subprocess.Popen(["sleep", "300"], start_new_session=True)  # as hard to find as a stage's worker
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
time.sleep(300)
"""


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def service(port):
    return Service(
        name="listener",
        command=[sys.executable, "-c", LISTENS, str(port)],
        ready=lambda: answers(port),
        env={"GREETING": "hello", "HOME": None},
        port=port,
        address=f"http://127.0.0.1:{port}",
    )


@pytest.fixture
def up(tmp_path):
    services = Services(tmp_path)
    yield services
    services.stop(list(services.recorded()), patience=1)


def processes_of(up: Services) -> list[psutil.Process]:
    ticket = json.loads((up.folder / "state.json").read_text())["id"]
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        if (process.info["environ"] or {}).get(VARIABLE, "").startswith(ticket):
            found += [process] if process.info["status"] != psutil.STATUS_ZOMBIE else []
    return found


def test_a_service_is_started_once_and_ended_with_all_that_it_started(up, service, port):
    assert up.start(service)
    up.wait(service, 20)
    assert not up.start(service) and not Services(up.folder).start(service)  # nor by the next command
    found = processes_of(up)
    assert len(found) == 2  # it and its child, which has a session of its own
    assert found[0].environ()["GREETING"] == "hello" and "HOME" not in found[0].environ()
    assert up.log("listener").read_text() == "listening\n"
    up.stop(["listener"])
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in found)
    assert not answers(port) and not up.recorded() and not (up.folder / "state.json").exists()


def test_what_its_death_left_is_ended_before_it_is_started_again(up, service):
    up.start(service)
    up.wait(service, 20)
    first, child = sorted(processes_of(up), key=lambda process: process.pid)
    first.kill()
    first.wait()
    assert not up.alive("listener") and child.is_running()
    assert up.start(service)
    up.wait(service, 20)
    assert child.pid not in [process.pid for process in processes_of(up)]


def test_a_recycled_pid_is_neither_taken_for_the_service_nor_killed(up, service):
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        pid, _, start = watchdog.ticket(stranger.pid).partition(":")
        record = {"process": f"{pid}:{int(start) - 1}", "port": None, "address": None}
        (up.folder / "state.json").write_text(json.dumps({"id": "of-last-week", "services": {"listener": record}}))
        assert not up.alive("listener")
        assert up.start(service)
        up.wait(service, 20)
        up.stop(["listener"])
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_port_in_use_is_one_sentence_and_starts_nothing(up, service, port):
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(UserError, match=rf"^port {port}, which listener needs, is in use: .*--listener-port"):
            up.start(service)
    assert not up.recorded()


def test_a_service_that_ends_or_never_answers_is_told_with_its_log(up):
    dies = Service(name="dies", command=[sys.executable, "-c", "print('no')"], ready=lambda: False)
    up.start(dies)
    with pytest.raises(UserError, match=r"^dies does not start; its log is .*dies\.log$"):
        up.wait(dies, 20)
    mute = Service(name="mute", command=["sleep", "300"], ready=lambda: False)
    up.start(mute)
    with pytest.raises(UserError, match=r"^mute did not answer within 1 s"):
        up.wait(mute, 1)


def test_one_that_does_not_go_when_asked_is_killed(up):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(99)"
    )
    log = up.log("stubborn")
    service = Service(name="stubborn", command=[sys.executable, "-c", stubborn], ready=lambda: "on" in log.read_text())
    up.start(service)
    up.wait(service, 20)
    (process,) = processes_of(up)
    began = time.monotonic()
    up.stop(["stubborn"], patience=1)
    assert 1 <= time.monotonic() - began < 5
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_was_gone_before_it_was_recorded_is_not_up(up):
    (up.folder / "state.json").write_text(json.dumps({"id": "a", "services": {"short": {"process": "999999999:"}}}))
    assert not up.alive("short")


def test_two_commands_do_not_start_at_once(up):
    with up.alone(), pytest.raises(UserError, match="another command"), Services(up.folder).alone():
        pass


def test_a_damaged_record_is_one_sentence(up):
    (up.folder / "state.json").write_text('{"id": ')
    with pytest.raises(UserError, match=r"state\.json is damaged"):
        up.recorded()
    (up.folder / "state.json").unlink()
