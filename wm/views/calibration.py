"""Is M's dream as hard as the world? The policy that collected the data, put into the dream at several temperatures.

No controller and no new episode of the world is needed: what the random policy scored is in the data set. Where it
lives longer in the dream than in the world, so will every agent, and the dream teaches the wrong thing (paper, section
4.5). A temperature at which both agree is where a sweep should start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wm.core import seeds
from wm.core.episodes import EpisodeSet
from wm.core.errors import UserError
from wm.core.journal import bar
from wm.gym.dream import Dreams
from wm.models.mdnrnn import MDNRNN, load_mdnrnn
from wm.params import Params
from wm.stages.train_mdn import Streams
from wm.worlds.base import FRAME_SHAPE

RUNS = Path("runs")
TAUS = (0.5, 1.0, 1.15, 1.3, 1.6, 2.0)
SIDE_BY_SIDE = 32
HELD_OUT = 200
"""Held-out episodes on which M's ends are counted, at most."""


@dataclass(frozen=True)
class Lives:
    """Scores and lengths of episodes, each [N]."""

    scores: np.ndarray
    lengths: np.ndarray

    def __str__(self) -> str:
        error = self.scores.std() / len(self.scores) ** 0.5
        score = f"score {_pm(self.scores)} (standard error {error:.0f})"
        return f"{score}, {_pm(self.lengths)} steps, {len(self.scores)} episodes"


def report(everything: Params, name: str, taus: Sequence[float] = TAUS, episodes: int = 200) -> str:
    """What `python -m wm calibrate MODEL` prints.

    Raises:
        UserError: the model is unknown or not there yet, none of its data were collected by a random policy, or a
            temperature is not positive.
    """
    everything.entry("models", name)
    if not (RUNS / name / "train_mdn" / "mdnrnn.json").exists():
        raise UserError(f"model {name!r} has no M in runs/ yet: run `dvc repro train_mdn@{name}`")
    collect = everything.experiments[everything.models[name].experiment].collect
    lines = [f"{name}: the random policy in the world: {world(RUNS / name / 'collect')}"]
    for tau in taus:
        lines.append(f"tau {tau:<5g} in M's dream: {dream(RUNS / name, tau, episodes, collect.stall)}")
    seen = ends(load_mdnrnn(RUNS / name / "train_mdn"), EpisodeSet(RUNS / name / "encode"))
    return "\n".join([*lines, seen] if seen else lines)


def world(collected: Path) -> Lives:
    """What a random policy did in the world, from the manifest of its data set.

    Raises:
        UserError: an agent collected all of it.
        DamagedData: there is no whole manifest.
    """
    random = [episode for episode in EpisodeSet(collected).episodes if "actor" not in episode]
    if not random:
        raise UserError(f"all episodes of {collected} were driven by an agent: there is nothing to compare with")
    return Lives(*(np.array([episode[key] for episode in random], float) for key in ("score", "length")))


def dream(model: Path, tau: float, episodes: int, stall: int = 0) -> Lives:
    """The random policy in `episodes` dreams of a model at temperature `tau`.

    A policy that looks at what it sees is given blank frames.

    Args:
        stall: a dream also ends after so many steps without a positive reward, as `collect` ends episodes; 0: never.
    Raises:
        UserError: tau is not positive.
    """
    if not tau > 0:
        raise UserError(f"--tau is {tau:g}: a temperature is a positive number")
    count = min(SIDE_BY_SIDE, episodes)
    dreams = Dreams(model, tau, count, "features", None, None, None)
    numbers = seeds.episodes(0, seeds.Purpose.EXPLORATION, 1, count=episodes)
    policies = [dreams.world.explorer(np.random.default_rng(number)) for number in numbers]
    scores, lengths, blank = np.zeros(episodes), np.zeros(episodes, int), np.zeros(FRAME_SHAPE, np.uint8)
    running, idle = np.arange(count), np.zeros(count, int)  # the episode of each slot, or -1
    still = np.zeros(len(dreams.low), np.float32)
    for slot in running:
        dreams.begin(slot, numbers[slot])
    progress, following = bar(episodes, f"tau {tau:g}", "dream"), count
    while (active := np.flatnonzero(running >= 0)).size:
        acts = [policies[index](blank) if index >= 0 else still for index in running]
        rew, end, trunc = dreams.step(np.stack(acts))
        scores[running[active]] += rew[active]
        lengths[running[active]] += 1
        idle = np.where(rew > 0, 0, idle + 1)
        over = end | trunc | ((0 < stall) & (stall <= idle))
        for slot in active[over[active]]:
            progress.update()
            running[slot], idle[slot] = (following if following < episodes else -1), 0
            if following < episodes:
                dreams.begin(slot, numbers[following])
                following += 1
    progress.close()
    return Lives(scores, lengths)


@torch.inference_mode()
def ends(memory: MDNRNN, latents: EpisodeSet) -> str:
    """How many true ends of held-out episodes M sees, and how often it sees one where there is none; "" where M has no
    done head or no held-out episode ended for good."""
    if memory.done is None:
        return ""
    found = missed = false = other = 0
    for index in latents.held_out[:HELD_OUT]:
        steps = latents.episodes[index]["length"]
        window = Streams(latents, [index], 1, steps, np.random.default_rng(0)).next()
        z, act, restart = window.mu[:, :-1].transpose(0, 1), window.act.transpose(0, 1), window.restart.t()
        h, _ = memory.lstm.unroll(memory.inputs(z, act, restart), memory.initial_state(1), restart)
        said, true = (memory.heads(h)[2].flatten() > 0).numpy(), window.end.flatten().numpy() > 0
        found, missed = found + int((said & true).sum()), missed + int((~said & true).sum())
        false, other = false + int((said & ~true).sum()), other + int((~true).sum())
    if not found + missed:
        return ""
    return (
        f"M sees {found} of {found + missed} ends of held-out episodes, and one where there is none in "
        f"{1000 * false / max(1, other):.2f} of 1,000 steps"
    )


def _pm(values: np.ndarray) -> str:
    return f"{values.mean():.0f} ± {values.std():.0f}"
