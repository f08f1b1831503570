"""Is M's dream as hard as the world? Those who collected the data, put into the dream at several temperatures.

No new episode of the world is needed: how long the random policy and the collecting agent lived there is in the data
set. Where they live longer in the dream than in the world, so will every agent, and the dream teaches the wrong thing
(paper, section 4.5). The temperature at which the agent lives as long in both is where a sweep should start; the random
policy alone can't tell, since it dies of what even a dream that is too easy ends. Beside it: how likely M says an end
is, and how often one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm.core import seeds, weights
from wm.core.episodes import EpisodeSet
from wm.core.errors import UserError
from wm.core.journal import bar
from wm.gym.dream import Dreams
from wm.models.ends import EPISODES, Reliability, foreseen, probabilities
from wm.models.mdnrnn import MDNRNN, load_mdnrnn
from wm.params import Params
from wm.pictures import figures
from wm.play import agent as agents
from wm.play import rollout
from wm.play.agent import Agent
from wm.run import RUNS
from wm.worlds.base import FRAME_SHAPE

TAUS = (0.5, 1.0, 1.15, 1.3, 1.6, 2.0)
SIDE_BY_SIDE = 32


@dataclass(frozen=True)
class Lives:
    """Scores and lengths of episodes, each [N]."""

    scores: np.ndarray
    lengths: np.ndarray

    def __str__(self) -> str:
        error = self.scores.std() / len(self.scores) ** 0.5
        score = f"score {_pm(self.scores)} (standard error {error:.0f})"
        return f"{score}, {_pm(self.lengths)} steps, {len(self.scores)} episodes"


@dataclass(frozen=True)
class Collector:
    """The agent that collected, with the disturbance of its actions."""

    agent: Agent
    params: np.ndarray
    sampled: bool
    noise: float
    digest: str

    @classmethod
    def of(cls, everything: Params, model: str) -> Collector | None:
        """The one that drove in the newest round of `model`; None where there was none, or it is not here."""
        entry = everything.models[model]
        folder = RUNS / entry.actor / "evolve"
        if not weights.exists(folder, weights.CONTROLLER_KIND):
            return None
        agent, params, about = agents.load(folder)
        noise = everything.experiments[entry.experiment].collect.noise
        return cls(agent, params, about["sampled"], noise, agents.AgentFiles.read(folder).digest)


def report(everything: Params, name: str, taus: Sequence[float] = TAUS, episodes: int = 200) -> str:
    """What `python -m wm results calibration MODEL` prints; writes the reliability diagram NAME_ends.png.

    Raises:
        UserError: the model is unknown or not there yet, none of its data were collected by a random policy, or a
            temperature is not positive.
    """
    everything.entry("models", name)
    if not (RUNS / name / "train_mdn" / "mdnrnn.json").exists():
        raise UserError(f"model {name!r} has no M in runs/ yet: run `dvc repro train_mdn@{name}`")
    stall = everything.experiments[everything.models[name].experiment].collect.stall
    who: dict[str, Any] = {"the random policy": None}
    collector = Collector.of(everything, name)
    lived = {"the random policy": world(RUNS / name / "collect")}
    if collector and (lives := world(RUNS / name / "collect", collector.digest)):
        who, lived = {**who, "the agent that collected": collector}, {**lived, "the agent that collected": lives}
    lines = [f"{name}: {label} in the world: {lives}" for label, lives in lived.items()]
    dreamed = {}
    for tau in taus:
        for label, actor in who.items():
            dreamed[tau] = dream(RUNS / name, tau, episodes, stall, actor)
            whose = f" ({label})" if len(who) > 1 else ""
            lines.append(f"tau {tau:<5g} in M's dream{whose}: {dreamed[tau]}")
    lines.append(suggestion(*list(lived.items())[-1], dreamed))
    seen = ends(load_mdnrnn(RUNS / name / "train_mdn"), EpisodeSet(RUNS / name / "encode"), Path(f"{name}_ends.png"))
    return "\n".join([*lines, seen] if seen else lines)


def suggestion(label: str, lived: Lives, dreamed: dict[float, Lives]) -> str:
    """The temperature at which `label` lives as long in the dream as in the world, of those that were tried."""
    tau = min(dreamed, key=lambda tau: abs(np.log(dreamed[tau].lengths.mean() / lived.lengths.mean())))
    (dream_mean, dream_error), (mean, error) = (
        (lives.lengths.mean(), 1.96 * lives.lengths.std() / len(lives.lengths) ** 0.5)
        for lives in (dreamed[tau], lived)
    )
    agree = "agree" if abs(dream_mean - mean) <= dream_error + error else "do not agree"
    return (
        f"tau {tau:g} is nearest: {label} lives {dream_mean:.0f} ± {dream_error:.0f} steps in the dream and "
        f"{mean:.0f} ± {error:.0f} in the world (means, 95%), which {agree}"
    )


def world(collected: Path, digest: str | None = None) -> Lives | None:
    """What a random policy did in the world, or the agent `digest` (None where that did nothing), from the manifest of
    its data set.

    Raises:
        UserError: the random policy is asked for, and agents collected all of it.
        DamagedData: there is no whole manifest.
    """
    chosen = [episode for episode in EpisodeSet(collected).episodes if episode.get("actor") == digest]
    if not chosen and digest is None:
        raise UserError(f"all episodes of {collected} were driven by an agent: there is nothing to compare with")
    return Lives(*(np.array([e[key] for e in chosen], float) for key in ("score", "length"))) if chosen else None


def dream(model: Path, tau: float, episodes: int, stall: int = 0, collector: Collector | None = None) -> Lives:
    """The random policy, or the agent that collected, in `episodes` dreams of a model at temperature `tau`; ends are
    drawn. The agent is shown V's pictures of the dream; a random policy that looks at what it sees, blank frames.

    Args:
        stall: a dream also ends after so many steps without a positive reward, as `collect` ends episodes; 0: never.
    Raises:
        UserError: tau is not positive.
    """
    if not tau > 0:
        raise UserError(f"--tau is {tau:g}: a temperature is a positive number")
    count = min(SIDE_BY_SIDE, episodes)
    dreams = Dreams(model, tau, count, "frame" if collector else "features", None, None, None)
    numbers = seeds.episodes(0, seeds.Purpose.EXPLORATION, 1, count=episodes)
    driver = _driver(dreams, count, collector)
    scores, lengths, blank = np.zeros(episodes), np.zeros(episodes, int), np.zeros((count, *FRAME_SHAPE), np.uint8)
    running, idle = np.arange(count), np.zeros(count, int)  # the episode of each slot, or -1
    acts = np.zeros((count, len(dreams.low)), np.float32)

    def begin(slot: int) -> None:
        dreams.begin(slot, numbers[running[slot]])
        driver.begin(slot, (0, numbers[running[slot]]))

    for slot in running:
        begin(slot)
    progress, following = bar(episodes, f"tau {tau:g}", "dream"), count
    while (active := np.flatnonzero(running >= 0)).size:
        frames = dreams.observe() if collector else blank
        acts[active] = driver.act(frames[active], active)
        rew, end, trunc = dreams.step(acts)
        scores[running[active]] += rew[active]
        lengths[running[active]] += 1
        idle = np.where(rew > 0, 0, idle + 1)
        over = end | trunc | ((0 < stall) & (stall <= idle))
        for slot in active[over[active]]:
            progress.update()
            running[slot], idle[slot] = (following if following < episodes else -1), 0
            if following < episodes:
                begin(slot)
                following += 1
    progress.close()
    return Lives(scores, lengths)


def _driver(dreams: Dreams, slots: int, collector: Collector | None) -> rollout.Driver:
    if collector is None:
        return rollout.ExplorerDriver(dreams.world, slots)
    return rollout.AgentDriver(collector.agent, collector.params[None], slots, collector.sampled, collector.noise)


def ends(memory: MDNRNN, latents: EpisodeSet, picture: Path) -> str:
    """How many true ends of held-out episodes M sees, and how often it sees one where there is none; how far p(end) is
    from the share of ends, of which `picture` is written. "" where M has no done head or no held-out episode ended."""
    if memory.done is None:
        return ""
    logits, true = foreseen(memory, latents, latents.held_out[:EPISODES], 0)
    if not true.any():
        return ""
    said, plain, measured = logits > 0, np.log(memory.config.done_weight), memory.end_shift
    before, after = (Reliability.of(probabilities(logits, by), true) for by in (plain, measured))
    figures.reliability(after.predicted, after.observed, after.steps, picture)
    false = 1000 * (said & ~true).sum() / max(1, (~true).sum())
    return (
        f"M sees {(said & true).sum()} of {true.sum()} ends of held-out episodes, and one where there is none in "
        f"{false:.2f} of 1,000 steps\n"
        f"p(end) there, where {1000 * true.mean():.3f} of 1,000 steps end: expected calibration error "
        f"{1000 * after.error:.3f} in 1,000 with the shift {measured:.3f} of M's record, "
        f"{1000 * before.error:.3f} with ln done_weight = {plain:.3f}; diagram: {picture}"
    )


def _pm(values: np.ndarray) -> str:
    return f"{values.mean():.0f} ± {values.std():.0f}"
