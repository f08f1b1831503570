"""What DVC's cache or remote holds is compared with its record before it is taken for whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from flows import damage, graph, mend
from flows.repro import pull, push, repro
from tests.flow_project import Project

V = Path("runs/tiny/train_vae/out.json")
CACHE = Path(".dvc/cache/files/md5")
ASIDE = Path(".dvc/cache/damaged")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Project:
    """A project whose first three stages have run."""
    project = Project(tmp_path_factory.mktemp("made") / "project")
    assert project.run("dvc", "repro", "-q", "encode@tiny")[0] == 0
    return project


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Project:
    """A copy of it as the current folder."""
    return enter(made, tmp_path / "project", monkeypatch)


def enter(made: Project, folder: Path, monkeypatch) -> Project:
    shutil.copytree(made.folder, folder, symlinks=True)
    project = Project.__new__(Project)
    project.folder, project.env = folder, made.env
    monkeypatch.chdir(folder)
    for name, text in made.env.items():
        monkeypatch.setenv(name, text)
    return project


def name(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def place(oid: str, store: Path = CACHE) -> Path:
    return store / oid[:2] / oid[2:]


def list_of(path: Path) -> Path:
    """The list of the folder that a file is in, in the cache."""
    lock = (Path("dvc.lock").read_text()).split(f"path: {path.parent}\n")[1]
    return place(lock.split("md5: ")[1].split("\n")[0])


def write(path: Path, data: bytes) -> None:
    """As a disk changes bytes: whoever looks at rights and times sees nothing."""
    was = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()
    path.chmod(was.st_mode & 0o777)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 4
    write(path, bytes(data))


def cut(path: Path) -> None:
    write(path, path.read_bytes()[:5])


def rename_in(path: Path) -> None:
    """A list that is still one, with another name in it."""
    write(path, path.read_bytes().replace(b"out.json", b"out.jsom"))


@pytest.mark.parametrize("hurt, of_list", [(flip, False), (rename_in, True)])
def test_a_damaged_object_is_put_aside_by_name_and_made_again(project, hurt, of_list):
    was, said = V.read_bytes(), []
    hurt(list_of(V) if of_list else place(name(V)))
    shutil.rmtree(V.parent)
    lock = Path("dvc.lock").read_text()
    assert repro("train_vae@tiny", said.append).state == "Completed"
    assert V.read_bytes() == was and Path("dvc.lock").read_text() == lock
    (line,) = [line for line in said if line.startswith("Damaged: ")]
    (aside,) = ASIDE.iterdir()
    assert line.endswith(f"was damaged in DVC's cache: put aside as {aside}")
    assert repro("train_vae@tiny", said.append).state == "Cached"


def test_what_was_being_restored_when_a_run_was_killed_is_looked_at_again(project):
    flip(place(name(V)))
    was = V.read_bytes()
    shutil.rmtree(V.parent)
    damage.doubt(["train_vae@tiny"])  # as `repro` notes before DVC begins
    subprocess.run(["dvc", "checkout", "-q", "train_vae@tiny"], check=True, env=project.env)
    assert V.read_bytes() != was
    assert [stage.outlook for stage in graph.plan("tiny")][1] == "in the cache", "not: unchanged"
    assert repro("train_vae@tiny", print).state == "Completed"
    assert V.read_bytes() == was and [stage.outlook for stage in graph.plan("tiny")][1] == "unchanged"


def test_nothing_damaged_is_sent_and_what_is_damaged_in_the_remote_is_made_again(project, tmp_path):
    store, said = tmp_path / "remote", []
    subprocess.run(["dvc", "remote", "add", "--local", "--default", "storage", store], check=True, env=project.env)
    sound, oid = V.read_bytes(), name(V)
    flip(place(oid))
    assert push("train_vae@tiny", said.append).state == "Completed"
    assert place(oid).read_bytes() == sound == place(oid, store / "files/md5").read_bytes(), "the file here was whole"
    assert (ASIDE / oid).exists() and any(line.startswith("Damaged: ") for line in said)

    there = place(oid, store / "files/md5")
    cut(there)
    shutil.rmtree(V.parent)
    place(oid).unlink()
    done = pull("encode", ["train_vae@tiny"], said.append)
    assert done.state == "Damaged" and done.why and not V.exists() and not there.exists()
    assert (store / "damaged" / oid).read_bytes() == sound[:5]
    assert repro("train_vae@tiny", said.append, pull=True).state == "Completed" and V.read_bytes() == sound
    assert push("train_vae@tiny", said.append).state == "Completed" and there.read_bytes() == sound
    shutil.rmtree(V.parent)
    assert pull("encode", ["train_vae@tiny"], said.append).state == "Completed" and V.read_bytes() == sound


def test_mend_finds_damage_here_and_in_the_cache(project, capsys):
    assert mend.main([]) == 0 and capsys.readouterr().out == "nothing is damaged\n"
    oid = name(V)
    cut(place(oid))
    flip(V)
    assert mend.main(["tiny"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{place(oid)}, of {V.parent}, was damaged in DVC's cache: put aside as {ASIDE / oid}"
    assert not V.parent.exists() and (ASIDE / oid).stat().st_size == 5
    assert mend.main([]) == 0
