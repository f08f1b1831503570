"""Environments made for other programs: commands run in them as anywhere, and give the same bytes."""

from __future__ import annotations

import http.server
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny_world
from conftest import make_project

from wm import surroundings

ROOT = Path(__file__).parent.parent
PLAIN = {key: value for key, value in os.environ.items() if not key.startswith(("WM_", "DASK_", "MLFLOW_", "PREFECT_"))}
HOSTILE = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii",
    "LC_ALL": "POSIX",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "SSL_CERT_FILE": "/nowhere/cacert.pem",
    "http_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "NO_PROXY": "*.firm.example, [::1]",
    "DASK_DISTRIBUTED__WORKER__NTHREADS": "many",
    "MLFLOW_RUN_ID": "0123",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    "PREFECT_PROFILE": "nobody",
    "OTEL_PROPAGATORS": "xray",
    "TORCH_LOGS": "nothing",
    "TQDM_MININTERVAL": "often",
    "PREFECT_API_URL": "http://127.0.0.1:4200/api",
    "SDL_VIDEODRIVER": "wayland",
    "HOME": "/nowhere",
}


def python(script: str, env: dict[str, str], *words: str, **more) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", script, *words]
    return subprocess.run(command, env={**env, "PYTHONPATH": path}, text=True, capture_output=True, timeout=120, **more)


def test_what_was_meant_for_other_programs_is_taken_away_and_named():
    script = "from wm import surroundings; surroundings.prepare(*surroundings.KEPT); import os, json; "
    done = python(script + "print(json.dumps(dict(os.environ)))", PLAIN | HOSTILE)
    env = json.loads(done.stdout)
    ours = ("OTEL_PROPAGATORS", "PREFECT_PROFILE", "TORCH_LOGS", "TQDM_MININTERVAL")
    dropped = ("DASK_DISTRIBUTED__WORKER__NTHREADS", "MLFLOW_RUN_ID", *ours)
    assert done.stderr == f"note: these settings are not used here: {', '.join(dropped)}\n"
    assert not {*dropped, "MPLBACKEND", "SSL_CERT_FILE", "ALL_PROXY"} & env.keys()
    assert {"MLFLOW_TRACKING_URI", "PREFECT_API_URL", "http_proxy"} <= env.keys(), "what is documented stays"
    assert env["no_proxy"] == env["NO_PROXY"] == ".firm.example,::1,127.0.0.1,localhost"
    assert env["SDL_VIDEODRIVER"] == "dummy" and "error" not in env["PYTHONWARNINGS"]
    assert os.access(env["HOME"], os.W_OK)
    assert python(script, env).stderr == "", "a child hears of nothing"


def test_a_command_runs_in_all_of_them_at_once():
    done = subprocess.run(
        [sys.executable, "-m", "wm", "params"], env=PLAIN | HOSTILE, cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "a line a round" not in done.stderr and "models.NAME.seed" in done.stdout


CLIENTS = """
from wm import surroundings
surroundings.prepare()
import sys, urllib.request, httpx, requests
address = sys.argv[1]
print(httpx.get(address).text, requests.get(address).text, urllib.request.urlopen(address).read().decode())
"""


def test_this_machine_is_never_asked_of_a_proxy():
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = python(CLIENTS, PLAIN | HOSTILE, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert done.stdout == "hello hello hello\n", done.stderr


def test_a_user_without_a_name_or_a_home_has_both(monkeypatch, tmp_path):
    def nobody(*_):
        raise KeyError("getpwuid(): uid not found")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    surroundings.prepare()
    assert os.environ["USER"] == str(os.getuid())
    home = Path.home()
    assert home.parent == tmp_path and home.stat().st_mode & 0o777 == 0o700
    del os.environ["HOME"]
    surroundings.prepare()
    assert Path.home() == home, "the next command finds what the last one kept there"
    home.rmdir()
    home.symlink_to("/")  # somebody else was faster
    del os.environ["HOME"]
    surroundings.prepare()
    assert Path.home() != home and Path.home().parent == tmp_path


def test_where_nothing_can_be_written_what_reads_goes_on(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", refused)
    surroundings.prepare()
    assert os.environ["HOME"] == "/nowhere"


def test_closed_standard_streams_are_no_matter(tmp_path):
    make_project(tmp_path)
    env = {**PLAIN, "PYTHONPATH": str(ROOT), "WM_TRACKING": "off", "WM_WORKERS": "1"}
    for name, code in (("tiny", 0), ("nobody", 2)):
        command = f"exec '{sys.executable}' '{tiny_world.__file__}' collect {name} <&- >&- 2>&-"
        assert subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env).returncode == code
    assert (tmp_path / "runs/tiny/collect/summary.json").exists()


DRAW = """
import hashlib, sys
from pathlib import Path
import numpy as np
from wm.pictures import figures, mosaics, videos
out = Path(sys.argv[1])
frames = (np.arange(2 * 64 * 64 * 3) % 251).reshape(2, 64, 64, 3).astype(np.uint8)
mosaics.contact_sheet(frames, out / "sheet.png", title="Episodes")
figures.scores([1.0, 2.0, 5.0], out / "scores.png")
videos.video(frames, out / "film.mp4", 10, "the world, and M's dream of it")
print({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())})
"""


def test_personal_settings_of_plots_and_films_change_no_byte(tmp_path):
    settings = "font.size: 14\nfont.weight: bold\ntext.antialiased: False\ntext.usetex: True\nsavefig.dpi: 300\n"
    (tmp_path / "matplotlibrc").write_text(settings)
    own = {**HOSTILE, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "AV_LOG_FORCE_COLOR": "1"}
    drawn = []
    for name, env in (("plain", {}), ("own", {name: own[name] for name in own if name != "PYTHONWARNINGS"})):
        (tmp_path / name).mkdir()
        done = python(DRAW, PLAIN | env, str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        drawn.append(done.stdout)
    assert drawn[0] == drawn[1] and drawn[0].count(":") == 3


@pytest.mark.parametrize("number, workers", [(signal.SIGTERM, "2"), (signal.SIGHUP, "1")])
def test_a_signal_to_all_processes_of_a_stage_is_one_sentence(tmp_path, number, workers):
    project = make_project(tmp_path)
    (project / "params.yaml").write_text(tiny_world.PARAMS.replace("episodes: 12", "episodes: 2000"))
    env = {**PLAIN, "PYTHONPATH": str(ROOT), "WM_TRACKING": "off", "WM_WORKERS": workers}
    stage = subprocess.Popen(
        [sys.executable, tiny_world.__file__, "collect", "tiny"],
        cwd=project,
        env=env,
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a background job's tests ignore SIGHUP
    )
    try:
        while not list(project.glob(".wm/work/collect-tiny-*/shards.jsonl")):
            assert stage.poll() is None, stage.stderr.read()
            time.sleep(0.05)
        os.killpg(stage.pid, number)
        _, errors = stage.communicate(timeout=60)
    finally:
        stage.kill()
    assert stage.returncode == 128 + number
    said = [line for line in errors.splitlines() if line and "episode/s" not in line and "s/episode" not in line]
    assert said == ["Stopped; the same command goes on from the last checkpoint."], errors


# ---------------------------------------------------------------- what git and Docker make of a checkout


def test_a_clone_by_a_git_that_changes_line_endings_has_the_same_bytes(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository here")
    command = ["git", "-c", "core.autocrlf=true", "clone", "-q", "--depth", "1", f"file://{ROOT}"]
    subprocess.run([*command, str(tmp_path / "clone")], check=True)
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=tmp_path / "clone", text=True, capture_output=True).stdout
    assert listed and not [line for line in listed.splitlines() if "crlf" in line.split("attr/")[0]]


def test_the_image_gets_nothing_that_git_ignores():
    mine = set((ROOT / ".dockerignore").read_text().splitlines())
    for path, prefix in ((".gitignore", ""), (".dvc/.gitignore", ".dvc/")):
        for line in (ROOT / path).read_text().splitlines():
            name = prefix + line.strip("/")
            if line and not line.startswith(("#", "!")):
                assert {name, f"**/{name}"} & mine, f"{line} of {path}"
