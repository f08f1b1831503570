"""evolve: C by CMA-ES, in the world or in M's dream (paper, section 2.3, 3 and 4).

What is written is not the best of a noisy population: the distribution's mean, and the generation's best candidate,
are scored again on selection episodes that no candidate was ever trained on, and the best of those is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from wm import agent as agents
from wm import figures, journal, models, rollout, seeds, worlds
from wm.cluster import Cluster, ClusterConfig
from wm.controller import load_controller, save_controller
from wm.errors import UserError
from wm.evolution import CMAES, CMAConfig
from wm.mdnrnn import load_mdnrnn
from wm.workspace import Workspace


class EvolveConfig(ClusterConfig, CMAConfig):
    """The search, and where fitness comes from."""

    generations: int = Field(ge=1, description="generations of CMA-ES (paper: 1,800)")
    episodes: int = Field(
        16, ge=1, description="episodes a candidate, the same ones for all candidates of a generation (paper: 16)"
    )
    stall: int = Field(
        0, ge=0, description="an episode also ends after this many steps without a positive reward; 0 for never"
    )
    inputs: list[Literal["z", "h", "c"]] | None = Field(
        None, description="states that C reads; null is the world's own choice, [z] is the paper's ablation without M"
    )
    hidden: int = Field(0, ge=0, description="tanh units between (paper's ablation: 40); 0 is the linear controller")
    sampled: bool = Field(True, description="C reads a sample of z (paper) rather than V's mean")
    rescore_every: int = Field(
        10, ge=1, description="generations between two scorings on selection episodes (released code: 25)"
    )
    rescore_episodes: int = Field(24, ge=1, description="selection episodes (released code: 1,024)")
    dream: bool = Field(False, description="fitness comes from M's dream instead of the world")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="where the dream runs: cpu, cuda or cuda:N")


@dataclass(frozen=True)
class _Job:
    world: str
    params: np.ndarray  # [N, P]
    pairs: list[rollout.Pair]
    layout: object
    inputs: tuple[str, ...]
    sampled: bool
    slots: int
    stall: int


@dataclass
class _Kept:
    """The best controller by selection score so far."""

    params: np.ndarray
    score: float = -np.inf
    generation: int = 0
    source: str = "start"


def evolve(
    config: EvolveConfig,
    world: str,
    seed: int,
    tau: float,
    vae: Path,
    mdnrnn: Path,
    previous: Path,
    workspace: Workspace,
) -> dict[str, float]:
    """Evolves C and writes the whole agent (V, M and C) into the outputs.

    Args:
        tau: temperature of the dream; unused in the world.
        previous: the agent whose controller the search starts from (runs/zero/evolve for zeros).
    Raises:
        DamagedData: a model is not whole.
        UserError: no candidate of a generation has a finite score.
    """
    agents.save(vae, mdnrnn, workspace.out)
    spec = worlds.get(world).spec
    memory = load_mdnrnn(workspace.out)
    inputs = tuple(config.inputs or spec.controller_inputs)
    layout = agents.layout(worlds.get(world), memory, inputs, config.hidden)
    start, turn = _start(previous, layout)
    search = CMAES(config, start, seed, turn)
    kept = _resume(search, workspace)
    progress = journal.bar(config.generations, workspace.title, "generation", initial=len(search.history))
    selection = seeds.episodes(seed, seeds.Purpose.SELECTION, turn, count=config.rescore_episodes)
    with Cluster(config.workers) as cluster:
        models_files = agents.AgentFiles.read(workspace.out)
        player = _player(config, world, tau, memory, mdnrnn, layout, inputs, cluster, models_files)

        def score(params: np.ndarray) -> np.ndarray:
            """Scores [P, E] on whole selection episodes of the real world; they last about equally long."""
            full = config.model_copy(update={"episodes_per_job": config.slots})
            return real_scores(full, world, layout, inputs, cluster, models_files, params, selection, stall=0)[0]

        if kept is None:
            kept = _Kept(start)
            if start.any():  # what it inherits has to be beaten
                kept.score = _finite(score(start[None])[0].mean())
                print(f"the controller that it starts from scores {kept.score:.1f} on the selection episodes")
                _save(search, kept, workspace, 0)
        for generation in range(len(search.history), config.generations):
            began = time.perf_counter()
            candidates = search.ask()
            numbers = seeds.episodes(seed, seeds.Purpose.TRAINING, turn, generation, count=config.episodes)
            scores, lengths = player(candidates, numbers)  # [P, E]
            fitness = scores.mean(1)
            if not np.isfinite(fitness).any():
                raise UserError(
                    f"no candidate of generation {generation + 1} has a finite score, so there is nothing to choose "
                    f"from: look at the models in {vae} and {mdnrnn}, or lower sigma0"
                )
            failed = search.tell(fitness)
            line = {
                "best": np.nanmax(fitness),
                "mean": np.nanmean(fitness),
                "worst": np.nanmin(fitness),
                "nan": failed,
                "sigma": search.sigma,
                "steps": int(lengths.sum()),
            }
            if (generation + 1) % config.rescore_every == 0 or generation + 1 == config.generations:
                best = candidates[int(np.nanargmax(fitness))]
                line |= _rescore(score, search.mean, best, generation, kept)
            seconds = time.perf_counter() - began
            workspace.journal.log(
                generation + 1, line, {"steps_per_second": int(lengths.sum()) / seconds, "seconds": seconds}
            )
            progress.set_postfix(mean=f"{line['mean']:.1f}", kept=f"{kept.score:.1f}", refresh=False)
            progress.update()
            _save(search, kept, workspace, generation + 1)
    progress.close()
    if not math.isfinite(kept.score):
        raise UserError(
            f"no controller has a finite score on the selection episodes: look at the models in {vae} and {mdnrnn}"
        )
    save_controller(
        kept.params,
        layout,
        world,
        inputs,
        workspace.out,
        sampled=config.sampled,
        source=kept.source,
        generation=kept.generation,
        round=turn,
        selection_score=kept.score,
        dream=config.dream,
        tau=tau if config.dream else None,
    )
    lines = journal.read(workspace.journal.path)
    figures.evolution(
        lines,
        workspace.out / "figures" / "curves.png",
        reference=("solved", spec.solved),
        title="Evolution in the dream" if config.dream else "Evolution in the world",
    )
    return {
        "selection_score": kept.score,
        "generation": kept.generation,
        "round": turn,
        "generations": config.generations,
        "episodes": config.generations * config.population * config.episodes,
        "steps": int(sum(line["steps"] for line in lines)),
        "nan": int(sum(line["nan"] for line in lines)),
    }


def _player(
    config: EvolveConfig,
    world: str,
    tau: float,
    memory,
    mdnrnn: Path,
    layout,
    inputs: tuple[str, ...],
    cluster: Cluster,
    shared: agents.AgentFiles,
):
    """candidates [P, N], seeds [E] -> scores, lengths, each [P, E]: in the world or in the dream."""
    if config.dream:
        from wm.dream import Dream

        models.load(mdnrnn, models.STARTS_KIND)  # whole, or a sentence that says what is not
        return Dream.from_folder(
            mdnrnn, memory, worlds.get(world), layout, inputs, tau, threads=config.workers, device=config.device
        ).scores
    return lambda params, numbers: real_scores(
        config, world, layout, inputs, cluster, shared, params, numbers, config.stall
    )


def real_scores(
    config: ClusterConfig,
    world: str,
    layout,
    inputs: tuple[str, ...],
    cluster: Cluster,
    shared: agents.AgentFiles,
    params: np.ndarray,
    numbers: list[int],
    stall: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and lengths, each [P, E], of params [P, N] on the episodes `numbers` [E] of the real world.

    Args:
        shared: V and M.
    """
    pairs = [(candidate, number) for number in numbers for candidate in range(len(params))]
    jobs = []
    for first in range(0, len(pairs), config.episodes_per_job):
        part = pairs[first : first + config.episodes_per_job]
        used = sorted({candidate for candidate, _ in part})
        local = {candidate: index for index, candidate in enumerate(used)}
        jobs.append(
            _Job(
                world,
                params[used],
                [(local[candidate], number) for candidate, number in part],
                layout,
                inputs,
                config.sampled,
                config.slots,
                stall,
            )
        )
    played = list(cluster.map(_play, jobs, shared))
    shape = (len(numbers), len(params))
    return (
        np.concatenate([part.scores for part in played]).reshape(shape).T,
        np.concatenate([part.lengths for part in played]).reshape(shape).T,
    )


def _play(job: _Job, shared: agents.AgentFiles) -> rollout.Played:
    vae, mdnrnn = shared.models()
    world = worlds.get(job.world)
    agent = agents.Agent(vae=vae, mdnrnn=mdnrnn, world=world, layout=job.layout, inputs=job.inputs)
    driver = rollout.AgentDriver(agent, job.params, job.slots, job.sampled)
    return rollout.play(world, driver, job.pairs, job.slots, stall=job.stall)


def _rescore(
    score: Callable[[np.ndarray], np.ndarray], mean: np.ndarray, best: np.ndarray, generation: int, kept: _Kept
) -> dict[str, float]:
    """Scores the mean and the best candidate in the world on whole selection episodes; updates `kept`."""
    scores = score(np.stack([mean, best]))
    means = scores.mean(1)
    for source, params, value in (("mean", mean, means[0]), ("best", best, means[1])):
        if np.isfinite(value) and value > kept.score:
            kept.params, kept.score, kept.generation, kept.source = params, float(value), generation + 1, source
    return {
        "rescored": float(means[0]),
        "rescored_std": float(scores[0].std()),
        "rescored_best": float(means[1]),
        "kept": kept.score,
    }


def _start(previous: Path, layout) -> tuple[np.ndarray, int]:
    """x0: the earlier agent's controller where it has the same layout, else zeros; and which round this is, from 0.

    A round's tracks and random numbers are its own: another round's would be known to the controller already.
    """
    if not models.exists(previous, models.CONTROLLER_KIND):
        return np.zeros(layout.size, np.float32), 0
    params, earlier, about = load_controller(previous)
    if earlier != layout:
        print("the earlier controller has another layout: the search starts from zeros")
        params = np.zeros(layout.size, np.float32)
    return params, about["round"] + 1


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else -np.inf


def _save(search: CMAES, kept: _Kept, workspace: Workspace, generation: int) -> None:
    state = {
        "score": kept.score if math.isfinite(kept.score) else None,
        "generation": kept.generation,
        "source": kept.source,
    }
    workspace.checkpoints.save(generation, {"params": kept.params, "history": search.history}, state)


def _resume(search: CMAES, workspace: Workspace) -> _Kept | None:
    """What the last checkpoint had; None where there is none."""
    found = workspace.checkpoints.load()
    if found is None:
        workspace.journal.rewind(0)
        return None
    tensors, state = found
    search.replay(tensors["history"])
    workspace.journal.rewind(state["step"])
    print(f"going on from generation {state['step']}")
    return _Kept(
        tensors["params"], -np.inf if state["score"] is None else state["score"], state["generation"], state["source"]
    )
