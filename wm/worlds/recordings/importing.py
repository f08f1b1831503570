"""`wm data import`: recordings become a data set of this repository's kind, whole or not there.

Everything is looked at before anything is written; then episode after episode goes into shards. Memory holds one
episode and one shard, however many there are.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm.core import episodes, files
from wm.core.errors import UserError
from wm.core.journal import bar
from wm.worlds.base import FRAME_SHAPE
from wm.worlds.by_id.actions import Actions, actions_of
from wm.worlds.recordings import sources
from wm.worlds.recordings.world import ABOUT, describe

SHARD_BYTES = 48e6
"""Of frames, before compression, from which a shard is full."""


def run(name: str, folder: Path, source: str, fps: int = 30, frames: str | None = None) -> dict[str, Any]:
    """Writes the data set `folder`, which must not be there yet; what its world.json says.

    Args:
        name: of the data set.
        source: a folder of .npz episodes, or the id of a Minari data set.
        fps: steps a second, for videos.
        frames: key of the pictures among a Minari data set's observations.
    Raises:
        UserError: the source is unknown, an episode is not what it has to be (names it), the folder is there, or the
            disk is too small.
    """
    if folder.exists():
        raise UserError(f"{folder} is there: name another data set, or remove that one")
    found = sources.open_source(source, frames)
    about = _look(name, found)
    free = shutil.disk_usage(_above(folder)).free
    if free < (need := about["frames"] * int(np.prod(FRAME_SHAPE))):
        raise UserError(f"{source} may need {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: free some")
    new = folder.with_name(f".{folder.name}.import")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        _write(name, new, found, actions_of(about.pop("space"), name))
        files.write_record(new / ABOUT, {**about, "fps": fps, "source": source})
        files.replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return about


def _look(name: str, source: sources.Source) -> dict[str, Any]:
    """Every episode once: refuses what is not sound, and says what all have in common."""
    space, seen, size = source.actions(), sources.CommonActions(), None
    longest = steps = 0
    progress = bar(len(source.names()), f"look at {name}", "episode")
    for which, episode in sources.iterate(source):
        if size not in (None, episode.obs.shape[1:3]):
            raise UserError(f"{which}: its frames are {episode.obs.shape[1:3]}, and those before are {size}")
        size = episode.obs.shape[1:3]
        if space is None:
            seen.add(which, episode.act)
        else:
            _encode(actions_of(space, name), which, episode.act)
        longest, steps = max(longest, len(episode.rew)), steps + len(episode.rew)
        progress.update()
    progress.close()
    if longest < 2:
        raise UserError(f"all {len(source.names())} episodes end at step 1, so that there is nothing to predict")
    space = seen.space() if space is None else space
    return {"actions": describe(space), "space": space, "longest": longest, "frames": steps}


def _write(name: str, folder: Path, source: sources.Source, actions: Actions) -> None:
    columns = episodes.frame_columns(actions.size)
    shards: list[Any] = []
    shard, held = episodes.Shard(columns), 0
    progress = bar(len(source.names()), f"import {name}", "episode")

    def flush() -> None:
        nonlocal shard, held
        if shard.episodes:
            shards.append(episodes.store_shard(folder, len(shards), *shard.finish()))
        shard, held = episodes.Shard(columns), 0

    for number, (which, episode) in enumerate(sources.iterate(source)):
        frames = _frames(episode.obs)
        end = np.zeros(len(frames), bool)
        end[-1] = episode.end
        act = _encode(actions, which, episode.act)
        made = {"obs": frames, "act": act, "out": np.full_like(act, np.nan), "rew": episode.rew, "end": end}
        shard.add(made, seed=number, score=round(float(episode.rew.sum()), 6))
        held += frames.nbytes
        if held >= SHARD_BYTES:
            flush()
        progress.update()
    flush()
    progress.close()
    episodes.write_manifest(folder, name, columns, shards)


def _encode(actions: Actions, which: str, act: np.ndarray) -> np.ndarray:
    try:
        return actions.encode(act)
    except ValueError as error:
        raise UserError(f"{which}: {error}") from None


def _frames(obs: np.ndarray) -> np.ndarray:
    """Pictures [T, H, W, 3], resized by area to what V sees, [T, 64, 64, 3]."""
    if obs.shape[1:] == FRAME_SHAPE:
        return np.ascontiguousarray(obs)
    pictures = (np.ascontiguousarray(picture) for picture in obs)
    return np.stack([cv2.resize(one, FRAME_SHAPE[:2], interpolation=cv2.INTER_AREA) for one in pictures])


def _above(folder: Path) -> Path:
    """The nearest folder above that is there."""
    return next(parent for parent in folder.absolute().parents if parent.exists())
