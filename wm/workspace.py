"""Where a stage works until its outputs are whole: a scratch folder outside them, found again after a kill.

`.wm/work/<stage>-<name>-<fingerprint>/` holds `out/` (the outputs being made), `checkpoints/`, and `live.jsonl`.
Publishing replaces the stage's output folder in one rename, so no partial output is ever taken for a whole one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from wm import files
from wm.checkpoints import Checkpoints
from wm.journal import Journal

SCRATCH = Path(".wm")


class Workspace:
    """The scratch folder of one stage run.

    Args:
        stage, name: e.g. "train_vae", "smoke".
        fingerprint: what the run is a function of; another one is another folder.
        scratch: the project's scratch folder.
    """

    def __init__(self, stage: str, name: str, fingerprint: str, scratch: Path = SCRATCH):
        self.folder = Path(scratch) / "work" / f"{stage}-{name}-{fingerprint}"
        self.out = self.folder / "out"
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "figures").mkdir(exist_ok=True)
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.live = self.folder / "live.jsonl"
        self.journal = Journal(self.out / "metrics.jsonl", self.live)
        self.stage, self.name = stage, name
        for older in self.folder.parent.glob(f"{stage}-{name}-*"):
            if older != self.folder:  # other numbers: nobody will go on from there
                shutil.rmtree(older, ignore_errors=True)

    @property
    def title(self) -> str:
        """For progress bars."""
        return f"{self.stage} {self.name}"

    def publish(self, target: Path, summary: dict[str, float]) -> None:
        """Adds summary.json, puts the outputs in place of `target`, and deletes the scratch folder."""
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


def _plain_modes(folder: Path) -> None:
    """The same permissions whatever the umask."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
