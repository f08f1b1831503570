"""Where MLflow's database and files are: in the project's top folder, wherever that is now and whatever it is called.

MLflow records absolute addresses of its files, and reads a `?` or a `%` in a path as a part of an address. So a project
that was moved gets its addresses corrected, and a folder with such a sign is called by a plain link to it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import tempfile
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from wm.core.errors import UserError
from wm.core.files import copy_file

DATABASE, FILES = "mlflow.db", "mlartifacts"
SCRATCH = (".wm", ".dvc/tmp")
"""Where a project has other checkouts of itself: worktrees of runs, those of `dvc exp run --temp`."""
SIGNS = "?#%"
"""What an address reads otherwise than a path does."""
_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def home(root: Path) -> Path:
    """The folder that keeps what a checkout tells MLflow: the checkout's, or that of the project in whose scratch it
    lies."""
    root = Path(root).resolve()
    for folder in reversed(root.parents):
        inside = any(root.is_relative_to(folder / scratch) for scratch in SCRATCH)
        if inside and (folder / "dvc.yaml").exists():
            return folder
    return root


def address(root: Path) -> str:
    """The database's, for MLflow."""
    return f"sqlite:///{plain(home(root)) / DATABASE}"


def correct(root: Path) -> None:
    """Addresses in the database are correct from then on; only who talks to MLflow anyway calls it, since the database
    may be locked, or be none."""
    _correct(plain(home(root)))


def make(uri: str) -> None:
    """Makes the database of an address whole or not at all, if it is a file that is not there yet.

    MLflow makes its tables one after another, and can use no database in which a kill left some of them.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or "?" in uri or (path.exists() and path.stat().st_size):
        return
    import mlflow

    new = path.with_name(f"{path.name}.new")
    for left in path.parent.glob(f"{new.name}*"):
        left.unlink()
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{new}")
    copy_file(new, path)  # what this process holds open stays the other one
    new.unlink()


def files(root: Path) -> Path:
    """The folder of MLflow's files."""
    return plain(home(root)) / FILES


def exists(root: Path) -> bool:
    """Whether there is a database."""
    return (home(root) / DATABASE).exists()


def plain(folder: Path) -> Path:
    """A folder, by a path that can stand in an address: its own, or that of a link among this user's temporary files.

    Raises:
        UserError: somebody else has the place of the link.
    """
    if not any(sign in str(folder) for sign in SIGNS):
        return folder
    links = Path(tempfile.gettempdir(), f"world-models-{os.getuid()}")
    with suppress(FileExistsError):
        links.mkdir(mode=0o700)
    about = links.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise UserError(
            f"{folder} has one of {SIGNS} in its path, and {links}, where its link would be, is not yours: "
            "rename the folder, or set TMPDIR"
        )
    link = links / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink() or os.readlink(link) != str(folder):
        new = link.with_name(f"{link.name}.{os.getpid()}")
        new.unlink(missing_ok=True)
        new.symlink_to(folder, target_is_directory=True)
        os.replace(new, link)
    return link


@cache
def _correct(folder: Path) -> None:
    """Addresses of files of this database that lead to where its folder was, or to what it was a copy of, lead here."""
    if not (folder / DATABASE).exists():
        return
    here = folder.as_uri()
    with closing(sqlite3.connect(folder / DATABASE, timeout=20)) as database, database:
        known = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in known:
            return
        found = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        places = {place.rpartition(f"/{FILES}/")[0] for (place,) in found if place and f"/{FILES}/" in place}
        for before in places - {here} if (folder / FILES).is_dir() else ():
            if before.startswith("file:"):
                _replace(database, known, before, here)


def _replace(database: sqlite3.Connection, known: set[str], before: str, here: str) -> None:
    for table, columns in _ADDRESSES.items():
        has = {row[1] for row in database.execute(f"PRAGMA table_info({table})")} if table in known else set()
        for column in has.intersection(columns):
            start = f"{before}/{FILES}/"
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (here, len(before) + 1, len(start), start),
            )
