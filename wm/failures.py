"""What went wrong around a command, as a sentence: the one place where every command's exceptions end.

A mistake of a user and damaged data are sentences already (`wm.core.errors`). Here the machine's refusals become one:
disks, rights, limits, memory, databases, programs that are missing. What is left is a mistake of this code, and its
traceback is what is needed to mend it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from wm.core.errors import UserError, without_password

DATABASES = ("sqlite3", "sqlalchemy", "alembic", "_sqlite3")
_NO_SPACE = "free some space"
_ADVICE = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "raise the limit on the size of a file (`ulimit -f`), or use a file system that takes larger ones",
    errno.EROFS: "its file system is mounted to be read only; work in a copy of your own: `git clone` it to where you "
    "may write",
    errno.ENAMETOOLONG: "use shorter names, or a folder that is not so deep",
    errno.EMFILE: "let a process have more open files: `ulimit -n 4096`",
    errno.ENFILE: "the machine has too many open files: end other programs",
    errno.ENOMEM: "end other programs, or lower `workers`, `slots` or `batch`",
    errno.EAGAIN: "end other programs, or raise the limit on processes (`ulimit -u`)",
    errno.EIO: "look at the disk (`dmesg`), or at the terminal, if it was closed",
    errno.ESTALE: "the network share changed under it: mount it again",
    errno.ENOTCONN: "the network share is gone: mount it again",
    errno.EHOSTDOWN: "the network share is gone: mount it again",
    errno.EXDEV: "it lies on another file system: move it, or its folder, to the same one",
    errno.EEXIST: "something else has that name: move it away",
    errno.ENOTDIR: "a file is where a folder has to be: move it away",
    errno.EISDIR: "a folder is where a file has to be: move it away",
    errno.ELOOP: "its symbolic links lead round in a circle: remove them",
    errno.EBUSY: "another program uses it: end that one",
    errno.ETXTBSY: "another program uses it: end that one",
}
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "failed to map segment from shared object")
"""PyTorch's words, and those of a library that is not even loaded."""
_PIPELINE = ("dvc", "mlflow", "prefect")
"""Packages that only a checkout needs, so that a plain install is without."""
_REFUSED = (errno.EACCES, errno.EPERM)


def report(error: BaseException, goes_on: str = "") -> int:
    """Prints an error's sentence on stderr; returns the exit code: a UserError's own, 2 for the rest.

    Args:
        goes_on: what becomes of the work that was done, to end the sentence with.
    Raises:
        the error itself: it has no sentence.
    """
    if isinstance(error, BrokenPipeError):  # who read our output has left: nobody is there to be told
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        return 1
    if isinstance(error, UserError):
        print("error:", "\\n".join(str(error).splitlines()), file=sys.stderr)  # a name may have line breaks in it
        return error.code
    if (text := sentence(error)) is None:
        raise error
    print(f"error: {text}{goes_on}", file=sys.stderr)
    return 2


def sentence(error: BaseException) -> str | None:
    """What is wrong, where, and what to do; None if only a traceback can say it."""
    for one in _behind(error):
        if isinstance(one, OSError) and (text := _of_system(one)):
            return text
        if text := _of_memory(one) or _of_database(one) or _of_package(one) or _of_name(one) or _of_prefect(one):
            return text
    return None


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _of_system(error: OSError) -> str | None:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    what, reason = names[0] if names else "", os.strerror(error.errno).lower() if error.errno else ""
    if isinstance(error, FileNotFoundError):
        if "No usable temporary directory" in str(error):
            return "no folder for temporary files can be written to: set TMPDIR to one that can"
        if what and os.sep not in what and shutil.which(what) is None and not error.filename2:
            return f"the program {what!r} is not installed, or not on PATH: install it" if _was_started(error) else None
        return None if _is_here() else "the current folder is gone: go to the repository's top folder, and try again"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{f' ({what})' if what else _full_disk()}: {_NO_SPACE}"
    if error.errno in _REFUSED and what:
        return f"{what} may not be used by you ({reason}): {_owner(Path(what))}"
    advice = _ADVICE.get(error.errno or 0)
    return advice and (f"{what}: {reason}: {advice}" if what else f"{reason}: {advice}")


def _was_started(error: OSError) -> bool:
    """Whether a program is what was not found, and no file."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "subprocess":
            return True
        trace = trace.tb_next
    return False


def _is_here() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _full_disk() -> str:
    """Which of the file systems that are written to unasked is full."""
    for place in ("/dev/shm", os.environ.get("TMPDIR", "/tmp"), "."):
        try:
            if shutil.disk_usage(place).free < 2**20:
                return f" ({place})"
        except OSError:
            continue
    return ""


def _owner(path: Path) -> str:
    """Whose a file is, or the nearest folder above it that is there, and what to do."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        number = path.stat().st_uid
    except OSError:
        number = -1
    if number == os.geteuid():
        return f"its rights do not let you (`ls -ld {path}`): change them with `chmod`"
    try:
        whose = pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        whose = f"user {number}" if number >= 0 else "somebody else"
    return f"{path} belongs to {whose}; work in a copy of your own (`git clone`), or make it yours with `chown`"


def _of_memory(error: BaseException) -> str | None:
    text, advice = str(error), _ADVICE[errno.ENOMEM]
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return f"there is not enough memory: {advice}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return "the GPU has not enough memory: end other programs on it, or lower `batch`, `population` or `episodes`"
    if isinstance(error, RuntimeError) and text.startswith("can't start new thread"):
        return f"there are too many processes: {_ADVICE[errno.EAGAIN]}"
    return None


def _of_package(error: BaseException) -> str | None:
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name in _PIPELINE:
        return f"this needs the package {name}: `python -m pip install 'world-models[pipeline]'`"
    return None


def _of_name(error: BaseException) -> str | None:
    """Of bytes in a path that are no text, with which databases and DVC can do nothing."""
    if isinstance(error, UnicodeEncodeError) and error.reason.startswith("surrogates not allowed"):
        return f"the name {error.object[:200]!a} has bytes that are no UTF-8: rename that file or folder"
    return None


def _of_database(error: BaseException) -> str | None:
    """sqlite's, SQLAlchemy's, Alembic's errors, and MLflow's about a schema."""
    kind, text = type(error), " ".join(str(error).split())
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        return (
            "MLflow's database is of another version of MLflow: install the one that wrote it, move the database "
            f"(mlflow.db) away to begin a new one, or run `mlflow db upgrade` on a copy ({text[:160]})"
        )
    if kind.__module__.partition(".")[0] not in DATABASES:
        return None
    if "locked" in text:
        return f"the database is locked by another program: wait for it, or end it, and try again ({text[:160]})"
    return (
        "MLflow's database (mlflow.db, or what MLFLOW_TRACKING_URI names) cannot be used: move it away to begin a new "
        f"one, or bring back a copy ({text[:160]})"
    )


def _of_prefect(error: BaseException) -> str | None:
    """Of a server that does not answer, and of settings that Prefect cannot read when it is imported."""
    text = without_password(str(error))
    if isinstance(error, RuntimeError) and text.startswith("Failed to reach API at "):
        return (
            f"no Prefect server answers at {text.removeprefix('Failed to reach API at ')}: start it, correct "
            "PREFECT_API_URL, or unset that, and a run has a server of its own"
        )
    if isinstance(error, ValueError) and str(getattr(error, "title", "")).endswith("Settings"):  # pydantic's
        words = " ".join(text.split())[:200]
        given = [name for name, value in os.environ.items() if name.startswith("PREFECT_") and repr(value) in words]
        return f"Prefect cannot read {' or '.join(given) or 'a setting'}: correct or unset it ({words})"
    return None


def end_on_signals(last_words: str) -> None:
    """SIGTERM and SIGHUP (a terminal that closes) end this process at once, with a sentence and exit code 128 + n.

    No exception is raised: one that comes inside a destructor or a callback of the garbage collector is lost, and the
    process would go on. What it started ends with it (`wm.core.watchdog`). What `nohup` ignores stays ignored.

    Args:
        last_words: the sentence, without an end.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"\n{last_words}.\n".encode())  # not print: the signal may have come inside of one
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
