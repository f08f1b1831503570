"""evaluate: the agent on test episodes, as the world itself draws them (paper, sections 3.3 and 4.3)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from wm import worlds
from wm.core import files, seeds
from wm.core.checkpoints import Checkpoints
from wm.core.errors import UserError
from wm.core.journal import bar
from wm.core.workspace import Workspace
from wm.pictures import decoration, figures, videos
from wm.play import agent as agents
from wm.play import jobs as playing
from wm.play.cluster import Cluster, ClusterConfig
from wm.worlds.base import check_picture

RESAMPLES = 10_000
FILM_EVERY = 2
"""Steps between two frames of a film: 25 frames a second of CarRacing are enough, and drawing one takes 15 ms."""


class EvaluateConfig(ClusterConfig):
    """How the agent is scored."""

    episodes: int = Field(100, ge=1, description="test episodes (paper: 100)")
    drawing: str | None = Field(
        None,
        description="which of the world's drawings; null is the one of the world's makers, in which scores are told",
    )
    videos: bool = Field(True, description="write an mp4 of the best, the median and the worst episode")


@dataclass(frozen=True)
class _Film:
    world: str
    seed: int
    acts: np.ndarray
    caption: str


def evaluate(config: EvaluateConfig, world: str, agent: Path, workspace: Workspace, metrics: Path) -> dict[str, float]:
    """Plays the test episodes; writes scores.json, pictures, videos, and the metrics file that `dvc metrics` shows.

    Raises:
        DamagedData: the agent is not whole.
        UserError: the world has no such drawing, or its picture cannot be filmed here.
    """
    agents.load(agent)  # before any work: whole, or a sentence that says what is not
    if worlds.get(world).recordings:
        return _of_dream(world, agent, workspace, metrics)
    spec = worlds.get(world).spec
    drawing = config.drawing or spec.drawings[-1]
    if drawing not in spec.drawings:
        raise UserError(f"evaluate.drawing is {drawing!r}: {world} has {', '.join(spec.drawings)}")
    if config.videos:
        _check_films(world)
    numbers = seeds.episodes(0, seeds.Purpose.TEST, count=config.episodes)
    with Cluster() as cluster:
        scores, lengths, acts = play_agent(
            config, world, agent, numbers, cluster, drawing, workspace.title, workspace.checkpoints
        )
        if config.videos:
            _films(world, numbers, scores, acts, cluster, workspace)
    return _write(world, drawing, numbers, scores, lengths, workspace, metrics, {})


def _of_dream(world: str, agent: Path, workspace: Workspace, metrics: Path) -> dict[str, float]:
    """What `evolve` found in the dream, of a world that cannot be played; says that it is no score of the world."""
    found = files.read_json(agent / "dream.json")
    scores, lengths = np.array(found["scores"]), np.array(found["lengths"])
    told = found["calibration"]
    print(
        f"{world} is recordings, so these are scores in M's dream, not in the world: {scores.mean():.2f} on average. "
        f"The actions of {told['episodes']} held-out episodes were paid {told['recorded_mean']:.2f} on average, and "
        f"are paid {told['dreamed_mean']:.2f} in the dream (difference {told['difference']:.2f}, 95% interval "
        f"{told['difference_low']:.2f} to {told['difference_high']:.2f}; correlation "
        + ("unknown)" if told["correlation"] is None else f"{told['correlation']:.2f})")
    )
    return _write(world, "dream", found["seeds"], scores, lengths, workspace, metrics, {"calibration": told})


def _write(
    world: str,
    drawing: str,
    numbers: list[int],
    scores: np.ndarray,
    lengths: np.ndarray,
    workspace: Workspace,
    metrics: Path,
    more: dict[str, Any],
) -> dict[str, float]:
    """scores.json, the picture and the metrics file; `more` stands in the first and the last."""
    result = {
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        **interval(scores),
        "min": float(scores.min()),
        "max": float(scores.max()),
        "episodes": len(scores),
        "steps": int(lengths.sum()),
    }
    files.write_json(
        workspace.out / "scores.json",
        {
            "world": world,
            "drawing": drawing,
            **result,
            "seeds": numbers,
            "scores": scores.tolist(),
            "lengths": lengths.tolist(),
            **more,
        },
    )
    with decoration("the scores' picture"):
        figures.scores(
            scores,
            workspace.out / "figures" / "scores.png",
            references=worlds.get(world).spec.references,
            interval=(result["ci95_low"], result["ci95_high"]),
            **({"title": "Scores in M's dream: there is no environment"} if more else {}),
        )
    metrics.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(metrics, {"score": {name: round(value, 4) for name, value in result.items()}, **more})
    return result


def play_agent(
    config: ClusterConfig,
    world: str,
    agent: Path,
    numbers: list[int],
    cluster: Cluster,
    drawing: str,
    title: str,
    checkpoints: Checkpoints | None = None,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Scores [E], lengths [E] and actions of each episode, of an agent on the episodes `numbers`.

    Args:
        checkpoints: where whole jobs are kept, and found by a run that goes on after a kill.
    """
    pairs = [(0, number) for number in numbers]
    jobs = [
        playing.Job(world=world, pairs=part, slots=config.slots, drawing=drawing, keep_acts=True)
        for part in playing.parts(pairs, config.episodes_per_job)
    ]
    scores, lengths, acts = _earlier(checkpoints)
    done = -(-len(scores) // config.episodes_per_job)
    progress = bar(len(pairs), title, "episode", initial=len(scores))
    for count, part in enumerate(cluster.map(playing.play, jobs[done:], agents.AgentFiles.read(agent)), done + 1):
        scores, lengths = np.append(scores, part.scores), np.append(lengths, part.lengths)
        acts += part.acts
        if checkpoints:
            whole = np.concatenate([act for act in acts if len(act)] or [np.empty(0, np.float32)])
            checkpoints.save(count, {"scores": scores, "lengths": lengths, "acts": whole}, {})
        progress.update(len(part.scores))
    progress.close()
    return scores, lengths, acts


def _earlier(checkpoints: Checkpoints | None) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """What the last checkpoint has: scores, lengths, and the actions of each episode."""
    found = checkpoints.load() if checkpoints else None
    if found is None:
        return np.empty(0), np.empty(0, np.int64), []
    tensors = found[0]
    print(f"going on from episode {len(tensors['scores'])}")
    ends = np.cumsum(tensors["lengths"])
    return tensors["scores"], tensors["lengths"], np.split(tensors["acts"], ends[:-1])


def interval(scores: np.ndarray) -> dict[str, float]:
    """The percentile bootstrap's 95% interval of the mean."""
    rng = np.random.default_rng(0)
    means = rng.choice(scores, (RESAMPLES, len(scores))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return {"ci95_low": float(low), "ci95_high": float(high)}


def _films(
    world: str, numbers: list[int], scores: np.ndarray, acts: list[np.ndarray], cluster: Cluster, workspace: Workspace
) -> None:
    order = np.argsort(scores, kind="stable")
    chosen = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    jobs = [_Film(world, numbers[index], acts[index], f"{name}: {scores[index]:.0f}") for name, index in chosen.items()]
    folder = workspace.out / "videos"
    folder.mkdir(exist_ok=True)
    for name, data in zip(chosen, cluster.map(_film, jobs), strict=True):
        files.write_bytes(folder / f"{name}.mp4", data)


def _check_films(world: str) -> None:
    """Raises UserError where the world's picture cannot be filmed here: told before the episodes are played."""
    videos.check()
    env = worlds.get(world).checked()
    try:
        env.reset(seed=0)
        check_picture(env.render(), world)
    finally:
        env.close()


def _film(job: _Film, shared: None) -> bytes:
    """The episode once more with the recorded actions, in the world's own picture, as an mp4's bytes."""
    world = worlds.get(job.world)
    env = world.checked()

    def frames() -> Iterator[np.ndarray]:
        env.reset(seed=job.seed)
        for step, act in enumerate(job.acts):
            if step % FILM_EVERY == 0:
                yield env.render()
            env.step(act)
        yield env.render()

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            videos.video(frames(), path, world.spec.fps / FILM_EVERY, job.caption)
            return path.read_bytes()
    finally:
        env.close()
