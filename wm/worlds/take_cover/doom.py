"""A VizDoom game that cannot outlive, litter or hang the process that plays it.

VizDoom runs its engine as a child process and talks to it through message queues in shared memory. Left
alone, the engine writes `_vizdoom.ini` into the current folder, leaves files in `/dev/shm` when its parent
is killed, takes the terminal's Ctrl-C for itself, and hangs its parent when it dies while it holds a
queue's lock: 64 of 400 random kills would have left a call that waits for ever, deaf to Ctrl-C. Here

- the engine is started through a few lines of Python that have the kernel kill it when its parent dies,
  make it deaf to Ctrl-C (whoever plays closes it) and move it to a folder of its own;
- that folder and the names in `/dev/shm` are removed as soon as the engine runs: both sides hold them open;
- a thread sleeps until the engine dies, then releases the locks that it held, so that the call in progress
  ends with an error; it kills an engine that lives but has not answered for a minute.

Linux only (process descriptors, `/dev/shm`). What remains: an engine that dies in its first 0.2 s, while it
starts, takes its player along, because `DoomGame.init` of VizDoom 1.3 then reads through a null pointer.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wm.core.errors import UserError

if TYPE_CHECKING:
    import vizdoom

Result = TypeVar("Result")

_SHARED = Path("/dev/shm")
_ROOM = 2**20
"""Bytes that a game may take there, with some to spare: where there are none left, the first frame is a bus error."""
_LAUNCHER = """
import ctypes, os, signal, sys
parent, folder, engine, *args = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it survives exec
if os.getppid() != int(parent):
    sys.exit(1)
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.chdir(folder)
with open("pid", "w") as file:
    file.write(str(os.getpid()))
os.execv(engine, [engine, *args])
"""


class GameDied(UserError):
    """The engine ended, or stopped answering, while it was played; a new game can be started at once."""


class Game:
    """A running game.

    Attributes:
        doom: the DoomGame; what waits for the engine goes through `call`.
        pid: of the engine's process.
    """

    def __init__(self, doom: vizdoom.DoomGame) -> None:
        """Starts the engine of a configured game that was not started; takes about 0.25 s.

        Raises:
            GameDied: the engine could not be started.
            UserError: there is no room in /dev/shm, or this is not Linux.
        """
        self.doom = doom
        if not sys.platform.startswith("linux"):
            raise UserError(f"take_cover is played on Linux alone, and this is {sys.platform}: take car_racing here")
        if shutil.disk_usage(_SHARED).free < _ROOM:
            raise UserError(
                f"{_SHARED} has no room for another game of Doom: play fewer, or make it larger (in a container: "
                "`docker run --shm-size=256m`)"
            )
        with tempfile.TemporaryDirectory(prefix="wm-doom-", ignore_cleanup_errors=True) as folder:
            doom.set_vizdoom_path(_write_launcher(Path(folder), doom))
            doom.set_doom_config_path(os.devnull)  # reads nothing that is there, leaves nothing
            try:
                doom.init()
                self.pid = int(Path(folder, "pid").read_text())
                self._guard = _Guard(self.pid, doom.get_instance_id())
            except (*_failures(), OSError) as error:  # type: ignore[misc]  # a starred tuple of classes
                doom.close()
                raise GameDied(f"the Doom engine did not start: {error}") from error
            finally:
                for name in _SHARED.glob(f"ViZDoom*{doom.get_instance_id()}"):
                    name.unlink(missing_ok=True)

    def call(self, method: Callable[..., Result], *args: object) -> Result:
        """`method(*args)`, a method of the DoomGame that waits for the engine.

        Raises:
            GameDied: the engine died, before or now, or did not answer for `_Guard.PATIENCE_S` seconds.
        """
        self._guard.calls += 1
        try:
            return method(*args)
        except _failures() as error:
            raise GameDied(
                f"the Doom engine (process {self.pid}) died while it was played: "
                "unless somebody killed it, play fewer games at once or add memory"
            ) from error
        finally:
            self._guard.calls += 1

    def close(self) -> None:
        """Ends the engine (5 ms); safe to repeat, and when the engine is dead."""
        try:
            self.call(self.doom.close)
        except GameDied:
            pass


class _Guard(threading.Thread):
    """Sleeps until the engine dies, then releases the queue locks that died with it.

    A queue of boost::interprocess in shared memory begins with a header; at a fixed place in it is the
    lock, a process-shared `pthread_mutex_t`, which names the thread that holds it. It is not a robust one,
    so nobody else ever gets it unless somebody unlocks it in the dead holder's name.
    """

    PATIENCE_S = 60
    _NAPS = 12
    _MUTEX, _OWNER = 0x30, 0x38  # offsets in the queue: the lock, and the thread id of its holder (glibc)

    def __init__(self, pid: int, instance: str) -> None:
        super().__init__(name=f"doom-guard-{pid}", daemon=True)
        self.calls = 0  # odd while a call to the engine is under way
        self._pid = pid
        self._engine = os.pidfd_open(pid)
        self._queues = [_map(_SHARED / f"ViZDoomMQ{end}{instance}") for end in ("Ctr", "Doom")]
        self.start()

    def run(self) -> None:
        death = select.poll()
        death.register(self._engine, select.POLLIN)
        seen, naps = 0, 0
        # Naps are counted, not seconds: a run that was suspended with Ctrl-Z must not count the pause.
        while not death.poll(1000 * self.PATIENCE_S / self._NAPS):
            stuck = self.calls % 2 == 1 and self.calls == seen
            seen, naps = self.calls, naps + 1 if stuck else 0
            if naps >= self._NAPS:
                signal.pidfd_send_signal(self._engine, signal.SIGKILL)
        os.close(self._engine)
        for queue in self._queues:
            if ctypes.c_uint32.from_buffer(queue, self._OWNER).value == self._pid:
                mutex = ctypes.addressof(ctypes.c_char.from_buffer(queue, self._MUTEX))
                ctypes.CDLL(None).pthread_mutex_unlock(ctypes.c_void_p(mutex))


def _map(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def _write_launcher(folder: Path, doom: vizdoom.DoomGame) -> str:
    """Writes the program that VizDoom runs in the engine's place, with the engine's arguments; its path.

    Raises:
        UserError: programs in that folder cannot be run.
    """
    import vizdoom

    engine = doom.get_vizdoom_path() or str(Path(vizdoom.__file__).with_name("vizdoom"))
    command = shlex.join([sys.executable, "-ISc", _LAUNCHER, str(os.getpid()), str(folder), engine])
    path = folder / "engine"
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o700)
    if not os.access(path, os.X_OK):
        raise UserError(f"{folder.parent} allows no programs (noexec): set TMPDIR to a folder that does")
    return str(path)


def _failures() -> tuple[type[Exception], ...]:
    """What VizDoom raises when its engine is gone."""
    import vizdoom

    return (
        vizdoom.ViZDoomErrorException,
        vizdoom.ViZDoomUnexpectedExitException,
        vizdoom.ViZDoomIsNotRunningException,
        vizdoom.MessageQueueException,
        vizdoom.SharedMemoryException,
        vizdoom.FileDoesNotExistException,
    )
