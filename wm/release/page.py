"""The page that dreams are shown in, without an agent: built from `web/` by npm, into a file beside this module.

A release's wheel holds the built file. In a checkout it is built where it is missing or older than its sources, which
needs node: Debian's, or `pip install 'world-models[page]'`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import filelock

from wm.core import files
from wm.core.errors import UserError

BUILT = Path(__file__).with_name("page.html")
SOURCES = Path(__file__).parents[2] / "web"
STAMP = "<!-- built from {} -->\n"
"""Last line of the built file: which sources it was made from."""


def template() -> str:
    """The page, with `%AGENT%` where an agent belongs.

    Raises:
        UserError: it has to be built, and there is no node; or npm failed.
    """
    if not (SOURCES / "package-lock.json").is_file():
        if BUILT.is_file():
            return BUILT.read_text()
        raise UserError("this package was built without the page: install the wheel of a release, or use a checkout")
    with filelock.FileLock(SOURCES / ".lock"):
        stamp = STAMP.format(_digest())
        if not (BUILT.is_file() and BUILT.read_text().endswith(stamp)):
            files.write_bytes(BUILT, _build().encode() + stamp.encode())
    return BUILT.read_text()


def _digest() -> str:
    """Of everything that the page is built from."""
    names = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"]
    sources = [SOURCES / name for name in names] + sorted((SOURCES / "src").glob("*"))
    lines = [f"{path.name} {files.sha256(path)}" for path in sources]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _build() -> str:
    """What npm makes of `web/`, from the packages that its lock file names."""
    place = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    npm = shutil.which("npm", path=place)
    if npm is None or shutil.which("node", path=place) is None:
        raise UserError(
            "the page has to be built, and there is no node here: `apt install nodejs npm`, "
            "or `pip install 'world-models[page]'`"
        )
    env = {**os.environ, "PATH": place}
    for command in ([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], [npm, "run", "build"]):
        done = subprocess.run(command, cwd=SOURCES, env=env, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise UserError(f"`npm {command[1]}` in {SOURCES} failed: {''.join(said) or 'it said nothing'}")
    return (SOURCES / "dist" / "index.html").read_text()
