"""Where a stage works until its outputs are whole: a scratch folder outside them, found again after a kill.

`.wm/work/<stage>-<name>-<fingerprint>/` holds `out/` (the outputs being made), `checkpoints/`, and `live.jsonl`. The
file `.wm/work/<stage>-<name>.lock` is held while it is in use, since a kill may leave its user alive for a while.
Publishing replaces the stage's output folder in one rename, so no partial output is ever taken for a whole one.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from wm.core import files
from wm.core.checkpoints import Checkpoints
from wm.core.errors import UserError
from wm.core.journal import Journal

SCRATCH = Path(".wm")
PATIENCE = 20.0
"""Seconds to wait for another process that runs the same stage: after a kill it takes a few to be gone."""


class Workspace:
    """The scratch folder of one stage run, made and used inside `with`, which keeps other processes out.

    Args:
        stage, name: e.g. "train_vae", "smoke".
        fingerprint: what the run is a function of; another one is another folder.
        scratch: the project's scratch folder.
    """

    def __init__(self, stage: str, name: str, fingerprint: str, scratch: Path = SCRATCH):
        self.folder = Path(scratch) / "work" / f"{stage}-{name}-{fingerprint}"
        self.out = self.folder / "out"
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.live = self.folder / "live.jsonl"
        self.stage, self.name = stage, name
        self._lock = FileLock(self.folder.parent / f"{stage}-{name}.lock")

    def __enter__(self) -> Workspace:
        """Takes the stage's lock.

        Raises:
            UserError: another process keeps it.
        """
        try:
            self._lock.acquire(timeout=PATIENCE)
        except Timeout:
            raise UserError(f"{self.title} already runs here, in another process: wait for it, or stop it") from None
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _open(self) -> None:
        """Makes the folders; where the outputs have been published, what led to them is no way to others."""
        if not self.out.exists():
            self.checkpoints.clear()
        (self.out / "figures").mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.out / "metrics.jsonl", self.live)

    @property
    def title(self) -> str:
        """For progress bars."""
        return f"{self.stage} {self.name}"

    def publish(self, target: Path, summary: dict[str, float]) -> None:
        """Adds summary.json, puts the outputs in place of `target`, and deletes all but the journal's copy."""
        files.write_json(self.out / "summary.json", summary)
        figures = self.out / "figures"
        if figures.is_dir() and not any(figures.iterdir()):
            figures.rmdir()
        _plain_modes(self.out)
        target = Path(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():
            os.replace(target, aside)
        os.replace(self.out, target)
        shutil.rmtree(aside, ignore_errors=True)
        self.checkpoints.clear()
        for path in self.folder.iterdir():
            if path.is_file() and path != self.live:
                path.unlink()
        mine = re.compile(rf"{re.escape(f'{self.stage}-{self.name}')}-[0-9a-f]{{16}}")
        for older in self.folder.parent.iterdir():
            if mine.fullmatch(older.name) and older != self.folder:  # other numbers: nobody will go on from there
                shutil.rmtree(older, ignore_errors=True)


def _plain_modes(folder: Path) -> None:
    """The same permissions whatever the umask."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
