"""evolve: C by CMA-ES, in the world or in M's dream (paper, section 2.3, 3 and 4); the loop is `wm.search.loop`."""

from __future__ import annotations

import sys
from pathlib import Path

from threadpoolctl import threadpool_limits

from wm import worlds
from wm.core import files, journal, seeds, weights
from wm.core.episodes import EpisodeSet
from wm.core.workspace import Workspace
from wm.dream.engine import Dream, DreamRules, load_starts
from wm.models.controller import ControllerSpec, save_controller
from wm.models.mdnrnn import MDNRNN, load_mdnrnn, save_mdnrnn
from wm.pictures import decoration, figures
from wm.play import agent as agents
from wm.play.cluster import Cluster
from wm.search import gauge, recorded
from wm.search import start as starting
from wm.search.config import EvolveConfig
from wm.search.fitness import Scorer, WorldPlayer
from wm.search.gauge import Gauge
from wm.search.loop import Outcome, Search

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
            with a controller that it is not for; a search in the world where that is recordings.
        OutOfTime: the next rescoring and the final selection would end after WM_DEADLINE.
    """
    recorded.check(config, worlds.get(world))
    agents.save(vae, mdnrnn, workspace.out, latents)
    if config.untrained:
        save_mdnrnn(starting.untrained(load_mdnrnn(workspace.out), seed), world, workspace.out)
        weights.delete(workspace.out, weights.SURPRISE_M_KIND)  # of the trained one
    memory = load_mdnrnn(workspace.out)
    spec = agents.controller_spec(worlds.get(world), memory, config.inputs, config.hidden)
    start = starting.inherited(previous, workspace.out, latents, memory, spec)
    space = starting.search_space(config, start, spec, latents, memory, world)
    selection = seeds.episodes(seed, seeds.Purpose.SELECTION, start.round_index, count=config.rescore_episodes)
    with Cluster() as cluster:
        models = agents.AgentFiles.read(workspace.out)
        only = worlds.get(world).recordings
        player = None if only else WorldPlayer(config, world, spec, config.sampled, cluster, models)
        dream = _dream(config, world, tau, mdnrnn, memory, spec, cluster.workers) if config.dream else None
        scorer = Scorer(config, player, dream, selection)
        search = Search(config, seed, start, space, scorer, workspace, models=(vae, mdnrnn))
        search.begin()
        for generation in search.remaining:
            search.generation(generation)
        gauged = _gauge(config, seed, search, player, dream, workspace.out) if dream and player else None
        outcome = search.finish(trusted=gauged is None or gauged.trusted)
        virtual = scorer.virtual(outcome.kept.params)
        if only:
            told = recorded.report(scorer, outcome.kept.params, memory, EpisodeSet(latents), worlds.get(world), tau)
            files.write_json(workspace.out / recorded.FILE, told)
    _write(config, world, tau, spec, outcome, workspace)
    return outcome.summary | virtual | ({"gauge": gauged.correlation} if gauged else {})


def _dream(
    config: EvolveConfig, world: str, tau: float, mdnrnn: Path, memory: MDNRNN, spec: ControllerSpec, threads: int
) -> Dream:
    """What fitness comes from instead of the world: dreams of `memory` that start where `mdnrnn` says."""
    reads = "sample" if config.sampled else "mean"
    rules = DreamRules(tau, worlds.get(world).spec.max_steps, ends=config.ends, reads=reads)
    return Dream(memory, load_starts(mdnrnn), worlds.get(world), spec, rules, device=config.device, threads=threads)


def _gauge(config: EvolveConfig, seed: int, search: Search, player: WorldPlayer, dream: Dream, out: Path) -> Gauge:
    """Whether the dream knows the world's order where the search has ended. Says it."""
    round_index = search.start.round_index
    rng = seeds.generator(seed, seeds.Purpose.CMA, round_index, gauge.GAUGE)
    controllers = gauge.disturbed(search.space, search.cmaes.mean, config.sigma0, config.gauge_controllers, rng)
    numbers = gauge.episodes(seed, round_index, config.gauge_episodes)
    found = gauge.measure(player, dream, controllers, numbers, config.gauge_least, config.stall)
    found.write(out)
    print(f"rank correlation of dream and world: {found}")
    if not found.trusted:
        then = "the world chooses what is kept, instead of the dream; " if config.dream_decides else ""
        about = "the dream does not put controllers into the world's order"
        print(f"warning: {about}: {then}train M longer, or on more episodes", file=sys.stderr, flush=True)
    return found


def _write(
    config: EvolveConfig, world: str, tau: float, spec: ControllerSpec, outcome: Outcome, workspace: Workspace
) -> None:
    """The controller, and the curves of the search."""
    kept = outcome.kept
    save_controller(
        kept.params,
        spec.layout,
        world,
        spec.inputs,
        workspace.out,
        sampled=config.sampled,
        source=kept.source,
        generation=kept.generation,
        round=outcome.summary["round"],
        selection_score=kept.score,
        dream=config.dream,
        tau=tau if config.dream else None,
        ends=config.ends if config.dream else None,
    )
    with decoration("the search's curves"):
        figures.evolution(
            journal.read(workspace.journal.path),
            workspace.out / "figures" / "curves.png",
            reference=next(iter(worlds.get(world).spec.references.items()), None),
            title=f"Evolution in the dream, tau {tau:g}" if config.dream else "Evolution in the world",
        )
