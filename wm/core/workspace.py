"""Where a stage works until its outputs are whole: a scratch folder outside them, found again after a kill.

`.wm/work/<stage>-<name>-<fingerprint>/` holds `out/` (the outputs being made), `checkpoints/`, and `live.jsonl`; and
`finished.json` where `out/` is whole and could not be published, so that the next run need only do that. The
file `.wm/work/<stage>-<name>.lock` is held while it is in use, since a kill may leave its user alive for a while.
Publishing replaces the stage's output folder by a rename, so no partial output is ever taken for a whole one.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from pathlib import Path

from filelock import Timeout

from wm.core import files
from wm.core.checkpoints import Checkpoints
from wm.core.errors import DamagedData, UserError
from wm.core.journal import Journal
from wm.core.locks import lock

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
        self.metrics = self.folder / "metrics.json"
        self._note = self.folder / "finished.json"

    def __enter__(self) -> Workspace:
        """Takes the stage's lock.

        Raises:
            UserError: another process keeps it.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.folder.parent / f"{self.stage}-{self.name}.lock")
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

    def finished(self, numbers: str) -> dict[str, float] | None:
        """The summary of outputs that an earlier run made whole and did not publish (see `keep`); None without any.

        Args:
            numbers: what they would have to be made with.
        """
        try:
            content = files.read_record(self._note) if self._note.exists() else {}
            if content.get("numbers") == numbers:
                for name, digest in content["files"].items():
                    files.check(self.folder / name, digest)
                return content["summary"]
        except DamagedData as error:
            print(f"finished outputs passed over: {error}", file=sys.stderr)
        self._note.unlink(missing_ok=True)  # they will be other ones
        return None

    def keep(self, summary: dict[str, float], numbers: str) -> None:
        """Notes that the outputs are whole, though they could not be published: the next run need only do that."""
        made = [path for path in (self.metrics, *self.out.rglob("*")) if path.is_file()]
        digests = {path.relative_to(self.folder).as_posix(): files.sha256(path) for path in sorted(made)}
        files.write_record(self._note, {"numbers": numbers, "summary": summary, "files": digests})

    def publish(self, target: Path, summary: dict[str, float], metrics: Path | None = None) -> None:
        """Adds summary.json, puts the outputs in place of `target`, and deletes all but the journal's copy.

        Args:
            metrics: where the file of that name goes, which git keeps.
        """
        files.write_json(self.out / "summary.json", summary)
        figures = self.out / "figures"
        if figures.is_dir() and not any(figures.iterdir()):
            figures.rmdir()
        files.plain_modes(self.out)
        if metrics:
            Path(metrics).parent.mkdir(parents=True, exist_ok=True)
            files.copy_file(self.metrics, Path(metrics))
        files.replace_folder(self.out, target)
        self.checkpoints.clear()
        with contextlib.suppress(OSError):  # all is where it belongs; what is left here harms nobody
            self._clear_up()

    def _clear_up(self) -> None:
        for path in self.folder.iterdir():
            if path.is_file() and path != self.live:
                path.unlink()
        for older in folders(self.stage, self.name, self.folder.parent):
            if older != self.folder:  # other numbers: nobody will go on from there
                shutil.rmtree(older, ignore_errors=True)


def folders(stage: str, name: str, work: Path = SCRATCH / "work") -> list[Path]:
    """The scratch folders of a stage, one for each fingerprint; none of a stage whose name only begins alike."""
    mine = re.compile(rf"{re.escape(f'{stage}-{name}')}-[0-9a-f]{{16}}")
    return sorted(path for path in work.glob("*") if mine.fullmatch(path.name))
