"""evolve: C by CMA-ES, in the world or in M's dream (paper, section 2.3, 3 and 4).

What is written is not the best of a noisy population: the distribution's mean, and the generation's best candidate,
are scored again on selection episodes that no candidate was ever trained on. The best of those is kept, or the best few
and the average of the means are played off on further episodes at the end (`final_episodes`). Where the dream chooses,
only means are kept: the best candidate of a generation is the one that found most of the model's mistakes.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from threadpoolctl import threadpool_limits

from wm import worlds
from wm.core import journal, seeds, weights
from wm.core.errors import UserError
from wm.core.workspace import Workspace
from wm.models.controller import Layout, load_controller, save_controller
from wm.models.mdnrnn import MDNRNN, load_mdnrnn, save_mdnrnn
from wm.pictures import figures
from wm.play import agent as agents
from wm.play.cluster import Cluster, ClusterConfig
from wm.search import budget, imitation
from wm.search.cmaes import CMAES, CMAConfig
from wm.search.contenders import Contender, Contenders, PlayedEpisodes
from wm.search.fitness import Scorer
from wm.search.space import Space


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
        None,
        description="states that C reads: z is V's, h and c are M's; null is the world's own choice (for both of the "
        "paper's worlds the paper's), [z] is the paper's ablation without M",
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
    final_episodes: int = Field(
        0,
        ge=0,
        description="further selection episodes, on which the best few of all scorings and the average of the "
        "distribution's means over the last half of the generations are compared at the end; 0: the best scoring wins",
    )
    hard_episodes: int = Field(
        0,
        ge=0,
        description="of `episodes`, how many are earlier ones of this search: those that went worst for all candidates "
        "when they last were played",
    )
    centre: bool = Field(
        False,
        description="the search moves C's weights about what C reads on average (newest 100 episodes); with raw "
        "weights (paper) most of a step's effect is the same in all states. Needs a bias or a hidden layer",
    )
    directions: int = Field(
        0,
        ge=0,
        description="the search moves C's biases, and its weights only along this many principal directions of what C "
        "reads (newest 100 episodes), each scaled to variance 1: sigma0 is the spread that a direction adds to an "
        "output. 0: all weights (of which `centre` speaks). Needs a linear controller with a bias",
    )
    dream: bool = Field(False, description="fitness comes from M's dream instead of the world")
    select: Literal["world", "dream"] = Field(
        "world", description="where the kept controller is chosen; with `dream`, dream leaves the world unseen (paper)"
    )
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="where the dream runs: cpu, cuda or cuda:N")

    @property
    def dream_decides(self) -> bool:
        """Whether the kept controller is chosen in the dream."""
        return self.dream and self.select == "dream"

    @model_validator(mode="after")
    def _leaves_room_for_new_episodes(self) -> EvolveConfig:
        if self.hard_episodes >= self.episodes:
            raise ValueError(
                f"hard_episodes is {self.hard_episodes} of {self.episodes} episodes: leave at least one for a new one"
            )
        return self

    @model_validator(mode="after")
    def _directions_fit(self) -> EvolveConfig:
        if self.directions and self.hidden:
            raise ValueError(f"directions is {self.directions}, but C has hidden units: set one of the two to 0")
        if self.directions and self.centre:
            raise ValueError(f"directions is {self.directions}, which move about the average anyway: leave centre out")
        return self


FINAL = 1
"""Where in a round the seeds of the final selection are."""
BLAS_THREADS = 2
"""Of the optimiser's linear algebra, on any machine: the last bits of a full covariance's axes depend on it."""


@threadpool_limits.wrap(limits=BLAS_THREADS, user_api="blas")
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
        UserError: no candidate of a generation, or no contender, has a finite score; `centre` or `directions`
            with a controller that it is not for.
        OutOfTime: the next look at the selection episodes and the final selection would end after WM_DEADLINE.
    """
    agents.save(vae, mdnrnn, workspace.out)
    spec = worlds.get(world).spec
    if config.untrained:
        save_mdnrnn(_untrained(load_mdnrnn(workspace.out), seed), world, workspace.out)
    memory = load_mdnrnn(workspace.out)
    inputs = tuple(config.inputs or spec.controller_inputs)
    layout = agents.layout(worlds.get(world), memory, inputs, config.hidden)
    start, turn = _start(config, previous, workspace.out, latents, memory, inputs, layout)
    space = _space(config, world, start, layout, latents, memory, inputs)
    search = CMAES(config, space.start, seed, turn)
    played = PlayedEpisodes()
    contenders = _resume(search, played, workspace, config.generations)
    progress = journal.bar(config.generations, workspace.title, "generation", initial=len(search.history))
    selection = seeds.episodes(seed, seeds.Purpose.SELECTION, turn, count=config.rescore_episodes)

    with Cluster() as cluster:
        scorer = Scorer(config, world, tau, memory, mdnrnn, layout, inputs, cluster, workspace.out, selection)
        if contenders is None:
            contenders = Contenders([Contender(start, -np.inf, 0, "start")])
            if start.any():  # what it inherits has to be beaten
                began = time.perf_counter()
                looks = scorer.looks(start[None])
                contenders.add(Contender(start, float(scorer.chosen(looks)[0].mean()), 0, "start"))
                said = " and ".join(f"{scores[0].mean():.1f} in the {where}" for where, scores in looks.items())
                print(f"the controller that it starts from scores {said} on the selection episodes")
                seconds = {"seconds": time.perf_counter() - began}
                workspace.journal.log(0, {**_of_mean(looks), "nan": 0, "steps": 0}, seconds)
                _save(search, contenders, played, workspace, 0)
        spent: list[float] = []  # seconds a generation, without the looks
        for generation in range(len(search.history), config.generations):
            began = time.perf_counter()
            candidates = space.controllers(search.ask())
            numbers = played.hardest(config.hard_episodes)
            fresh = seeds.episodes(seed, seeds.Purpose.TRAINING, turn, generation, count=config.episodes)
            numbers += fresh[: config.episodes - len(numbers)]
            scores, lengths = scorer.fitness(candidates, numbers)  # [P, E]
            played.note(numbers, scores)
            fitness = scores.mean(1)
            if not np.isfinite(fitness).any():
                raise UserError(
                    f"no candidate of generation {generation + 1} has a finite score, so there is nothing to choose "
                    f"from: look at the models in {vae} and {mdnrnn}, or lower sigma0"
                )
            failed = search.tell(fitness)
            spent.append(time.perf_counter() - began)
            line = {
                "best": np.nanmax(fitness),
                "mean": np.nanmean(fitness),
                "worst": np.nanmin(fitness),
                "nan": failed,
                "sigma": search.sigma,
                "steps": int(lengths.sum()),
            }
            if (generation + 1) % config.rescore_every == 0 or generation + 1 == config.generations:
                looked_at = time.perf_counter()
                mean = space.controllers(search.mean[None])
                looked = np.concatenate([mean, candidates[[int(np.nanargmax(fitness))]]])
                line |= _rescore(scorer, looked, generation, contenders, _best_look(workspace))
                looking = time.perf_counter() - looked_at
                ending = looking * final_episodes(config) / (2 * config.rescore_episodes)
            seconds = time.perf_counter() - began
            workspace.journal.log(
                generation + 1, line, {"steps_per_second": int(lengths.sum()) / seconds, "seconds": seconds}
            )
            progress.set_postfix(mean=f"{line['mean']:.1f}", kept=f"{contenders.best.score:.1f}", refresh=False)
            progress.update()
            _save(search, contenders, played, workspace, generation + 1)
            if (generation + 1) % config.rescore_every == 0 and generation + 1 < config.generations:
                generations = min(config.rescore_every, config.generations - generation - 1)
                following = float(np.mean(spent[-config.rescore_every :])) * generations + looking
                if time.time() + following + ending > budget.deadline():
                    raise budget.OutOfTime(generation + 1, config.generations, contenders.best.score)
        progress.close()
        kept, final = contenders.best, 0
        if config.final_episodes:
            average = space.controllers(search.average[None])[0]
            field = [*contenders.found, Contender(average, -np.inf, config.generations, "average")]
            numbers = seeds.episodes(seed, seeds.Purpose.SELECTION, turn, FINAL, count=config.final_episodes)
            kept = _final(scorer, field, numbers)
            final = 0 if config.dream_decides else len(field) * len(numbers)
        if not math.isfinite(kept.score):
            raise UserError(
                f"no controller has a finite score on the selection episodes: look at the models in {vae} and {mdnrnn}"
            )
        virtual = scorer.virtual(kept.params) if config.dream else {}
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
        "final_episodes": final,
        **({"gap_alarms": int(sum(line.get("gap_alarm", 0) for line in lines))} if config.dream else {}),
        **virtual,
    }


def final_episodes(config: EvolveConfig) -> int:
    """Episodes of the world that the final selection plays at most, of all contenders together."""
    return 0 if config.dream_decides else (Contenders.MOST + 1) * config.final_episodes


def _rescore(
    scorer: Scorer, looked: np.ndarray, generation: int, contenders: Contenders, before: dict[str, float]
) -> dict[str, float]:
    """Looks at the mean and the best candidate, [2, N], on whole selection episodes; updates `contenders`.

    Args:
        before: the line of the journal with the look at which the mean was best in the world; empty before the first.
    """
    looks = scorer.looks(looked)
    for source, params, scores in zip(("mean", "best"), looked, scorer.chosen(looks), strict=True):
        if source == "mean" or not scorer.config.dream_decides:
            contenders.add(Contender(params, float(scores.mean()), generation + 1, source))
    line = _of_mean(looks)
    line |= {f"rescored_best{_suffix(where)}": float(scores[1].mean()) for where, scores in looks.items()}
    if "dream" in looks:
        line["gap_alarm"] = float(_exploits(line, before, len(scorer.selection)))
        if line["gap_alarm"]:
            print(
                f"alarm: since generation {before['step']} the dream's score went from {before['rescored_dream']:.0f} "
                f"to {line['rescored_dream']:.0f} and the world's from {before['rescored']:.0f} to "
                f"{line['rescored']:.0f}: the controller exploits the model; a higher tau makes that harder"
            )
    return line | {"kept": contenders.best.score}


def _of_mean(looks: dict[str, np.ndarray]) -> dict[str, float]:
    """What the journal says of the first controller in looks: in the world and, where there is one, in the dream."""
    line: dict[str, float] = {}
    for where, scores in looks.items():
        line[f"rescored{_suffix(where)}"] = float(scores[0].mean())
        line[f"rescored_std{_suffix(where)}"] = float(scores[0].std())
    if "dream" in looks:
        line["dream_reality_gap"] = line["rescored_dream"] - line["rescored"]
    return line


def _suffix(where: str) -> str:
    return "" if where == "world" else f"_{where}"


def _exploits(line: dict[str, float], before: dict[str, float], episodes: int) -> bool:
    """Whether the dream's score rose and the world's fell, both by more than the standard error of a look."""
    if before.get("rescored_dream") is None:
        return False
    rise, fall = line["rescored_dream"] - before["rescored_dream"], before["rescored"] - line["rescored"]
    return bool(rise > line["rescored_std_dream"] / episodes**0.5 and fall > line["rescored_std"] / episodes**0.5)


def _best_look(workspace: Workspace) -> dict[str, float]:
    """The line of the journal with the look (of the start, or of a mean) that went best in the world; {} for none."""
    path = workspace.journal.path
    looks = [line for line in (journal.read(path) if path.exists() else []) if line.get("rescored") is not None]
    return max(looks, key=lambda line: line["rescored"], default={})


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

    With the same V and M it is that agent's controller (where C reads more than that one did, the rest starts without
    weight), with others one that imitates it (`wm.search.imitation`).
    A round's tracks and random numbers are its own: another round's would be known to the controller already.
    """
    if not weights.exists(previous, weights.CONTROLLER_KIND):
        return np.zeros(layout.size, np.float32), 0
    params, earlier, about = load_controller(previous)
    actor, now = agents.AgentFiles.read(previous), agents.AgentFiles.read(agent)
    if config.imitate and not actor.same_models(now):
        imitated = imitation.imitate(latents, actor.digest, memory, inputs, layout)
        if imitated is not None:
            print("V and M are new: C starts as what imitates the earlier agent best")
            return imitated, about["round"] + 1
        print("V and M are new, and the earlier agent can't be imitated on their episodes: C starts with its weights")
    if tuple(about["inputs"]) != inputs or earlier != layout:
        params = _for_inputs(params, earlier, about["inputs"], layout, inputs, memory)
        if not params.any():
            print("the earlier controller has another layout: the search starts from zeros")
        elif more := [name for name in inputs if name not in about["inputs"]]:
            print(f"C reads {', '.join(more)} as well, which starts without weight")
    return params, about["round"] + 1


def _for_inputs(
    params: np.ndarray, earlier: Layout, had: list[str], layout: Layout, inputs: tuple[str, ...], memory: MDNRNN
) -> np.ndarray:
    """A linear controller [N] of `had` as one that reads `inputs`, where the others have weights of zero; zeros where
    that can't be said."""
    sizes = {"z": memory.z_size, "h": memory.config.hidden, "c": memory.config.hidden}
    found = np.zeros(layout.size, np.float32)
    fits = earlier == replace(layout, inputs=sum(sizes[name] for name in had))
    if layout.hidden or not fits or not set(had) <= set(inputs):
        return found
    actions = layout.actions
    weights = params[: actions * earlier.inputs].reshape(actions, -1)  # [A, D]
    parts = dict(zip(had, np.split(weights, np.cumsum([sizes[name] for name in had])[:-1], axis=1), strict=True))
    rows = [parts.get(name, np.zeros((actions, sizes[name]), np.float32)) for name in inputs]
    found[: actions * layout.inputs] = np.concatenate(rows, axis=1).ravel()
    found[actions * layout.inputs :] = params[weights.size :]
    return found


def _space(
    config: EvolveConfig,
    world: str,
    start: np.ndarray,
    layout: Layout,
    latents: Path,
    memory: MDNRNN,
    inputs: tuple[str, ...],
) -> Space:
    """Among which controllers the search moves, from start [N]."""
    if config.directions:
        return Space.of_directions(start, layout, imitation.newest(latents, memory, inputs), config.directions)
    offset = np.zeros(layout.inputs)
    if config.centre:
        if not (layout.bias or layout.hidden):
            raise UserError(f"evolve.centre moves a bias, and the controller of {world} has none: set it to false")
        offset = imitation.average(latents, memory, inputs)
    return Space.of_weights(start, layout, offset)


def _final(scorer: Scorer, field: list[Contender], numbers: list[int]) -> Contender:
    """The one of the field that is best on the episodes `numbers`, with its score there; -inf where nobody has one."""
    scores = scorer.deciding(np.stack([one.params for one in field]), numbers).mean(1)
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    for one, score in zip(field, scores, strict=True):
        print(f"final selection: {one.source} of generation {one.generation} scores {score:.1f}")
    best = int(scores.argmax())
    return replace(field[best], score=float(scores[best]))


def _save(search: CMAES, contenders: Contenders, played: PlayedEpisodes, workspace: Workspace, generation: int) -> None:
    tensors, state = contenders.state()
    workspace.checkpoints.save(generation, {"history": search.history} | tensors | played.state(), state)


def _resume(search: CMAES, played: PlayedEpisodes, workspace: Workspace, generations: int) -> Contenders | None:
    """What the last checkpoint had; None where there is none, or it is of a longer search that has gone too far."""
    found = workspace.checkpoints.load()
    if found is None or found[1]["step"] > generations:
        workspace.checkpoints.clear()
        workspace.journal.rewind(-1)  # the start's look, step 0, is written again
        return None
    tensors, state = found
    search.replay(tensors["history"])
    played.restore(tensors)
    workspace.journal.rewind(state["step"])
    print(f"going on from generation {state['step']}")
    return Contenders.restored(tensors, state)
