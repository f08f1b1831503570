"""What a stage leaves for plots: a small table of text beside its outputs, in git, that `dvc plots` and others draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from wm.core import files, journal

_LOSSES = {"train": "train/{}", "held out": "held_out/{}"}
_PANELS: dict[str, dict[str, dict[str, str]]] = {
    "train_vae": {
        title: {series: key.format(name) for series, key in _LOSSES.items()}
        for title, name in {"Loss": "loss", "Reconstruction": "reconstruction", "KL divergence": "kl"}.items()
    },
    "train_mdn": {
        title: {series: key.format(name) for series, key in _LOSSES.items()}
        for title, name in {"Negative log-likelihood": "nll", "Reward": "reward", "Done": "done"}.items()
    },
    "evolve": {
        "Score": {
            **{"best candidate": "best", "mean": "mean", "worst candidate": "worst"},
            **{"rescored, world": "rescored", "rescored, dream": "rescored_dream"},
        },
        "Step size": {"sigma": "sigma"},
    },
}
"""stage -> panel -> series -> its key in the stage's journal."""

STAGES = (*_PANELS, "evaluate")
"""The stages that leave such a table."""


def write(stage: str, out: Path, path: Path) -> None:
    """Writes a stage's table as tab-separated text: a row a point of a curve, or a row an episode of `evaluate`.

    Args:
        out: the folder with the stage's outputs: the journal, or the scores.
    """
    if stage == "evaluate":
        made = files.read_json(out / "scores.json")
        rows = [["episode", "score"], *([str(n), f"{score:.7g}"] for n, score in enumerate(made["scores"]))]
    else:
        curves = out / "metrics.jsonl"
        lines = journal.read(curves) if curves.exists() else []
        rows = [["step", "panel", "series", "value"], *_points(lines, _PANELS[stage])]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, "".join("\t".join(row) + "\n" for row in rows).encode())


def _points(lines: list[dict], panels: Mapping[str, Mapping[str, str]]) -> Iterator[list[str]]:
    for panel, curves in panels.items():
        for series, key in curves.items():
            for line in lines:
                if line.get(key) is not None:
                    yield [str(line["step"]), panel, series, f"{line[key]:.7g}"]
