"""evolve: C by CMA-ES, in the world or in M's dream (paper, section 2.3, 3 and 4).

What is written is not the best of a noisy population: the distribution's mean, and the generation's best candidate,
are scored again on selection episodes that no candidate was ever trained on, and the best of those is kept.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from wm import agent as agents
from wm import budget, figures, imitation, journal, models, rollout, seeds, worlds
from wm.cluster import Cluster, ClusterConfig
from wm.controller import Layout, load_controller, save_controller
from wm.errors import UserError
from wm.evolution import CMAES, CMAConfig
from wm.mdnrnn import MDNRNN, load_mdnrnn, save_mdnrnn
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
    untrained: bool = Field(
        False, description="C remembers with an M of the same shape that was never trained (ablation)"
    )
    imitate: bool = Field(
        True,
        description="where V and M are new, C starts as the linear map of what it sees now that best gives what the "
        "earlier agent put out on the episodes that it collected; false: with that agent's weights as they are",
    )
    hidden: int = Field(0, ge=0, description="tanh units between (paper's ablation: 40); 0 is the linear controller")
    sampled: bool = Field(True, description="C reads a sample of z (paper) rather than V's mean")
    rescore_every: int = Field(
        10, ge=1, description="generations between two scorings on selection episodes (released code: 25)"
    )
    rescore_episodes: int = Field(24, ge=1, description="selection episodes (released code: 1,024)")
    dream: bool = Field(False, description="fitness comes from M's dream instead of the world")
    select: Literal["world", "dream"] = Field(
        "world", description="where the kept controller is chosen; with `dream`, dream leaves the world unseen (paper)"
    )
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


VIRTUAL_EPISODES = 100
"""Dreamed episodes on which the kept controller's virtual score is measured (paper, section 4.4)."""


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
    latents: Path,
    previous: Path,
    workspace: Workspace,
) -> dict[str, float]:
    """Evolves C and writes the whole agent (V, M and C) into the outputs.

    Args:
        tau: temperature of the dream; unused in the world.
        latents: the episodes that M learned from, as V sees them.
        previous: the agent whose controller the search starts from (runs/zero/evolve for zeros).
    Raises:
        DamagedData: a model is not whole.
        UserError: no candidate of a generation has a finite score.
        OutOfTime: the next look at the selection episodes would come after WM_DEADLINE.
    """
    agents.save(vae, mdnrnn, workspace.out)
    spec = worlds.get(world).spec
    if config.untrained:
        save_mdnrnn(_untrained(load_mdnrnn(workspace.out), seed), world, workspace.out)
    memory = load_mdnrnn(workspace.out)
    inputs = tuple(config.inputs or spec.controller_inputs)
    layout = agents.layout(worlds.get(world), memory, inputs, config.hidden)
    start, turn = _start(config, previous, workspace.out, latents, memory, inputs, layout)
    search = CMAES(config, start, seed, turn)
    kept = _resume(search, workspace, config.generations)
    progress = journal.bar(config.generations, workspace.title, "generation", initial=len(search.history))
    selection = seeds.episodes(seed, seeds.Purpose.SELECTION, turn, count=config.rescore_episodes)
    with Cluster(config.workers) as cluster:
        scorer = _Scorer(config, world, tau, memory, mdnrnn, layout, inputs, cluster, workspace.out, selection)
        if kept is None:
            kept = _Kept(start)
            if start.any():  # what it inherits has to be beaten
                kept.score = _finite(scorer.chosen(scorer.looks(start[None]))[0].mean())
                print(f"the controller that it starts from scores {kept.score:.1f} on the selection episodes")
                _save(search, kept, workspace, 0)
        last_look = time.time()
        for generation in range(len(search.history), config.generations):
            began = time.perf_counter()
            candidates = search.ask()
            numbers = seeds.episodes(seed, seeds.Purpose.TRAINING, turn, generation, count=config.episodes)
            scores, lengths = scorer.fitness(candidates, numbers)  # [P, E]
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
                line |= _rescore(scorer, search.mean, best, generation, kept, _last_look(workspace))
            seconds = time.perf_counter() - began
            workspace.journal.log(
                generation + 1, line, {"steps_per_second": int(lengths.sum()) / seconds, "seconds": seconds}
            )
            progress.set_postfix(mean=f"{line['mean']:.1f}", kept=f"{kept.score:.1f}", refresh=False)
            progress.update()
            _save(search, kept, workspace, generation + 1)
            if (generation + 1) % config.rescore_every == 0 and generation + 1 < config.generations:
                spent, last_look = time.time() - last_look, time.time()
                if last_look + spent > budget.deadline():
                    raise budget.OutOfTime(generation + 1, config.generations, kept.score)
        virtual = scorer.virtual(kept.params) if config.dream else {}
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
        title=f"Evolution in the dream, tau {tau:g}" if config.dream else "Evolution in the world",
    )
    return {
        "selection_score": kept.score,
        "generation": kept.generation,
        "round": turn,
        "generations": config.generations,
        "episodes": config.generations * config.population * config.episodes,
        "steps": int(sum(line["steps"] for line in lines)),
        "nan": int(sum(line["nan"] for line in lines)),
        **virtual,
    }


class _Scorer:
    """Plays candidates where fitness comes from, and where they are looked at again."""

    def __init__(
        self,
        config: EvolveConfig,
        world: str,
        tau: float,
        memory: MDNRNN,
        mdnrnn: Path,
        layout: Layout,
        inputs: tuple[str, ...],
        cluster: Cluster,
        agent: Path,
        selection: list[int],
    ):
        self.config, self.world, self.layout, self.inputs = config, world, layout, inputs
        self.cluster, self.shared, self.selection = cluster, agents.AgentFiles.read(agent), selection
        self.dream = None
        if config.dream:
            from wm.dream import Dream

            models.load(mdnrnn, models.STARTS_KIND)  # whole, or a sentence that says what is not
            options = {"threads": config.workers, "device": config.device}
            self.dream = Dream.from_folder(mdnrnn, memory, worlds.get(world), layout, inputs, tau, **options)

    def fitness(self, params: np.ndarray, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Candidates [P, N] on the episodes `numbers` [E] -> scores, lengths, each [P, E]."""
        if self.dream:
            return self.dream.scores(params, numbers)
        return self._real(self.config, params, numbers, self.config.stall)

    def looks(self, params: np.ndarray) -> dict[str, np.ndarray]:
        """Scores [P, E] on whole selection episodes: {"world": …, "dream": … where fitness comes from there}."""
        full = self.config.model_copy(update={"episodes_per_job": self.config.slots})  # they last about equally long
        found = {"world": self._real(full, params, self.selection, stall=0)[0]}
        return found | ({"dream": self.dream.scores(params, self.selection)[0]} if self.dream else {})

    def chosen(self, looks: dict[str, np.ndarray]) -> np.ndarray:
        """Those of the looks that decide which controller is kept."""
        return looks["dream" if self.dream and self.config.select == "dream" else "world"]

    def virtual(self, params: np.ndarray) -> dict[str, float]:
        """The score in the dream, on episodes of its own."""
        numbers = seeds.episodes(0, seeds.Purpose.TEST, count=VIRTUAL_EPISODES)
        scores, _ = self.dream.scores(params[None], numbers)
        return {"virtual_score": float(scores.mean()), "virtual_std": float(scores.std())}

    def _real(self, config: EvolveConfig, params: np.ndarray, numbers: list[int], stall: int):
        return real_scores(
            config, self.world, self.layout, self.inputs, self.cluster, self.shared, params, numbers, stall
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
    scorer: _Scorer, mean: np.ndarray, best: np.ndarray, generation: int, kept: _Kept, before: dict[str, float]
) -> dict[str, float]:
    """Looks at the mean and the best candidate on whole selection episodes; updates `kept`.

    Args:
        before: the line of the journal with the last look.
    """
    looks = scorer.looks(np.stack([mean, best]))
    for source, params, scores in zip(("mean", "best"), (mean, best), scorer.chosen(looks), strict=True):
        if np.isfinite(value := scores.mean()) and value > kept.score:
            kept.params, kept.score, kept.generation, kept.source = params, float(value), generation + 1, source
    line: dict[str, float] = {}
    for name, scores in looks.items():
        suffix = "" if name == "world" else f"_{name}"
        line |= {
            f"rescored{suffix}": float(scores[0].mean()),
            f"rescored_std{suffix}": float(scores[0].std()),
            f"rescored_best{suffix}": float(scores[1].mean()),
        }
    if "dream" in looks:
        line["dream_reality_gap"] = line["rescored_dream"] - line["rescored"]
        line["gap_alarm"] = float(_exploits(line, before, len(scorer.selection)))
        if line["gap_alarm"]:
            print(
                f"alarm: since the last look the dream's score went from {before['rescored_dream']:.0f} to "
                f"{line['rescored_dream']:.0f} and the world's from {before['rescored']:.0f} to "
                f"{line['rescored']:.0f}: the controller exploits the model; a higher tau makes that harder"
            )
    return line | {"kept": kept.score}


def _exploits(line: dict[str, float], before: dict[str, float], episodes: int) -> bool:
    """Whether the dream's score rose and the world's fell, both by more than their standard errors."""
    if "rescored_dream" not in before:
        return False
    rise, fall = line["rescored_dream"] - before["rescored_dream"], before["rescored"] - line["rescored"]
    return bool(rise > line["rescored_std_dream"] / episodes**0.5 and fall > line["rescored_std"] / episodes**0.5)


def _last_look(workspace: Workspace) -> dict[str, float]:
    path = workspace.journal.path
    return next((line for line in reversed(journal.read(path) if path.exists() else []) if "rescored" in line), {})


def _untrained(trained: MDNRNN, seed: int) -> MDNRNN:
    torch.manual_seed(seeds.sequence(seed, seeds.Purpose.CMA, 1).generate_state(1)[0])
    return MDNRNN(trained.config, trained.z_size, trained.action_size, trained.reads_restart)


def _start(
    config: EvolveConfig,
    previous: Path,
    agent: Path,
    latents: Path,
    memory: MDNRNN,
    inputs: tuple[str, ...],
    layout: Layout,
) -> tuple[np.ndarray, int]:
    """x0 from the earlier agent, zeros where there is none; and which round this is, from 0.

    With the same V and M it is that agent's controller, with others one that imitates it (`wm.imitation`).
    A round's tracks and random numbers are its own: another round's would be known to the controller already.
    """
    if not models.exists(previous, models.CONTROLLER_KIND):
        return np.zeros(layout.size, np.float32), 0
    params, earlier, about = load_controller(previous)
    actor, now = agents.AgentFiles.read(previous), agents.AgentFiles.read(agent)
    if config.imitate and not actor.same_models(now):
        imitated = imitation.imitate(latents, actor.digest, memory, inputs, layout)
        if imitated is not None:
            print("V and M are new: C starts as what imitates the earlier agent best")
            return imitated, about["round"] + 1
        print("V and M are new, and the earlier agent drove in none of their episodes: C starts with its weights")
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


def _resume(search: CMAES, workspace: Workspace, generations: int) -> _Kept | None:
    """What the last checkpoint had; None where there is none, or it is of a longer search that has gone too far."""
    found = workspace.checkpoints.load()
    if found is None or found[1]["step"] > generations:
        workspace.checkpoints.clear()
        workspace.journal.rewind(0)
        return None
    tensors, state = found
    search.replay(tensors["history"])
    workspace.journal.rewind(state["step"])
    print(f"going on from generation {state['step']}")
    return _Kept(
        tensors["params"], -np.inf if state["score"] is None else state["score"], state["generation"], state["source"]
    )
