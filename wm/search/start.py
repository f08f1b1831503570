"""Where a search starts, and among which controllers it moves.

Shapes: N parameters of a controller, D numbers that C reads, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from wm.core import seeds, weights
from wm.core.errors import UserError
from wm.models.controller import ControllerSpec, load_controller
from wm.models.mdnrnn import MDNRNN
from wm.play.agent import AgentFiles
from wm.search import imitation
from wm.search.config import EvolveConfig
from wm.search.space import Space


@dataclass(frozen=True)
class Start:
    """What a search begins with.

    Attributes:
        params: the first controller, [N] float32; zeros where nothing is inherited.
        round_index: how many rounds came before. A round's episodes and random numbers are its own: another round's
            would be known to the controller already.
    """

    params: np.ndarray
    round_index: int


def inherited(previous: Path, agent: Path, latents: Path, memory: MDNRNN, spec: ControllerSpec) -> Start:
    """The start that an earlier agent leaves, zeros where there is none.

    With the same V and M it is that agent's controller (where C reads more than that one did, the rest starts without
    weight), with others one that imitates it (`wm.search.imitation`).

    Args:
        previous: folder of the earlier agent, or of none.
        agent: folder with the V and M of this search.
        latents: the episodes that M learned from, as V sees them.
        memory: the M that C remembers with.
        spec: of the controllers of this search.
    """
    if not weights.exists(previous, weights.CONTROLLER_KIND):
        return Start(np.zeros(spec.layout.size, np.float32), 0)
    params, earlier_layout, about = load_controller(previous)
    earlier = ControllerSpec(tuple(about["inputs"]), earlier_layout)
    actor, round_index = AgentFiles.read(previous), about["round"] + 1
    if not actor.same_models(AgentFiles.read(agent)):
        imitated = imitation.imitate(latents, actor.digest, memory, spec)
        if imitated is not None:
            print("V and M are new: C starts as what imitates the earlier agent best")
            return Start(imitated, round_index)
        print("V and M are new, and the earlier agent can't be imitated on their episodes: C starts with its weights")
    if earlier != spec:
        params = widened(params, earlier, spec, memory)
        if not params.any():
            print("the earlier controller has another layout: the search starts from zeros")
        elif more := [name for name in spec.inputs if name not in earlier.inputs]:
            print(f"C reads {', '.join(more)} as well, which starts without weight")
    return Start(params, round_index)


def widened(params: np.ndarray, earlier: ControllerSpec, spec: ControllerSpec, memory: MDNRNN) -> np.ndarray:
    """A linear controller of `earlier` as one of `spec`, [N] float32: what only `spec` reads has weights of zero.

    Zeros where there is no such controller: one has hidden units, or `spec` lacks a state that `earlier` reads.
    """
    sizes, layout = {"z": memory.z_size, "h": memory.config.hidden, "c": memory.config.hidden}, spec.layout
    wide = np.zeros(layout.size, np.float32)
    fits = earlier.layout == replace(layout, inputs=sum(sizes[name] for name in earlier.inputs))
    if layout.hidden or not fits or not set(earlier.inputs) <= set(spec.inputs):
        return wide
    actions = layout.actions
    narrow = params[: actions * earlier.layout.inputs].reshape(actions, -1)  # [A, D]
    ends = np.cumsum([sizes[name] for name in earlier.inputs])[:-1]
    parts = dict(zip(earlier.inputs, np.split(narrow, ends, axis=1), strict=True))
    columns = [parts.get(name, np.zeros((actions, sizes[name]), np.float32)) for name in spec.inputs]
    wide[: actions * layout.inputs] = np.concatenate(columns, axis=1).ravel()
    wide[actions * layout.inputs :] = params[narrow.size :]
    return wide


def search_space(
    config: EvolveConfig, start: Start, spec: ControllerSpec, latents: Path, memory: MDNRNN, world: str
) -> Space:
    """Among which controllers the search moves.

    Raises:
        UserError: `centre` or `directions` with a controller that it is not for.
    """
    if config.directions:
        episodes = imitation.newest(latents, memory, spec.inputs)
        return Space.of_directions(start.params, spec.layout, episodes, config.directions)
    offset = np.zeros(spec.layout.inputs)
    if config.centre:
        if not (spec.layout.bias or spec.layout.hidden):
            raise UserError(f"evolve.centre moves a bias, and the controller of {world} has none: set it to false")
        offset = imitation.average(latents, memory, spec.inputs)
    return Space.of_weights(start.params, spec.layout, offset)


def untrained(trained: MDNRNN, seed: int) -> MDNRNN:
    """An M of the same shape with the weights that training would start from (ablation)."""
    torch.manual_seed(seeds.sequence(seed, seeds.Purpose.CMA, 1).generate_state(1)[0])
    return MDNRNN(trained.config, trained.z_size, trained.action_size, trained.reads_restart)
