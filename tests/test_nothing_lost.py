"""Work that was done is delivered, under the right record or not at all: edits, disks and shares that refuse."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import av
import pytest
import tiny_world
from conftest import STAGES
from matplotlib.figure import Figure

from wm.cli import main
from wm.core import files
from wm.core.checkpoints import Checkpoints
from wm.core.episodes import EpisodeSet
from wm.core.errors import DamagedData
from wm.core.journal import Journal

OUTPUT = Path("runs/tiny/collect")


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def meanwhile(monkeypatch):
    """What is done while `collect` plays, in the middle of its episodes; `played` counts those that have begun."""
    explore, todo = tiny_world.Tiny.explorer, []

    def explorer(self, rng, **options):
        meanwhile.played += 1
        if meanwhile.played == 8 and todo:
            todo.pop()()
        return explore(self, rng, **options)

    def meanwhile(action):
        todo.append(action)

    meanwhile.played = 0
    monkeypatch.setattr(tiny_world.Tiny, "explorer", explorer)
    return meanwhile


# ---------------------------------------------------------------- edits while a stage runs


@pytest.mark.parametrize(
    "path, before, after, named",
    [
        ("params.yaml", "episodes: 12", "episodes: 13", "collect.episodes was changed"),
        (
            "params.yaml",
            "own: tiny_world:Tiny",
            "own: tiny_world:Tiny\n    name: [",
            "something was changed (params.yaml",
        ),
        ("tiny_world.py", "rew = 1.0", "rew = 2.0", "tiny_world.py was changed"),
        ("runs/zero/collect/empty.json", "{}", "{ }", "runs/zero/collect was changed"),
    ],
)
def test_what_was_made_of_something_else_is_kept_until_that_is_back(
    project, meanwhile, capsys, path, before, after, named
):
    path, text = Path(path), Path(path).read_text()
    assert before in text
    meanwhile(lambda: path.write_text(text.replace(before, after, 1)))
    assert main(["collect", "tiny"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {named}") and "while collect tiny ran" in said and not OUTPUT.exists()
    path.write_text(text)
    played = meanwhile.played
    assert main(["collect", "tiny"]) == 0
    assert meanwhile.played == played and "episode" not in capsys.readouterr().err, "it is published at once"
    expected = hashes(OUTPUT)
    shutil.rmtree(OUTPUT)
    assert main(["collect", "tiny"]) == 0 and meanwhile.played == 2 * played
    assert hashes(OUTPUT) == expected


def test_comments_and_other_entries_may_be_edited_while_a_stage_runs(project, meanwhile):
    def edit():
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text("# a remark\n" + text.replace("steps: 30", "steps: 31"))

    meanwhile(edit)
    assert main(["collect", "tiny"]) == 0 and OUTPUT.exists()


def test_what_was_kept_and_then_damaged_is_made_again(project, meanwhile, capsys):
    text = Path("params.yaml").read_text()
    meanwhile(lambda: Path("params.yaml").write_text(text.replace("episodes: 12", "episodes: 13")))
    assert main(["collect", "tiny"]) == 2
    Path("params.yaml").write_text(text)
    (shard,) = Path(".wm/work").glob("collect-tiny-*/out/shard-00001.parquet")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert main(["collect", "tiny"]) == 0
    assert "finished outputs passed over" in capsys.readouterr().err
    EpisodeSet(OUTPUT).verify()


# ---------------------------------------------------------------- publishing


def test_a_scratch_folder_on_another_file_system_publishes_and_replaces(project):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if os.stat(other).st_dev == os.stat(project).st_dev:
            pytest.skip("/dev/shm is no file system of its own here")
        Path(".wm").symlink_to(other)
        for episodes in (12, 13):
            text = tiny_world.PARAMS.replace("episodes: 12", f"episodes: {episodes}")
            Path("params.yaml").write_text(text)
            assert main(["collect", "tiny"]) == 0
            assert files.read_json(OUTPUT / "summary.json")["episodes"] == episodes
        assert [path.name for path in OUTPUT.parent.iterdir()] == ["collect"]
        assert not list(Path(".wm").glob("work/collect-*/out"))


def folder(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(content)
    return path


def refuse(monkeypatch, function: str, number: int, *, after: int = 0) -> None:
    """A function of `os` that fails from its call `after` on, as the system fails."""
    real, calls = getattr(os, function), []

    def refused(*args, **options):
        calls.append(args)
        if len(calls) > after:
            raise OSError(number, os.strerror(number), os.fspath(args[0]) if not isinstance(args[0], int) else None)
        return real(*args, **options)

    monkeypatch.setattr(os, function, refused)


def test_the_earlier_output_is_there_until_the_new_one_is_whole(tmp_path, monkeypatch):
    new, target = folder(tmp_path / "new", "new"), folder(tmp_path / "target", "earlier")
    with monkeypatch.context() as patch:
        refuse(patch, "rename", errno.EXDEV)
        refuse(patch, "fsync", errno.ENOSPC)
        with pytest.raises(OSError, match="No space left"):
            files.replace_folder(new, target)
    with monkeypatch.context() as patch:  # renamed aside, and then the new one is refused
        refuse(patch, "rename", errno.ENOTEMPTY)
        refuse(patch, "replace", errno.EACCES, after=1)
        with pytest.raises(OSError):
            files.replace_folder(new, target)
    assert (tmp_path / ".target.old" / "file").read_text() == "earlier", "nothing could put it back"
    with monkeypatch.context() as patch:  # the next call finds it there, as after a kill between the two renames
        refuse(patch, "rename", errno.EXDEV)
        refuse(patch, "fsync", errno.EDQUOT)
        with pytest.raises(OSError, match="quota"):
            files.replace_folder(new, target)
    assert (target / "file").read_text() == "earlier" and (new / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "target"]
    files.replace_folder(new, target)
    assert (target / "file").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_could_not_be_published_is_published_by_the_next_run(project, meanwhile, capsys):
    OUTPUT.parent.write_text("a file where the folder of outputs belongs")
    assert main(["collect", "tiny"]) == 2
    assert "error: runs/tiny: " in capsys.readouterr().err
    OUTPUT.parent.unlink()
    played = meanwhile.played
    assert main(["collect", "tiny"]) == 0 and meanwhile.played == played and OUTPUT.exists()
    assert "episode" not in capsys.readouterr().err, "the stage is not run again"


@pytest.mark.parametrize("refused", ["chmod", "sync of a folder", "flock"])
def test_what_a_share_refuses_is_no_reason_to_lose_work(project, monkeypatch, refused):
    assert main(["collect", "tiny"]) == 0
    expected = hashes(OUTPUT)
    shutil.rmtree(OUTPUT)
    sync = os.fsync

    def files_only(handle):
        if Path(f"/proc/self/fd/{handle}").is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if refused == "chmod":
        refuse(monkeypatch, "chmod", errno.EPERM)
    elif refused == "flock":
        monkeypatch.setattr(fcntl, "flock", no_locks)
    else:
        monkeypatch.setattr(os, "fsync", files_only)
    assert main(["collect", "tiny"]) == 0
    assert hashes(OUTPUT) == expected
    checkpoints = Checkpoints(project / "checkpoints")
    checkpoints.save(1, {}, {"kept": True})
    assert checkpoints.load()[1] == {"step": 1, "kept": True}


# ---------------------------------------------------------------- pictures are decoration


def test_episodes_of_one_step_have_no_dream_to_show(project, monkeypatch, capsys):
    """The held-out one is such a one, and half of the others are."""
    step, reset = tiny_world.TinyEnv.step, tiny_world.TinyEnv.reset

    def half(self, *, seed=None, options=None):
        self.short = seed % 2 == 0
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(tiny_world.TinyEnv, "reset", half)
    monkeypatch.setattr(
        tiny_world.TinyEnv, "step", lambda self, act: (*(made := step(self, act))[:2], made[2] or self.short, False, {})
    )
    assert [main([stage, "tiny"]) for stage in STAGES[:4]] == [0] * 4
    made = Path("runs/tiny/train_mdn")
    assert (made / "mdnrnn.safetensors").exists() and not (made / "videos").exists()
    assert "could not be drawn" not in capsys.readouterr().err


def test_a_picture_that_fails_costs_no_training(project, monkeypatch, capsys):
    def fails(error):
        def savefig(*_, **__):
            raise error

        monkeypatch.setattr(Figure, "savefig", savefig)

    assert main(["collect", "tiny"]) == 0
    fails(OSError(errno.ENOSPC, "No space left on device"))
    assert main(["train_vae", "tiny"]) == 2, "elsewhere the same inputs give the pictures too"
    fails(IndexError("a mistake in drawing"))
    capsys.readouterr()
    assert main(["train_vae", "tiny"]) == 0
    said = capsys.readouterr()
    assert "going on from the checkpoint at step 12" in said.out, "the last step was kept"
    assert "warning: pictures of V could not be drawn" in said.err and "a mistake in drawing" in said.err
    made = Path("runs/tiny/train_vae")
    assert (made / "vae.safetensors").exists() and not (made / "figures").exists()


def test_films_that_cannot_be_written_are_told_before_the_work(project, monkeypatch, capsys):
    for stage in ("train_vae", "encode"):
        folder(project / "runs" / "tiny" / stage, "not looked at yet")
    with monkeypatch.context() as without:
        without.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
        assert main(["train_mdn", "tiny"]) == 2
    assert "films need x264, and the package av" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["train_mdn", "tiny"]) == 2
    assert "films need the package av, and it is not whole here" in capsys.readouterr().err


# ---------------------------------------------------------------- what a killed run goes on from


def test_a_journal_that_was_damaged_is_not_gone_on_with(tmp_path):
    journal = Journal(tmp_path / "out/metrics.jsonl", tmp_path / "live.jsonl")
    for step in range(4):
        journal.log(step, {"loss": 1.5 * step})
    whole = journal.path.read_text()
    journal.rewind(2)
    assert journal.path.read_text() == "".join(whole.splitlines(keepends=True)[:3])
    journal.log(3, {"loss": 4.5})
    assert journal.path.read_text() == whole
    journal.path.write_text(whole.replace("1.5", "1.6"))
    journal.rewind(0), journal.log(1, {"loss": 1.5})  # what is damaged is forgotten here
    journal.path.write_text(journal.path.read_text().replace("1.5", "3.5"))
    with pytest.raises(DamagedData, match="begins anew"):
        journal.rewind(1)


def test_a_shard_whose_note_was_damaged_is_made_again(project, meanwhile):
    assert main(["collect", "tiny"]) == 0
    expected, played = hashes(OUTPUT), meanwhile.played
    shutil.rmtree(OUTPUT)
    meanwhile(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    meanwhile.played = 0
    assert main(["collect", "tiny"]) == 130
    (notes,) = Path(".wm/work").glob("collect-tiny-*/shards.jsonl")
    text = notes.read_text()
    notes.write_text(text.replace('"length": ', '"length": 1', 1))
    assert text and main(["collect", "tiny"]) == 0 and hashes(OUTPUT) == expected and played
