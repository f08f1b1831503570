"""How surprising episodes are to a finished agent's V and M, against what its own held-out episodes were to them.

T steps of an episode, E episodes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wm import worlds
from wm.core import episodes, weights
from wm.core.episodes import EpisodeSet
from wm.core.errors import UserError
from wm.models import surprise
from wm.models.mdnrnn import MDNRNN, expectation
from wm.models.surprise import Reference
from wm.models.vae import VAE
from wm.pictures import mosaics
from wm.play import jobs
from wm.play.agent import AgentFiles
from wm.play.cluster import Cluster
from wm.release.places import Place

SIDES = dict(zip(("V", "M"), weights.SURPRISE_KINDS, strict=True))
BATCH = 64
"""Frames at once."""
RARE = 99.0
"""A step beyond this percentile counts as novel: one in a hundred of the agent's own."""
MOMENTS, APART = 4, 20
"""Pictures of each side's most surprising steps, at least so many steps apart."""


@dataclass(frozen=True)
class EpisodeSurprise:
    """An episode as V and M saw it.

    Attributes:
        name: what a table calls it.
        values: "V" and "M" -> surprise of each step, [T]; M's of the first is NaN.
    """

    name: str
    values: Mapping[str, np.ndarray]


def of_episodes(vae: VAE, memory: MDNRNN, data: EpisodeSet, indices: Sequence[int]) -> Iterator[EpisodeSurprise]:
    """These episodes of a data set of frames."""
    for index in indices:
        episode, about = data.read(index, ["obs", "act"]), data.episodes[index]
        v, mu = surprise.to_v(vae, episode["obs"], BATCH)
        m = np.concatenate([[np.nan], surprise.to_m(memory, mu, episode["act"])])
        yield EpisodeSurprise(f"seed {about['seed']}" if "seed" in about else f"number {index}", {"V": v, "M": m})


def references(place: Place, vae: VAE, memory: MDNRNN, against: Path | None) -> dict[str, Reference]:
    """What both sides' surprise is compared with: the agent's own, or held-out episodes of `against`.

    Raises:
        UserError: it has none, as those of earlier versions, and no data set is named instead.
    """
    if against is not None:
        data = frames_of(against, place)
        chosen = surprise.chosen(data)
        seen = dict(zip(chosen, of_episodes(vae, memory, data, chosen), strict=True))
        sides = {side: {index: one.values[side] for index, one in seen.items()} for side in SIDES}
        return {side: Reference.of({i: x[np.isfinite(x)] for i, x in parts.items()}) for side, parts in sides.items()}
    if not all(weights.exists(place.folder, kind) for kind in SIDES.values()):
        raise UserError(
            f"{place.name} has no reference of surprise, as agents of earlier versions: run "
            f"`dvc repro evolve@{place.name}`, or name a data set of its own world with --against"
        )
    return {side: Reference.load(place.folder, kind) for side, kind in SIDES.items()}


def frames_of(folder: Path, place: Place) -> EpisodeSet:
    """A data set of frames of the agent's world.

    Raises:
        UserError: it holds no frames, or those of another world.
        DamagedData: it is not whole.
    """
    data, world = EpisodeSet(folder), weights.load(place.folder, weights.VAE_KIND)[0]["world"]
    if all(column.name != "obs" for column in data.columns):
        raise UserError(f"{folder} holds no frames: name what `collect` wrote")
    if data.world != world:
        raise UserError(f"{folder} has episodes of {data.world}, and {place.name} knows {world}")
    data.verify()
    return data


def play(place: Place, numbers: Sequence[int], folder: Path) -> EpisodeSet:
    """The agent's own episodes of these seeds, written into `folder`.

    Raises:
        UserError: its world is recordings.
    """
    world = weights.load(place.folder, weights.VAE_KIND)[0]["world"]
    spec, files = worlds.get(world).spec, AgentFiles.read(place.folder)
    if worlds.get(world).recordings:
        raise UserError(f"the world {world} is recordings, so {place.name} cannot play it: name a data set instead")
    todo = [jobs.Job(world=world, pairs=[(0, number)], slots=1) for number in numbers]
    with Cluster() as cluster:
        made = cluster.map(jobs.record, todo, files)
        shards = [episodes.store_shard(folder, index, *shard) for index, shard in enumerate(made)]
    episodes.write_manifest(folder, world, episodes.frame_columns(spec.action_size), shards)
    return EpisodeSet(folder)


def report(place: Place, which: str, seed: int, against: Path | None, out: Path) -> str:
    """What `python -m wm agent surprise AGENT [EPISODES]` prints; `out` has pictures of the most surprising steps.

    Args:
        which: a folder that `collect` wrote, or how many episodes are played.
        seed: of the first that is played; the next one's is one more.
        against: a data set instead of the agent's own reference.
    Raises:
        UserError: as `references` and `frames_of` do, or `which` is neither.
    """
    vae, memory = AgentFiles.read(place.folder).models()
    known = references(place, vae, memory, against)
    with tempfile.TemporaryDirectory() as scratch:
        if which.isdecimal() and int(which) > 0:
            data = play(place, range(seed, seed + int(which)), Path(scratch))
        elif Path(which, episodes.MANIFEST).exists():
            data = frames_of(Path(which), place)
        else:
            raise UserError(f"{which!r} is no data set of `collect`, and no number of episodes to play")
        seen = list(of_episodes(vae, memory, data, range(len(data))))
        _sheet(vae, memory, data, seen, out)
    return f"{table(seen, known)}\nthe most surprising steps: {out}"


def table(seen: Sequence[EpisodeSurprise], known: Mapping[str, Reference]) -> str:
    """A line an episode: for V and for M the mean, its percentile among the reference's episodes, the share of steps
    beyond the reference's 99th percentile, and the step that surprised most."""
    head = f"{'episode':<16}{'steps':>6}"
    for side in known:
        head += f" | {f'{side}: mean':>10}{'percentile':>11}{'novel':>7}{'most at':>8}"
    lines = [head]
    for one in seen:
        line = f"{one.name:<16}{len(one.values['V']):>6}"
        for side, reference in known.items():
            values, steps = one.values[side], np.isfinite(one.values[side])
            if not steps.any():
                line += f" | {'-':>10}{'-':>11}{'-':>7}{'-':>8}"
                continue
            mean, novel = values[steps].mean(), np.mean(reference.percentile(values[steps]) > RARE)
            rank = reference.of_episodes().percentile(np.array([mean]))[0]
            line += f" | {mean:>10.1f}{rank:>10.0f}%{novel:>7.1%}{np.nanargmax(values):>8}"
        lines.append(line)
    lines.append("percentile: of the mean, among the reference's episodes; novel: steps beyond its 99th percentile")
    return "\n".join(lines)


def moments(seen: Sequence[EpisodeSurprise], side: str) -> list[tuple[int, int]]:
    """(episode, step) of the most surprising steps of one side, the most surprising first."""
    found: list[tuple[int, int]] = []
    every = [(value, e, t) for e, one in enumerate(seen) for t, value in enumerate(one.values[side]) if value == value]
    for _, e, t in sorted(every, reverse=True):
        if all(e != other or abs(t - step) >= APART for other, step in found):
            found.append((e, t))
        if len(found) == MOMENTS:
            break
    return found


@torch.inference_mode()
def _sheet(vae: VAE, memory: MDNRNN, data: EpisodeSet, seen: Sequence[EpisodeSurprise], out: Path) -> None:
    """A row a moment: the frame before it, what was seen, what V draws of it, and what M expected."""
    rows, labels = [], []
    for side in SIDES:
        for e, t in moments(seen, side):
            episode = data.read(e, ["obs", "act"])
            obs, act = episode["obs"][: t + 1], episode["act"][: t + 1]
            mu = torch.from_numpy(surprise.to_v(vae, obs, BATCH)[1])
            expected = mu[t : t + 1]
            if t:
                h = surprise.states(memory, mu[:t].numpy(), act[:t])[-1:]
                expected = expectation(memory.heads(h)[0], 1.0)
            drawn = vae.decode(torch.cat([mu[t : t + 1], expected])).numpy()
            rows.append(np.stack([obs[max(0, t - 1)], obs[t], *drawn]))
            labels.append(f"{side}: {t}")
    heads = ["before", "seen", "V's picture", "M expected"]
    mosaics.moments(np.stack(rows), out, labels, heads)
