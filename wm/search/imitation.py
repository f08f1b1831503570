"""A controller for new eyes: the linear map of what C sees now that best gives what the old agent decided.

A round trains V and M further, and the controller that was evolved on the old ones reads numbers that have changed
their meaning. But `collect` keeps what that controller put out at every step of the episodes that it drove, and
`encode` what the new V makes of the same frames, so the new weights are a ridge regression: no episode is played.

Shapes: B episodes, T steps, D numbers that C reads, A actions, P parameters of a controller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from wm.core.episodes import EpisodeSet
from wm.models.controller import ControllerSpec
from wm.models.mdnrnn import MDNRNN

RIDGE = 1e-3
"""Penalty of the squared weights, a step: small beside the features' variance."""
BATCH = 50
"""Episodes that M goes through side by side."""
NEWEST = 100
"""Episodes over which what C reads is averaged."""


def imitate(latents: Path, actor: str, memory: MDNRNN, spec: ControllerSpec) -> np.ndarray | None:
    """The parameters [P] that give the actor's outputs best; None where it collected none of these episodes.

    Args:
        latents: what `encode` wrote with the V that C is to see with.
        actor: digest of the agent (`wm.play.agent.AgentFiles.digest`).
        memory: the M that C is to remember with.
        spec: of C, linear.
    """
    layout = spec.layout
    data = EpisodeSet(latents)
    chosen = [number for number, about in enumerate(data.episodes) if about.get("actor") == actor]
    if layout.hidden or not chosen:
        return None
    size = layout.inputs + int(layout.bias)
    products, moments, steps = np.zeros((size, size)), np.zeros((size, layout.actions)), 0
    for features, episode in _replayed(data, chosen, memory, spec.inputs, ["out"]):
        features = np.concatenate([features, np.ones((len(features), int(layout.bias)))], axis=1)
        products += features.T @ features
        moments += features.T @ episode["out"].astype(np.float64)
        steps += len(features)
    penalty = np.full(size, RIDGE * steps)
    penalty[layout.inputs :] = 0.0
    weights = np.linalg.solve(products + np.diag(penalty), moments)  # [D (+ 1), A]
    return np.concatenate([weights[: layout.inputs].T.ravel(), weights[layout.inputs :].ravel()]).astype(np.float32)


def average(latents: Path, memory: MDNRNN, inputs: tuple[str, ...]) -> np.ndarray:
    """What C reads on average, [D] float64, in the newest episodes (at most `NEWEST`)."""
    total, steps = 0.0, 0
    for features in newest(latents, memory, inputs):
        total, steps = total + features.sum(0), steps + len(features)
    return total / steps


def newest(latents: Path, memory: MDNRNN, inputs: tuple[str, ...]) -> Iterator[np.ndarray]:
    """What C would read, [T, D] float64, in each of the newest episodes (at most `NEWEST`)."""
    data = EpisodeSet(latents)
    for features, _ in _replayed(data, list(range(len(data.episodes)))[-NEWEST:], memory, inputs):
        yield features


def _replayed(
    data: EpisodeSet, chosen: list[int], memory: MDNRNN, inputs: tuple[str, ...], more: Sequence[str] = ()
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Of each chosen episode: what C would have read [T, D] float64, and its columns "mu", "act" and `more`."""
    for start in range(0, len(chosen), BATCH):
        episodes = [data.read(number, ["mu", "act", *more]) for number in chosen[start : start + BATCH]]
        for states, episode in zip(_remembered(memory, episodes), episodes, strict=True):
            states["z"] = episode["mu"].astype(np.float32)
            features = np.concatenate([states[name] for name in inputs], axis=1)
            yield features.astype(np.float64), episode


@torch.inference_mode()
def _remembered(memory: MDNRNN, episodes: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """h and c [T, H] before each step of each episode."""
    lengths = [len(episode["act"]) for episode in episodes]
    z, act = (torch.zeros(len(episodes), max(lengths), size) for size in (memory.z_size, memory.action_size))
    for row, (episode, length) in enumerate(zip(episodes, lengths, strict=True)):
        z[row, :length] = torch.from_numpy(episode["mu"].astype(np.float32))
        act[row, :length] = torch.from_numpy(episode["act"].astype(np.float32))
    state, restart = memory.initial_state(len(episodes)), torch.ones(len(episodes))
    seen = torch.empty(2, len(episodes), max(lengths), memory.config.hidden)
    for step in range(max(lengths)):
        seen[0, :, step], seen[1, :, step] = state
        state = memory.step(z[:, step], act[:, step], state, restart)
        restart = torch.zeros(len(episodes))
    h, c = seen.numpy()
    return [{"h": h[row, :length], "c": c[row, :length]} for row, length in enumerate(lengths)]
