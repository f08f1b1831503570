"""The same run with several seeds, one after another, and what they say together."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flows import claim, sweep
from flows.variants import Variant
from wm.core.errors import UserError
from wm.records import git


def parse(text: str) -> list[int]:
    """The seeds of "0,1,2".

    Raises:
        UserError: it is something else, or names one twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"\d+", word) for word in words) or len({*map(int, words)}) < len(words):
        raise UserError(f"the seeds are {text!r}: expected numbers that differ, such as 0,1,2")
    return [int(word) for word in words]


def run(agent: str, variant: Variant, seeds: Sequence[int], options: list[str]) -> int:
    """Runs the agent with each seed, then prints the table; the first failure's exit code ends it.

    Args:
        options: of `python -m flows.pipeline`, for all.
    """
    claim.watch_over()  # those that are killed take their run along
    for seed in seeds:
        if code := sweep.run(["flows.pipeline", agent, "--seed", str(seed), *options]):
            return code
    print(table(agent, {seed: replace(variant, seed=seed).branch(agent) for seed in seeds}))
    return 0


def table(agent: str, branches: dict[int, str]) -> str:
    """A line a seed, and the mean over seeds with its 95% t interval.

    Args:
        branches: of the runs, by seed.
    """
    scores = {seed: _score(agent, branch) for seed, branch in branches.items()}
    width = max(len(f"{branch}:{agent}") for branch in branches.values())
    lines = [f"{'seed':>6}  {'run':<{width}}  {'mean':>8}  {'std':>8}"]
    for seed, score in scores.items():
        std = f"{score['std']:.1f}" if "std" in score else ""
        lines.append(f"{seed:>6}  {f'{branches[seed]}:{agent}':<{width}}  {score['mean']:>8.1f}  {std:>8}")
    means = [score["mean"] for score in scores.values()]
    lines.append(f"mean over {len(means)} seeds: {statistics.fmean(means):.1f}{_interval(means)}")
    return "\n".join(lines)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of a mean by Student's t, for two values or more."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def _interval(means: Sequence[float]) -> str:
    if len(means) < 2:
        return ""
    low, high = t_interval(means)
    return f", 95% t interval {low:.1f} to {high:.1f}"


def _score(agent: str, branch: str) -> dict[str, float]:
    text = git.content(Path.cwd(), branch, f"metrics/{agent}.json")
    if text is None:
        raise UserError(f"{branch} has no metrics/{agent}.json: run `wm run {agent}` with its seed")
    return json.loads(text)["score"]
