"""A kill at any moment leaves the last whole checkpoint in force."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wm.core import checkpoints, files
from wm.core.checkpoints import Checkpoints
from wm.core.errors import UserError
from wm.core.journal import Journal, read
from wm.core.workspace import Workspace
from wm.stages import STAGES

ROOT = Path(__file__).parent.parent


def save(folder: Path, *steps: int) -> Checkpoints:
    made = Checkpoints(folder)
    for step in steps:
        made.save(step, {"x": np.full(3, step, np.float32), "none": np.empty((0, 2))}, {"rng": 2**127 + step})
    return made


def test_what_is_saved_comes_back(tmp_path):
    tensors, state = save(tmp_path, 5).load()
    assert state == {"step": 5, "rng": 2**127 + 5}
    assert tensors["x"].dtype == np.float32 and tensors["x"].tolist() == [5, 5, 5] and tensors["none"].shape == (0, 2)


def test_an_empty_folder_has_none(tmp_path):
    assert Checkpoints(tmp_path / "nothing").load() is None


def test_only_the_newest_two_are_kept(tmp_path):
    save(tmp_path, *range(10, 100, 10))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000000080", "step-000000090"]


@pytest.mark.parametrize("damage", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "flip", "delete"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, capsys, damage, how):
    made = save(tmp_path, 10, 20)
    path = tmp_path / "step-000000020" / damage
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink() if how == "delete" else path.write_bytes(data if how == "flip" else data[: len(data) // 2])
    assert made.load()[1]["step"] == 10
    assert "passed over" in capsys.readouterr().err
    made = save(tmp_path, 20)  # the resumed run comes by there again
    assert made.load()[1]["step"] == 20


def test_a_checkpoint_that_the_pointer_never_reached_is_not_there(tmp_path):
    made = save(tmp_path, 10)
    shutil.copytree(tmp_path / "step-000000010", tmp_path / "step-000000020")
    assert made.load()[1]["step"] == 10


def test_a_folder_in_the_making_is_not_a_checkpoint(tmp_path):
    (tmp_path / "step-000000010").mkdir()
    (tmp_path / "step-000000010" / "tensors.safetensors").write_bytes(b"")
    assert Checkpoints(tmp_path).load() is None


def test_killed_at_any_moment_the_previous_one_is_whole(tmp_path):
    """A process that does nothing but save is killed at its n-th write; each time the newest whole one is found."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom wm.core.checkpoints import Checkpoints\n"
        "from faults.shim import Counter\nimport numpy as np\nmade = Checkpoints(sys.argv[1])\n"
        "found = made.load()\nstep = found[1]['step'] if found else 0\nprint(step, flush=True)\n"
        "Counter(Path(sys.argv[1]), int(sys.argv[2])).start()\n"
        "while True:\n    step += 1\n    made.save(step, {'x': np.full(200_000, step)}, {'y': step})\n"
    )
    before = 0
    for n in (7, 25, 42, 75):
        child = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(n)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert child.returncode == -signal.SIGKILL and int(child.stdout) >= before
        found = Checkpoints(tmp_path).load()
        if found:
            tensors, state = found
            assert (tensors["x"] == state["y"]).all() and state["step"] == state["y"] >= before
            before = state["step"]
        assert len(list(tmp_path.glob("step-*"))) <= Checkpoints.KEEP + 1
    assert before > 3


def test_a_fingerprint_is_of_numbers_inputs_and_code_and_of_nothing_else(tmp_path):
    copy = shutil.copytree(ROOT / "wm", tmp_path / "wm", ignore=shutil.ignore_patterns("__pycache__"))

    def fingerprint(config, inputs, stage="evolve", top=ROOT):
        code = [top / path for path in STAGES["evolve"].code_of("wm/worlds/car_racing")]
        return checkpoints.fingerprint(stage, config, inputs, code)

    first = fingerprint({"a": 1, "b": 2}, {"x": "1"})
    assert first == fingerprint({"b": 2, "a": 1}, {"x": "1"})
    assert (
        len(
            {
                first,
                fingerprint({"a": 2, "b": 2}, {"x": "1"}),
                fingerprint({"a": 1, "b": 2}, {"x": "2"}),
                fingerprint({"a": 1, "b": 2}, {"x": "1"}, "encode"),
            }
        )
        == 4
    )

    def there():
        return fingerprint({"a": 1, "b": 2}, {"x": "1"}, top=tmp_path)

    assert there() == first, "where the code lies is part of it"
    for path in ("records/history.py", "stages/collect.py", "worlds/take_cover/world.py", "gym/dream.py"):
        (copy / path).write_text("# other words\n")
        assert there() == first, f"{path} is part of it"
    for path in (
        "worlds/car_racing/world.py",
        "worlds/base.py",
        "core/device.py",
        "stages/evolve.py",
        "search/space.py",
    ):
        before = there()
        (copy / path).write_text("# other words\n")
        assert there() != before, f"{path} is no part of it"


def workspace(tmp_path: Path, name: str = "smoke", fingerprint: str = "a" * 16) -> Workspace:
    return Workspace("train_vae", name, fingerprint, tmp_path / ".wm")


def test_other_numbers_clear_away_what_nobody_goes_on_with_but_no_other_entry(tmp_path):
    for name, fingerprint in (("smoke", "a" * 16), ("smoke-2", "b" * 16), ("smoke", "c" * 16)):
        with workspace(tmp_path, name, fingerprint) as made:
            made.checkpoints.save(1, {}, {})
    with workspace(tmp_path, "smoke", "c" * 16) as made:
        made.publish(tmp_path / "runs" / "smoke" / "train_vae", {})
    folders = sorted(path.name for path in (tmp_path / ".wm" / "work").iterdir() if path.is_dir())
    assert folders == [f"train_vae-smoke-2-{'b' * 16}", f"train_vae-smoke-{'c' * 16}"]


def test_publishing_is_one_rename_that_leaves_nothing_to_go_on_with(tmp_path):
    target = tmp_path / "runs" / "smoke" / "train_vae"
    for value in (1.0, 2.0):
        with workspace(tmp_path) as made:
            assert made.checkpoints.load() is None and not (made.out / "metrics.jsonl").exists()
            made.journal.log(1, {"loss": value})
            made.checkpoints.save(1, {}, {})
            made.publish(target, {"loss": value})
        assert files.read_json(target / "summary.json") == {"loss": value}
        assert read(target / "metrics.jsonl") == [{"step": 1, "loss": value}]
    assert [path.name for path in target.parent.iterdir()] == ["train_vae"]


def test_killed_between_publishing_and_clearing_up_the_run_starts_from_nothing(tmp_path):
    """Its learning curve has gone with the outputs: a checkpoint without the curve before it must not be used."""
    with workspace(tmp_path) as made:
        made.journal.log(10, {"loss": 1.0})
        made.checkpoints.save(10, {}, {})
        os.replace(made.out, tmp_path / "published")
    with workspace(tmp_path) as made:
        assert made.checkpoints.load() is None


def test_two_processes_never_share_a_workspace(tmp_path, monkeypatch):
    monkeypatch.setattr("wm.core.workspace.PATIENCE", 0.2)
    with workspace(tmp_path), pytest.raises(UserError, match="train_vae smoke already runs here"), workspace(tmp_path):
        pass
    with workspace(tmp_path):
        pass


def test_published_files_have_plain_modes_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        with workspace(tmp_path) as made:
            (made.out / "sub").mkdir()
            files.write_json(made.out / "sub" / "a.json", {})
            made.publish(tmp_path / "out", {})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*")}
    assert modes == {"sub": 0o755, "a.json": 0o644, "summary.json": 0o644}


def test_a_journal_rewinds_to_a_checkpoint_and_survives_a_cut_line(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "live.jsonl")
    for step in (1, 2, 3):
        journal.log(step, {"loss": 1.0 / step, "bad": float("nan"), "worse": float("-inf")}, {"seconds": 0.1})
    whole = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in whole and "Infinity" not in whole and "seconds" not in whole and "time" not in whole
    (tmp_path / "metrics.jsonl").write_text(whole + '{"step": 4, "lo')
    journal.rewind(2)
    for path in (tmp_path / "metrics.jsonl", tmp_path / "live.jsonl"):
        assert [line["step"] for line in read(path)] == [1, 2]
    journal.log(3, {"loss": 1.0 / 3, "bad": float("nan"), "worse": float("-inf")})
    assert (tmp_path / "metrics.jsonl").read_text() == whole
