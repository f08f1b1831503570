"""collect: episodes of the world, from a random policy or from the last round's agent (paper, A.1 and section 3.4).

They are checked as they are played (`wm.checks`); V is not trained on data that fail.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from wm import worlds
from wm.checks import judge, sheet
from wm.checks.config import ChecksConfig, Given
from wm.checks.measures import MeasuredShard, Measures, measure_set
from wm.core import episodes, seeds, verdicts, weights
from wm.core.errors import UserError
from wm.core.journal import bar
from wm.core.workspace import Workspace
from wm.pictures import decoration, mosaics
from wm.play import agent as agents
from wm.play import jobs as playing
from wm.play import sameness
from wm.play.cluster import Cluster, ClusterConfig

BYTES_A_FRAME = 64 * 64 * 3
"""What a frame takes before compression; the disk is checked for a quarter of it a step, which no world exceeds."""


class CollectConfig(ClusterConfig):
    """How much to see, and how."""

    episodes: int = Field(gt=0, description="new episodes of this round (paper: 10,000)")
    stall: int = Field(
        0, ge=0, description="an episode also ends after this many steps without a positive reward; 0 for never"
    )
    noise: float = Field(
        0.0, ge=0, description="standard deviation of the disturbance of an agent's actions, in rounds after the first"
    )
    explore: float = Field(
        0.0, ge=0, le=1, description="share of episodes that a random policy drives, in rounds after the first"
    )
    checks: ChecksConfig = Field(ChecksConfig(), description="from where on a check of the data speaks")


def collect(
    config: CollectConfig, world: str, seed: int, previous: Path, actor: Path, workspace: Workspace
) -> dict[str, float]:
    """Writes shards of frames and actions, and what the checks say of them; carries the earlier rounds' shards over.

    Of a world that is recordings, these are the episodes, all of them in every round.

    Args:
        previous: the last round's data set (runs/zero/collect for none).
        actor: the agent that drives (runs/zero/evolve for the random policy).
    Raises:
        UserError: the disk is too small, or the world is not what it has to be: an episode is not the same twice.
        DamagedData: an earlier shard or a model is not whole.
    """
    if source := worlds.get(world).recordings:
        return _take_over(config, source, world, workspace)
    earlier = episodes.EpisodeSet(previous) if (previous / episodes.MANIFEST).exists() else None
    _check_disk(config, world, earlier, workspace.out)
    carried = _carry_over(earlier, workspace.out) if earlier else []
    columns = episodes.frame_columns(worlds.get(world).spec.action_size)
    log = episodes.ShardLog(workspace.out, workspace.folder / "shards.jsonl")
    jobs = _jobs(config, world, seed, len(earlier) if earlier else 0, weights.exists(actor, weights.CONTROLLER_KIND))
    waiting = [index for index in range(len(jobs)) if len(carried) + index not in log.done]
    if waiting:
        sameness.check(worlds.get(world), jobs[waiting[0]].pairs[0][1])
    shared = actor if any(not jobs[index].random for index in waiting) else None
    progress = bar(
        config.episodes,
        workspace.title,
        "episode",
        initial=config.episodes - sum(len(jobs[index].pairs) for index in waiting),
    )
    with Cluster() as cluster:
        played = cluster.map(partial(record, checks=config.checks), [jobs[index] for index in waiting], _read(shared))
        for index, (data, about, measured) in zip(waiting, played, strict=True):
            measured.save(_measures(workspace, len(carried) + index))
            log.store(len(carried) + index, data, about)
            progress.update(len(about))
    progress.close()
    if all(episode["length"] == 1 for shard in log.shards for episode in shard["episodes"]):
        print(
            f"note: every episode of the world {world} ends at step 1 (the first has the seed {jobs[0].pairs[0][1]}), "
            "so that there is nothing to predict: see what its environment says of ends, and its max_steps",
            file=sys.stderr,
        )
    episodes.write_manifest(workspace.out, world, columns, carried + log.shards)
    data = episodes.EpisodeSet(workspace.out)
    parts = [_measures(workspace, index) for index in range(len(data.shards))]
    known = len(earlier) if earlier else 0
    return _report(workspace, len(carried)) | check(data, config.checks, config.stall, workspace.out, parts, known)


def record(
    job: playing.Job, agent: agents.AgentFiles | None, checks: ChecksConfig
) -> tuple[bytes, list[dict], Measures]:
    """As `wm.play.jobs.record`, and what was measured of the episodes."""
    world = worlds.get(job.world)
    shard = MeasuredShard(
        episodes.frame_columns(world.spec.action_size), world.action_bounds, checks.blank, checks.rare
    )
    return *playing.record(job, agent, shard), shard.measures


def given(world: str, stall: int) -> Given:
    """What a world can give, as its class says."""
    spec, (low, high) = worlds.get(world).spec, worlds.get(world).action_bounds
    return Given(
        rewards=spec.rewards, scores=spec.scores, low=tuple(low.tolist()), high=tuple(high.tolist()),
        max_steps=spec.max_steps, stall=stall, still=spec.still, steady=spec.steady,
    )  # fmt: skip


def check(
    data: episodes.EpisodeSet,
    config: ChecksConfig,
    stall: int,
    out: Path,
    parts: Sequence[Path] = (),
    carried: int = 0,
) -> dict[str, int]:
    """Checks a set of episodes and writes checks.json and figures/checks.png; also for recordings of other origin.

    Args:
        data, config, stall, parts, carried: as in `judged`.
        out: the folder to write to.
    Returns:
        How many checks failed and how many warned.
    """
    found = judged(data, config, stall, parts, carried)
    verdicts.write(found, out)
    with decoration("a sheet of what the checks found"):
        sheet.draw(found, data, out / "figures" / "checks.png")
    return verdicts.counts(found)


def judged(
    data: episodes.EpisodeSet, config: ChecksConfig, stall: int, parts: Sequence[Path] = (), carried: int = 0
) -> list[verdicts.Check]:
    """What the checks say of a set of episodes.

    Args:
        data: the set; its world says what it can give.
        stall: steps without a positive reward after which an episode was ended; 0 for never.
        parts: files with the measures of each shard; what is not there is measured from the frames on disk.
        carried: episodes of earlier rounds, the first of the set.
    """
    known, first, measured = given(data.world, stall), 0, []
    for index, shard in enumerate(data.shards):
        numbers = range(first, first := first + len(shard["episodes"]))
        try:
            measured.append(Measures.load(parts[index]))
        except (IndexError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # an earlier round's; a kill
            measured.append(measure_set(data, numbers, (known.low, known.high), config.blank, config.rare))
    drawn = [episode.get("seed") for episode in data.episodes]
    return judge.judge(Measures.join(measured), known, config, drawn, carried)


def _measures(workspace: Workspace, shard: int) -> Path:
    return workspace.folder / f"measures-{shard:05d}.npz"


def _take_over(config: CollectConfig, source: Path, world: str, workspace: Workspace) -> dict[str, float]:
    """The recordings in `source` as a data set of `world`."""
    recorded = episodes.EpisodeSet(source)
    size = sum(shard["bytes"] for shard in recorded.shards)
    if (free := shutil.disk_usage(workspace.out).free) < size:
        raise UserError(f"{source} has {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: free some")
    episodes.write_manifest(workspace.out, world, recorded.columns, _carry_over(recorded, workspace.out))
    data = episodes.EpisodeSet(workspace.out)
    return _report(workspace, 0) | check(data, config.checks, 0, workspace.out)


def _jobs(config: CollectConfig, world: str, seed: int, before: int, has_actor: bool) -> list[playing.Job]:
    """One job a shard. Seeds go on where the earlier rounds stopped; random episodes come first."""
    numbers = seeds.episodes(seed, seeds.Purpose.EXPLORATION, before, count=config.episodes)
    explored = config.episodes if not has_actor else round(config.episodes * config.explore)
    jobs = []
    for random, part in ((True, numbers[:explored]), (False, numbers[explored:])):
        for pairs in playing.parts([(0, number) for number in part], config.episodes_per_job):
            noise = 0.0 if random else config.noise
            job = playing.Job(
                world=world, pairs=pairs, slots=config.slots, random=random, stall=config.stall, noise=noise
            )
            jobs.append(job)
    return jobs


def _read(actor: Path | None) -> agents.AgentFiles | None:
    return agents.AgentFiles.read(actor) if actor else None


def _carry_over(earlier: episodes.EpisodeSet, out: Path) -> list[dict]:
    earlier.verify()
    for shard in earlier.shards:
        if not (out / shard["file"]).exists():
            part = out / f"{shard['file']}.tmp"
            shutil.copyfile(earlier.folder / shard["file"], part)
            part.rename(out / shard["file"])
    return earlier.shards


def _check_disk(config: CollectConfig, world: str, earlier: episodes.EpisodeSet | None, out: Path) -> None:
    need = config.episodes * worlds.get(world).spec.max_steps * BYTES_A_FRAME // 4
    need += sum(shard["bytes"] for shard in earlier.shards) if earlier else 0
    free = shutil.disk_usage(out).free
    if free < need:
        raise UserError(
            f"{config.episodes} episodes of {world} may need {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            "free some, or lower collect.episodes"
        )


def _report(workspace: Workspace, carried: int) -> dict[str, float]:
    """A contact sheet, and the numbers that say what was seen."""
    data = episodes.EpisodeSet(workspace.out)
    chosen = np.unique(np.linspace(0, len(data) - 1, 8).round().astype(int))
    rows = []
    for index in chosen:
        obs = data.read(int(index), ["obs"])["obs"]
        rows.append(obs[np.linspace(0, len(obs) - 1, 8).round().astype(int)])
    with decoration("a sheet of frames"):
        mosaics.contact_sheet(
            np.concatenate(rows),
            workspace.out / "figures" / "episodes.png",
            title="Episodes, a row each, from start to end",
        )
    lengths = np.array([episode["length"] for episode in data.episodes])
    scores = np.array([episode["score"] for episode in data.episodes])
    new = sum(len(shard["episodes"]) for shard in data.shards[carried:])
    return {
        "episodes": len(data),
        "new_episodes": new,
        "steps": int(lengths.sum()),
        "length_mean": float(lengths.mean()),
        "score_mean": float(scores.mean()),
        "score_max": float(scores.max()),
        "megabytes": sum(shard["bytes"] for shard in data.shards) / 1e6,
    }
