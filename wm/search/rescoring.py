"""Scoring again, on whole episodes that no candidate was trained on, and what is concluded from it.

The mean of the distribution and a generation's best candidate are scored on the selection episodes. From these scores
the journal, the alarm about a dream that is being exploited, and in the end the kept controller follow.

Shapes: P controllers, E episodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from wm.search.config import EvolveConfig
from wm.search.contenders import Contender, Contenders
from wm.search.fitness import Scores


def of_mean(scores: Scores) -> dict[str, float]:
    """The journal's keys about the first of the scored controllers: in the world and, where there is one, a dream."""
    line: dict[str, float] = {}
    for where, each in scores.items():
        line[f"rescored{_suffix(where)}"] = float(each[0].mean())
        line[f"rescored_std{_suffix(where)}"] = float(each[0].std())
    if len(scores) == 2:
        line["dream_reality_gap"] = line["rescored_dream"] - line["rescored"]
    return line


def of_mean_and_best(scores: Scores, reference: dict[str, Any]) -> dict[str, float]:
    """The journal's keys about the mean and the best candidate, the two scored controllers; says an alarm aloud.

    Args:
        reference: the line of the journal with which the dream is compared (`best_in_world`); empty for none.
    """
    line = of_mean(scores)
    line |= {f"rescored_best{_suffix(where)}": float(each[1].mean()) for where, each in scores.items()}
    if len(scores) == 2:
        line["gap_alarm"] = float(exploits(line, reference, scores["world"].shape[1]))
        if line["gap_alarm"]:
            print(
                f"alarm: since generation {reference['step']} the dream's score went from "
                f"{reference['rescored_dream']:.0f} to {line['rescored_dream']:.0f} and the world's from "
                f"{reference['rescored']:.0f} to {line['rescored']:.0f}: the controller exploits the model; a higher "
                "tau makes that harder"
            )
    return line


def exploits(line: dict[str, float], reference: dict[str, Any], episodes: int) -> bool:
    """Whether the dream's score rose and the world's fell, both by more than the standard error over the episodes."""
    if reference.get("rescored_dream") is None:
        return False
    rise, fall = line["rescored_dream"] - reference["rescored_dream"], reference["rescored"] - line["rescored"]
    return bool(rise > line["rescored_std_dream"] / episodes**0.5 and fall > line["rescored_std"] / episodes**0.5)


def best_in_world(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The line of a journal in which the start, or a mean, scored best in the world; {} where none was scored."""
    rescored = [line for line in lines if line.get("rescored") is not None]
    return max(rescored, key=lambda line: line["rescored"], default={})


def select(field: list[Contender], scores: np.ndarray) -> Contender:
    """The final selection: the one of the field with the best of scores [P, E], and its score there.

    What is not finite counts as -inf, which is the score of the selected one where nobody has another.
    """
    means = scores.mean(1)
    means = np.where(np.isfinite(means), means, -np.inf)
    for one, score in zip(field, means, strict=True):
        print(f"final selection: {one.source} of generation {one.generation} scores {score:.1f}")
    best = int(means.argmax())
    return replace(field[best], score=float(means[best]))


def final_episodes(config: EvolveConfig, trusted: bool = True) -> int:
    """Episodes of the world that are played at most after the last generation, of the gauge and the final selection.

    Args:
        trusted: the gauge lets the dream choose, where it should.
    """
    gauged = config.gauge_controllers * config.gauge_episodes if config.dream else 0
    return gauged + (0 if config.dream_decides and trusted else (Contenders.MOST + 1) * config.final_episodes)


def _suffix(where: str) -> str:
    return "" if where == "world" else f"_{where}"
