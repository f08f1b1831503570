"""May the dream of a finished agent be trusted? The gauge of `evolve` about the agent's own controller."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wm.core import seeds
from wm.core.errors import UserError
from wm.dream.engine import Dream, DreamRules, load_starts
from wm.models.controller import ControllerSpec
from wm.pictures import figures
from wm.play import agent as agents
from wm.play.cluster import Cluster
from wm.release.places import Place
from wm.search import gauge
from wm.search.config import EvolveConfig
from wm.search.fitness import WorldPlayer
from wm.search.gauge import Gauge
from wm.search.space import Space


def measure(place: Place, sigma0: float, controllers: int, episodes: int) -> Gauge:
    """The gauge of an agent's dream, which ends as those of `evolve` do.

    Args:
        sigma0: the spread of the weights' disturbances (`wm.search.gauge`).
        controllers, episodes: how many, and of how many episodes of either each.
    Raises:
        UserError: its world is recordings.
        DamagedData: the agent is not whole, or the first frames of its dreams are not there.
    """
    agent, params, about = agents.load(place.folder)
    world, spec = agent.world, ControllerSpec(agent.inputs, agent.layout)
    if world.recordings:
        raise UserError(f"the world {about['world']} is recordings, so no controller can play it: no dream has a gauge")
    config = EvolveConfig(generations=1, sampled=about["sampled"], dream=True)
    reads = "sample" if config.sampled else "mean"
    rules = DreamRules(place.tau, world.spec.max_steps, ends=about.get("ends") or config.ends, reads=reads)
    space = Space.of_weights(params, spec.layout, np.zeros(spec.layout.inputs))
    rng = seeds.generator(0, seeds.Purpose.CMA, 0, gauge.GAUGE)
    disturbed = gauge.disturbed(space, space.start, sigma0, controllers, rng)
    with Cluster() as cluster:
        dream = Dream(agent.mdnrnn, load_starts(place.starts), world, spec, rules, threads=cluster.workers)
        player = WorldPlayer(
            config, about["world"], spec, config.sampled, cluster, agents.AgentFiles.read(place.folder)
        )
        return gauge.measure(player, dream, disturbed, gauge.episodes(0, 0, episodes), config.gauge_least)


def report(place: Place, sigma0: float, controllers: int, episodes: int) -> str:
    """What `python -m wm agent gauge AGENT` prints; writes the picture NAME_gauge.png."""
    found, picture = measure(place, sigma0, controllers, episodes), Path(f"{place.name}_gauge.png")
    figures.gauge(found.dream, found.world, found.correlation, picture)
    return f"{sentences(place, found, sigma0)}\npicture: {picture}"


def sentences(place: Place, found: Gauge, sigma0: float) -> str:
    """The figure, and what it comes from: mean scores by how far weights were disturbed."""
    lines = [f"{place.name}: rank correlation of dream (tau {place.tau:g}) and world {found}"]
    spreads = np.resize(gauge.SPREADS, len(found.world)) * sigma0
    for spread in sorted(set(spreads)):
        sides = (f"{side[spreads == spread].mean():.0f} in the {name}" for name, side in found.sides.items())
        lines.append(f"weights disturbed by {spread:g}: {' and '.join(sides)}, mean of {(spreads == spread).sum()}")
    return "\n".join(lines)
