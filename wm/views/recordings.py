"""`wm data show`: what is in a data set of recordings, as text, as pictures and in MLflow; and what to paste for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wm.core import files
from wm.core.episodes import EpisodeSet
from wm.pictures import figures, mosaics
from wm.records import tracking
from wm.worlds.recordings.world import ABOUT, RecordedWorld

DATA = Path("data")
"""The folder of data sets."""
SHOWN = Path(".wm") / "data"
"""Where pictures of them are written."""
SAMPLED = 200
"""Episodes whose actions are counted, at most: spread over all."""
ROWS = 8


def entries(name: str) -> str:
    """What to put into params.yaml for a data set, and how to track it."""
    folder = DATA / name
    same = f"experiment: any_recordings, world: {name}, code: {folder}"
    return "\n".join(
        [
            f"track it:  dvc add {folder} && git add {folder}.dvc {DATA}/.gitignore",
            "and paste into params.yaml, below the line in front of it:",
            "worlds:",
            f"  {name}: {{recordings: {folder}}}",
            "models:",
            f"  {name}: {{{same}, after: zero, actor: zero, seed: 0}}",
            "agents:",
            f"  {name}: {{{same}, model: {name}, after: zero, tau: 1.0, seed: 0}}",
            f"then:  make run NAME={name}",
        ]
    )


def imported(name: str, about: dict[str, Any]) -> str:
    """What `wm data import` says."""
    data = EpisodeSet(DATA / name)
    size = sum(shard["bytes"] for shard in data.shards) / 1e6
    text = f"{DATA / name}: {len(data)} episodes, {data.steps:,} steps, {size:.1f} MB"
    return f"{text}; actions {_actions(about['actions'])}\n{entries(name)}"


def show(name: str) -> str:
    """Frames, returns, lengths and actions; writes pictures and tells MLflow.

    Raises:
        UserError: there is no such data set.
        DamagedData: it is not whole.
    """
    folder = DATA / name
    world = RecordedWorld(name=name, recordings=str(folder))
    data = EpisodeSet(folder)
    data.verify()
    about = files.read_record(folder / ABOUT)
    out = SHOWN / name
    summary, lines = _measure(data, about, world)
    with tracking.stage_run(
        stage="data", name=name, world=name, experiment="data", config={"source": about["source"]}, inputs=[folder],
        output=out,
    ):  # fmt: skip
        _draw(data, out)
        files.write_json(out / "summary.json", summary)
    return "\n".join([*lines, f"pictures: {out / 'figures'}"])


def _measure(data: EpisodeSet, about: dict[str, Any], world: RecordedWorld) -> tuple[dict[str, float], list[str]]:
    returns, lengths = (np.array([one[key] for one in data.episodes], float) for key in ("score", "length"))
    acts, ended = [], 0
    for index in _spread(len(data), SAMPLED):
        episode = data.read(index, ["act", "end"])
        acts.append(episode["act"])
        ended += bool(episode["end"][-1])
    act, share = np.concatenate(acts), ended / len(acts)
    summary = {
        "episodes": len(data),
        "steps": data.steps,
        "return_mean": float(returns.mean()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "length_mean": float(lengths.mean()),
        "ended_share": share,
    }
    if about["actions"]["kind"] == "Box":
        used = ", ".join(f"{mean:.2f} ± {std:.2f}" for mean, std in zip(act.mean(0), act.std(0), strict=True))
    else:
        used = ", ".join(f"{100 * part:.0f}%" for part in act.mean(0))
    lines = [
        f"{data.folder}: {len(data)} episodes, {data.steps:,} steps, from {about['source']}",
        f"  returns  {_five(returns)}",
        f"  lengths  {_five(lengths)}; {100 * share:.0f}% ended for good, the rest were cut off",
        f"  actions  {_actions(about['actions'])}: {used}",
    ]
    if np.ptp(returns) == 0:
        lines.append("  all returns are equal, so that a search has nothing to select")
    return summary, lines


def _draw(data: EpisodeSet, out: Path) -> None:
    (out / "figures").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in _spread(len(data), ROWS):
        obs = data.read(index, ["obs"])["obs"]
        rows.append(obs[np.linspace(0, len(obs) - 1, ROWS).round().astype(int)])
    title = "Episodes, a row each, from start to end"
    mosaics.contact_sheet(np.concatenate(rows), out / "figures" / "episodes.png", title=title)
    for key, name in (("score", "returns"), ("length", "lengths")):
        values = [episode[key] for episode in data.episodes]
        path = out / "figures" / f"{name}.png"
        figures.scores(values, path, title=f"Recorded {name}", xlabel=f"{key} of an episode")


def _spread(count: int, most: int) -> list[int]:
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most)).round()})


def _five(values: np.ndarray) -> str:
    low, first, middle, third, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
    quartiles = f"quartiles {first:.6g}, {middle:.6g}, {third:.6g}"
    return f"mean {values.mean():.6g}, from {low:.6g} to {high:.6g} ({quartiles})"


def _actions(described: dict[str, Any]) -> str:
    kind = described["kind"]
    if kind == "Box":
        return f"Box of {np.size(described['low'])} numbers"
    return f"{kind} of {described.get('n', described.get('nvec'))}"
