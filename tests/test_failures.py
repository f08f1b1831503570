"""What a machine refuses is a sentence that names the thing and what to do; our own mistakes stay tracebacks."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydantic
import pytest
import tiny_world

from wm import failures
from wm.cli import main
from wm.core import files
from wm.core.errors import DamagedData, UserError
from wm.records import history
from wm.records.history import Snapshot
from wm.worlds.base import FRAME_SHAPE, Checked, check_picture


def refusal(number: int, path: str | None = "runs/tiny/collect") -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    "error, words",
    [
        (refusal(errno.ENOSPC), ["the disk is full (runs/tiny/collect)", "free some space"]),
        (refusal(errno.EDQUOT, None), ["the disk is full", "free some space"]),
        (refusal(errno.EROFS), ["runs/tiny/collect: read-only file system", "git clone"]),
        (refusal(errno.EFBIG), ["runs/tiny/collect: file too large", "ulimit -f"]),
        (refusal(errno.EMFILE), ["too many open files", "ulimit -n"]),
        (refusal(errno.ENAMETOOLONG), ["file name too long", "shorter"]),
        (refusal(errno.EXDEV), ["cross-device", "another file system"]),
        (refusal(errno.ENOTDIR), ["not a directory", "move it away"]),
        (refusal(errno.ESTALE), ["stale file handle", "mount"]),
        (ModuleNotFoundError("No module named 'mlflow.x'", name="mlflow.x"), ["the package mlflow", "[pipeline]'`"]),
        (refusal(errno.EACCES, "/proc/1/mem"), ["/proc/1/mem may not be used by you"]),
        (refusal(errno.EAGAIN, None), ["temporarily unavailable", "ulimit -u"]),
        (MemoryError(), ["not enough memory"]),
        (UnicodeEncodeError("utf-8", "/caf\udce9", 4, 5, "surrogates not allowed"), ["'/caf\\udce9'", "rename"]),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), ["set TMPDIR"]),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), ["not enough memory"]),
        (ImportError("cv2.so: failed to map segment from shared object"), ["not enough memory"]),
        (RuntimeError("can't start new thread"), ["too many processes"]),
        (RuntimeError("Failed to reach API at http://me:secret@away/api/"), ["answers at http://away/api/: start it"]),
    ],
)
def test_what_the_machine_refuses_is_a_sentence(error, words, capsys):
    assert failures.report(error, "; the same command goes on") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.endswith("; the same command goes on\n") and said.count("\n") == 1
    assert all(word in said.lower() for word in map(str.lower, words)), said


def test_a_cause_counts_and_a_mistake_of_ours_stays_a_traceback(capsys):
    wrapped = RuntimeError("the reader failed")
    wrapped.__cause__ = refusal(errno.EROFS)
    assert failures.report(wrapped) == 2 and "read-only" in capsys.readouterr().err
    for ours in (KeyError("score"), ValueError("shape"), FileNotFoundError(errno.ENOENT, "", "x/y"), OSError("?")):
        with pytest.raises(type(ours)):
            failures.report(ours)
    assert capsys.readouterr().err == ""


def test_a_setting_that_prefect_cannot_read_is_named(monkeypatch):
    class ClientSettings(pydantic.BaseModel):
        max_retries: int

    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "often")
    with pytest.raises(pydantic.ValidationError) as wrong:
        ClientSettings(max_retries="often")
    assert "cannot read PREFECT_CLIENT_MAX_RETRIES: correct or unset it" in failures.sentence(wrong.value)


def test_a_program_that_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError) as caught:
        subprocess.run(["git", "status"])
    assert failures.sentence(caught.value) == "the program 'git' is not installed, or not on PATH: install it"


def test_a_database_that_is_none_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        sqlite3.connect(tmp_path / "mlflow.db").execute("select * from runs")
    assert "MLflow's database (mlflow.db" in failures.sentence(caught.value)


def test_a_limit_on_the_size_of_files_is_a_sentence(project):
    command = f"ulimit -f 1; exec '{sys.executable}' '{tiny_world.__file__}' collect tiny"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(["bash", "-c", command], env=env, text=True, capture_output=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "file too large: raise the limit" in done.stderr and not Path("runs/tiny").exists()


# ---------------------------------------------------------------- files that people merge

MARKED = "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n"


def test_marks_of_a_merge_are_named_with_the_way_out(project, monkeypatch, capsys):
    with pytest.raises(DamagedData, match=r"m.json has the marks of a merge .*`git checkout --ours m.json`"):
        files.parse_json(MARKED, "m.json")
    with pytest.raises(UserError, match=r"d.lock has the marks of a merge"):
        files.parse_yaml("stages:\n" + MARKED, "d.lock")
    with pytest.raises(UserError, match=r"d.lock is not valid YAML at line \d: "):
        files.parse_yaml("stages: [", "d.lock")
    Path("dvc.lock").write_text("stages: {}\n" + MARKED)
    with pytest.raises(UserError, match=r"dvc.lock has the marks"):
        Snapshot().lock  # noqa: B018
    Path("dvc.lock").write_text("- a list\n")
    with pytest.raises(DamagedData, match=r"dvc.lock has to be a mapping"):
        Snapshot().lock  # noqa: B018
    Path("dvc.lock").unlink()
    Path("params.yaml").write_text(tiny_world.PARAMS.replace("models:\n", MARKED + "models:\n"))
    assert main(["collect", "tiny"]) == 2
    assert "error: params.yaml has the marks of a merge" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, words",
    [
        (b"stages: {}\n\xff", "dvc.lock is no UTF-8 text"),
        (b"stages: [1]\n", "dvc.lock: stages has to be a mapping"),
        (b"stages: {evolve@tiny: [1]}\n", "dvc.lock: stages.evolve@tiny is not as DVC writes it"),
        (b"stages: {evolve@tiny: {cmd: x, params: [1]}}\n", "stages.evolve@tiny is not as DVC writes it"),
        (b"stages: {evolve@tiny: {cmd: x, outs: [{path: x}]}}\n", "stages.evolve@tiny is not as DVC writes it"),
    ],
)
def test_a_lock_of_another_shape_is_named(project, capsys, text, words):
    Path("dvc.lock").write_bytes(text)
    assert main(["lineage", "tiny"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {words}" if words.startswith("dvc") else "error: dvc.lock: ") and words in said


def test_what_no_parser_can_take_is_a_sentence():
    with pytest.raises(UserError, match=r"p.yaml is not valid YAML: .*digits"):
        files.parse_yaml("seed: 1" + 5000 * "0", "p.yaml")
    with pytest.raises(UserError, match=r"p.yaml is not valid YAML: .*decode"):
        files.parse_yaml(b"# \xfcber", "p.yaml")
    with pytest.raises(DamagedData, match=r"m.json is not whole JSON"):
        files.parse_json(100_000 * "[", "m.json")


def scored(**changes) -> dict:
    return {"mean": 2.0, "scores": [1.0, 3.0], "seeds": [4, 5], "episodes": 2, **changes}


@pytest.mark.parametrize(
    "wrong",
    [[], scored(scores=["1.0", "3.0"]), scored(scores=None), scored(seeds=[4]), scored(episodes=3), scored(mean="2")],
)
def test_scores_that_are_none_are_refused(wrong):
    assert history.sound(scored(), "scores.json") == scored()
    with pytest.raises(DamagedData, match=r"^scores.json "):
        history.sound(wrong, "scores.json")


# ---------------------------------------------------------------- worlds of one's own


class Odd(tiny_world.TinyEnv):
    """Gives, from its second step on, what it is told to."""

    def __init__(self, **wrong):
        self.wrong, self.steps = wrong, 0

    def step(self, act):
        frame, rew, end, trunc, info = super().step(act)
        self.steps += 1
        wrong = self.wrong if self.steps > 1 else {}
        return wrong.get("frame", frame), wrong.get("rew", rew), end, trunc, info


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"frame": np.zeros(FRAME_SHAPE, np.float32)}, "a frame of (64, 64, 3) float32"),
        ({"frame": np.zeros((64, 64, 4), np.uint8)}, "a frame of (64, 64, 4) uint8"),
        ({"frame": np.zeros((64, 64), np.uint8)}, "a frame of (64, 64) uint8"),
        ({"frame": [[0]]}, "a frame of no shape list"),
        ({"rew": float("nan")}, "the reward nan"),
        ({"rew": None}, "the reward None"),
    ],
)
def test_frames_and_rewards_that_are_none_are_refused_with_world_seed_and_step(wrong, words):
    env = Checked(Odd(**wrong), "odd")
    env.reset(seed=7)
    env.step(np.zeros(2, np.float32))
    with pytest.raises(UserError) as caught:
        env.step(np.zeros(2, np.float32))
    assert f"the world odd gave {words} at step 2 of the episode with seed 7: " in str(caught.value)


def test_a_sound_environment_passes_unchanged():
    env, plain = Checked(tiny_world.TinyEnv(), "tiny"), tiny_world.TinyEnv()
    assert (env.reset(seed=3)[0] == plain.reset(seed=3)[0]).all()
    act = np.zeros(2, np.float32)
    assert env.step(act)[1:] == plain.step(act)[1:]
    for rew in (np.float64(1), np.float32(-1), 1, True):
        odd = Checked(Odd(rew=rew), "odd")
        odd.reset(seed=3)
        assert [odd.step(act)[1] for _ in range(2)][1] is rew


def test_an_environment_that_raises_prints_or_never_ends_is_a_sentence(capsys):
    act = np.zeros(2, np.float32)
    with pytest.raises(UserError, match=r"at step 1 .* its step raised AttributeError: .*tiny_world.py, line \d+\)"):
        Checked(tiny_world.TinyEnv(), "tiny").step(act)  # never reset
    env = Checked(Odd(), "odd", max_steps=3)
    env.reset(seed=3)
    env.step(act), env.step(act)
    with pytest.raises(UserError, match=r"gave no end at step 3 .* truncated after 3 steps"):
        env.step(act)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("picture", [None, np.zeros((64, 64)), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))])
def test_pictures_that_cannot_be_filmed_are_refused(picture):
    with pytest.raises(UserError, match=r"render\(\) of the world odd gave"):
        check_picture(picture, "odd")
    check_picture(np.zeros((90, 60, 3), np.uint8), "odd")
