"""wm.records.git: whatever a hook, a person or another user's checkout brings, git answers or says why it does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from wm.records import git


def run(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A repository of two commits, in a home without settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    folder = tmp_path / "project"
    folder.mkdir()
    run(folder, "init", "-q", "-b", "main")
    for number in (1, 2):
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "file").write_text(f"{number}\n")
        (folder / "sub/größe").write_text(f"{number}\n")
        run(folder, "add", "-A")
        run(folder, "commit", "-q", "-m", str(number))
    return folder


def test_a_hooks_environment_names_another_repository_and_is_not_heard(checkout, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    run(other, "init", "-q")
    head = run(checkout, "rev-parse", "HEAD")
    for name, value in {"GIT_DIR": other / ".git", "GIT_INDEX_FILE": other / ".git/index"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.bare")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    assert git.read(checkout, "rev-parse", "HEAD").strip() == git.find(checkout, "HEAD") == head
    (checkout / "file").write_text("3\n")
    assert git.commit(checkout, "three", ["file"]) != head
    assert not (other / ".git/index").exists()


def test_own_commits_need_no_key_no_hook_and_no_name(checkout, tmp_path):
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    (tmp_path / "home/.gitconfig").write_text(f"[commit]\n\tgpgsign = true\n[core]\n\thooksPath = {hooks}\n")
    (checkout / "file").write_text("3\n")
    (checkout / "sub/größe").write_text("3\n")
    made = git.commit(checkout, "three", ["file"])
    assert run(checkout, "log", "-1", "--format=%H %an %s") == f"{made} world-models three"
    assert git.commit(checkout, "again", ["file"]) == made  # nothing changed
    assert git.state(checkout) == git.State(commit=made, dirty=True)  # sub/größe
    assert git.state(checkout, "sub") == git.State(commit=made, dirty=False)


def test_a_persons_settings_change_no_answer(checkout, tmp_path):
    (tmp_path / "home/.gitconfig").write_text(
        "[color]\n\tui = always\n[core]\n\tquotepath = on\n[log]\n\tshowSignature = 1\n"
    )
    (checkout / "sub/größe").write_text("3\n")
    assert git.read(checkout, "diff", "--name-only", "HEAD") == "sub/größe\n"
    assert len(git.read(checkout, "log", "--format=%H").split()) == 2


def test_files_and_commits_that_are_not_there_are_answers(checkout, tmp_path):
    first = run(checkout, "rev-parse", "HEAD~1")
    assert git.find(checkout, "HEAD~1") == git.find(checkout, first[:9]) == first
    assert [git.find(checkout, rev) for rev in ("HEAD~2", "nobody", "", "HEAD:file", "--all", "a b")] == [None] * 6
    assert git.content(checkout, first, "file") == git.content(checkout / "sub", first, "größe") == b"1\n"
    assert git.content(checkout, first, "nothing") is None and git.content(checkout, first, "sub") is None
    assert git.find(tmp_path, "HEAD") is None and not git.is_repository(tmp_path)


def test_a_failure_is_no_answer(checkout, tmp_path, monkeypatch):
    (checkout / ".git/HEAD").write_text("")
    for ask in (lambda: git.find(checkout, "HEAD"), lambda: git.content(checkout, "HEAD", "file")):
        with pytest.raises(git.GitError, match=r"^`git cat-file` in .* failed: fatal: "):
            ask()
    state = git.state(checkout)
    assert not state.commit and state.dirty and state.trouble.startswith("`git rev-parse` in ")
    unknown = git.state(tmp_path)
    assert not unknown.commit and unknown.dirty and "is no git checkout" in unknown.trouble
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(git.GitError, match=r"git cannot be started in .*: see that it is installed"):
        git.read(checkout, "status")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_checkout_of_another_user_is_read_and_a_repository_above_it_is_not(checkout):
    head = run(checkout, "rev-parse", "HEAD")
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 4321, 4321)
    assert git.state(checkout) == git.State(commit=head, dirty=False)
    above = git.state(checkout / "sub")
    assert above.dirty and not above.commit and "dubious ownership" in above.trouble


def test_a_shallow_clone_says_so(checkout, tmp_path):
    run(tmp_path, "clone", "-q", "--depth", "1", f"file://{checkout}", "cut")
    assert git.is_shallow(tmp_path / "cut") and not git.is_shallow(checkout) and not git.is_shallow(tmp_path)
