"""Counts what this process does to files in a folder, and kills it at the n-th, as `kill -9` would.

What counts: a file opened to be written, a sync, a rename, a removal, a folder made or removed. A sync counts twice:
before it, the file may be there by half (`torn`), or whole and not yet synced.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")


class Counter:
    """Of one process; `operations` holds what was counted, as "fsync path"."""

    def __init__(self, folder: Path, stop_at: int | None = None, then: Callable[[], None] | None = None):
        self.folder, self.stop_at = str(folder), stop_at
        self.operations: list[str] = []
        self._then = then or (lambda: os.kill(os.getpid(), signal.SIGKILL))

    def start(self) -> None:
        """From now on, to this process's end: an audit hook cannot be taken back."""
        sys.addaudithook(self._hear)
        sync = os.fsync

        def fsync(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle}")
            if os.path.isfile(path) and self._ours(path) and self._count("torn", path):
                os.truncate(path, os.path.getsize(path) // 2)
                self._then()
            self._note("fsync", path)
            sync(handle)

        os.fsync = fsync

    def _hear(self, event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes | os.PathLike) and flags & WRITES:
                self._note("open", os.fsdecode(path))
        elif event in EVENTS:
            path = args[1] if event == "os.rename" else args[0]
            if isinstance(path, str | bytes | os.PathLike):
                self._note(event.removeprefix("os."), os.fsdecode(path))

    def _note(self, what: str, path: str) -> None:
        if self._ours(path) and self._count(what, path):
            self._then()

    def _ours(self, path: str) -> bool:
        return os.path.abspath(path).startswith(self.folder) and not path.endswith(".lock")

    def _count(self, what: str, path: str) -> bool:
        self.operations.append(f"{what} {os.path.relpath(path, self.folder)}")
        return len(self.operations) == self.stop_at
