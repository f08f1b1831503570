"""A commit of this repository in a clone of its own: what it is asked to run, and what it gave, kept for the next call.

`RESULTS/<commit>/clone` is the checkout, `RESULTS/<commit>/<what>.json` what a run gave and how long it took, beside
its log. A result counts as long as it was made from the same definition with the same packages.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from ruamel.yaml import YAML

from wm.core import plots
from wm.core.errors import UserError
from wm.records import git

PACKAGES = (
    *("torch", "numpy", "scipy", "cma", "gymnasium", "Box2D", "pygame-ce", "vizdoom", "opencv-python-headless"),
    *("pillow", "matplotlib", "av", "pyarrow", "safetensors"),
)
"""What bits of an output come from besides the code."""

SCORE = """\
import shutil, sys
from pathlib import Path
from wm.cli import main

remove = shutil.rmtree

def keep_scores(folder, *more, **options):
    for scores in Path(folder).glob("out/scores.json"):
        shutil.copyfile(scores, sys.argv[2])
    remove(folder, *more, **options)

shutil.rmtree = keep_scores
sys.exit(main(["evaluate", sys.argv[1], "--pretrained"]))
"""
"""`evaluate NAME --pretrained`, which deletes its folder at the end, with every episode's score kept in a file."""


class Commit:
    """Runs things in a clone at a commit.

    Args:
        rev: a commit-ish of the repository `root`.
        results: where clones and results of all commits are.
    Raises:
        UserError: git does not know `rev`.
    """

    def __init__(self, rev: str, root: Path, results: Path):
        self.rev, self.sha, self.root = rev, git.find(root, rev), root
        if not self.sha:
            raise UserError(f"{rev!r} is no commit that git knows here: look at `git log`, or run `git fetch`")
        self.folder = results / self.sha[:12]
        self.clone = self.folder / "clone"
        self._environment = environment()

    def prepare(self) -> None:
        """Makes the clone, if there is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if not self.clone.exists():
                new = self.folder / "clone.new"
                shutil.rmtree(new, ignore_errors=True)
                git.write(self.root, "clone", "-q", "--no-checkout", str(self.root), str(new))
                git.write(new, "checkout", "-q", "--detach", self.sha)
                new.rename(self.clone)

    def file(self, path: str) -> str | None:
        """The text of a file of the commit; None where there is none."""
        data = git.content(self.root, self.sha, path)
        return None if data is None else data.decode()

    def params(self) -> list[dict[str, Any]]:
        """The contents of params.yaml, and of trials/params.yaml if the commit has one."""
        texts = [self.file(path) for path in ("params.yaml", "trials/params.yaml")]
        return [YAML(typ="safe").load(text) for text in texts if text is not None]

    def options(self) -> set[str]:
        """Dotted options that its stages know: evolve.directions."""
        done = self._python(["-m", "wm", "params"])
        if done.returncode:
            raise UserError(f"`python -m wm params` fails at {self.rev}: {_last(done.stdout)}")
        return set(re.findall(r"^experiments\.NAME\.(\w+(?:\.\w+)+) \(", done.stdout, re.MULTILINE))

    def write_params(self, content: Mapping[str, Any]) -> None:
        """Replaces params.yaml of the clone."""
        with (self.clone / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(content, file)

    def run(self, address: str, definition: str) -> dict[str, Any]:
        """Runs `python -m wm STAGE NAME`, or takes what an earlier call has kept.

        Args:
            address: STAGE@NAME, of params.yaml as it is written now.
            definition: what NAME is; another text is another run.
        Returns:
            {"seconds", "outputs": {path: {"md5": as DVC calls it, "files": {path inside: md5}}}}
        Raises:
            UserError: the stage fails.
        """
        stage, _, name = address.partition("@")
        paths = [f"runs/{name}/{stage}", *([f"metrics/{name}.json"] if stage == "evaluate" else [])]
        if stage in plots.STAGES and self.file("wm/core/plots.py") is not None:  # older commits leave none
            paths.append(f"plots/{name}/{stage}.tsv")

        def compute(log: Path) -> dict[str, Any]:
            done = self._python(["-m", "wm", stage, name])
            log.write_text(done.stdout)
            if done.returncode:
                raise UserError(f"{address} fails at {self.rev}: {_last(done.stdout)} ({log})")
            return {"outputs": {path: hashed(self.clone / path) for path in paths}}

        return self._kept(address, definition, compute, all((self.clone / path).exists() for path in paths))

    def score(self, name: str, episodes: int | None = None) -> dict[str, Any]:
        """Runs `python -m wm evaluate NAME --pretrained`, or takes what an earlier call has kept.

        Args:
            episodes: the first so many alone.
        Returns:
            {"seconds", "outputs", "scores": of each episode, "recorded": whether they are those that git has}
        """
        target = self.folder / f"scores@{name}{f'-{episodes}' if episodes else ''}.json"

        def compute(log: Path) -> dict[str, Any]:
            agent = self.clone / "pretrained" / name
            if episodes:
                shorten(agent, episodes)
            try:
                done = self._python(["-c", SCORE, name, str(target)])
            finally:
                git.write(self.clone, "checkout", "-q", "--", f"pretrained/{name}")
            log.write_text(done.stdout)
            if done.returncode not in (0, 2) or not target.exists():  # 2: not the recorded ones, on this machine
                raise UserError(f"evaluate {name} --pretrained fails at {self.rev}: {_last(done.stdout)} ({log})")
            scores = json.loads(target.read_text())["scores"]
            return {"outputs": {"scores.json": hashed(target)}, "scores": scores, "recorded": done.returncode == 0}

        return self._kept(target.stem, str(episodes), compute, target.exists())

    def _kept(self, what: str, definition: str, compute: Callable[[Path], dict], there: bool) -> dict[str, Any]:
        path = self.folder / f"{what}.result.json"
        key = {"definition": definition, "environment": self._environment}
        with self._lock():
            if there and path.exists():
                kept = json.loads(path.read_text())
                if kept["key"] == key:
                    return kept
            began = time.perf_counter()
            print(f"{self.sha[:7]} {what} …", file=sys.stderr, flush=True)
            found = compute(self.folder / f"{what}.log")
            found |= {"key": key, "seconds": round(time.perf_counter() - began, 1)}
            path.with_suffix(".new").write_text(json.dumps(found, indent=1))
            path.with_suffix(".new").rename(path)
            return found

    def _lock(self) -> FileLock:
        return FileLock(self.folder / ".lock")

    def _python(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Runs Python in the clone, whose packages come first, whatever is installed."""
        env = {key: text for key, text in os.environ.items() if not key.startswith(("WM_", "PYTHON"))}
        env |= {"WM_TRACKING": "off", "SDL_VIDEODRIVER": "dummy"}
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.clone,
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def environment() -> str:
    """Processor, Python and packages, as one text."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return ", ".join([_processor(), f"Python {platform.python_version()}", *versions])


def _processor() -> str:
    try:
        return re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def hashed(path: Path) -> dict[str, Any]:
    """What DVC calls a file or folder, and each file in it: {"md5", "files": {path inside: md5}}."""
    from dvc_data.hashfile.hash import file_md5
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.fs.local import LocalFileSystem

    local = LocalFileSystem()
    if path.is_file():
        return {"md5": file_md5(str(path), local), "files": {}}
    tree, files = Tree(), {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            inside = file.relative_to(path)
            files[inside.as_posix()] = file_md5(str(file), local)
            tree.add(inside.parts, None, HashInfo("md5", files[inside.as_posix()]))
    tree.digest()
    return {"md5": tree.hash_info.value, "files": files}


def shorten(agent: Path, episodes: int) -> None:
    """Makes a pretrained agent in a clone one that was scored on its first so many test episodes."""
    import hashlib

    made, scores = (json.loads((agent / name).read_text()) for name in ("made.json", "scores.json"))
    del made["checksum"]
    made["experiment"]["evaluate"]["episodes"] = episodes
    made["checksum"] = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    scores |= {"episodes": episodes} | {key: scores[key][:episodes] for key in ("scores", "seeds", "lengths")}
    for name, content in (("made.json", made), ("scores.json", scores)):
        (agent / name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
