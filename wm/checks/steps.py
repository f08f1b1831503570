"""Checks of rewards, lengths, actions, and of whole episodes.

E episodes.
"""

from __future__ import annotations

import numpy as np

from wm.checks.sets import FEW, Set, outcome
from wm.core.verdicts import Check, FaultyEpisode

Faults = dict[int, tuple[int, bool, str]]
"""Episode -> step, whether that is enough to fail, and why."""


def rewards(data: Set) -> Check:
    """Rewards that are no numbers, or outside what the world can give; and those unlike the other episodes'."""
    given = data.given
    faults: Faults = {}
    low, high = given.rewards or (-np.inf, np.inf)
    room = 1e-4 * max(1.0, *(abs(x) for x in (low, high) if np.isfinite(x)), 1.0)
    total = given.scores or (-np.inf, np.inf)
    _note(faults, data["rew_bad"] > 0, data["rew_bad_at"], True, "no finite number")
    _note(faults, data["rew_low"] < low - room, data["rew_low_at"], True, f"a reward below {low:g}")
    _note(faults, data["rew_high"] > high + room, data["rew_high_at"], True, f"a reward above {high:g}")
    slack = 1e-3 * data["length"] + 1e-3 * np.abs(data["rew_sum"])
    beyond = (data["rew_sum"] < total[0] - slack) | (data["rew_sum"] > total[1] + slack)
    _note(faults, beyond, data["rew_high_at"], True, f"a score outside {total[0]:g} to {total[1]:g}")
    if data.count >= FEW:
        values, counts = np.unique(data["rew_most"], return_counts=True)
        most = values[counts.argmax()]
        if counts.max() > (1 - data.config.common) * data.count:
            long = data["length"] >= 20
            _note(faults, (data["rew_most"] != most) & long, np.zeros(data.count), bool(given.rewards),
                  f"most rewards are not {most:.6g}, as elsewhere")  # fmt: skip
        size, kinds = data["rew_size"], data["rew_kinds"]
        if np.quantile(kinds, 0.25) >= 10:
            flat = (kinds <= 2) & (data["length"] >= 20)
            _note(faults, flat, np.zeros(data.count), False, "all rewards are alike")
            middle = float(np.median(size))
            scaled = (size > 20 * middle) | (size < middle / 20)
            _note(
                faults,
                scaled & (data["length"] >= 20) & (middle > 0),
                np.zeros(data.count),
                False,
                "rewards of another size",
            )
    found = _noted(data, faults, data["rew_sum"])
    return outcome(
        "rewards",
        data,
        found,
        data["rew_high"],
        "rew_high_at",
        given.rewards and high,
        "",
        "finite, and as the world gives them",
        "rewards",
    )


def lengths(data: Set) -> Check:
    """Episodes that are too long, that end in the middle, or that stop for no reason."""
    given, length = data.given, data["length"]
    faults: Faults = {}
    _note(faults, data["end_marks"] > 0, np.zeros(data.count), True, "it goes on after its end")
    if given.max_steps:
        _note(faults, length > given.max_steps, length - 1, True, f"longer than {given.max_steps} steps")
        stalled = (given.stall > 0) & (data["idle"] >= given.stall)
        cut = (data["ended"] == 0) & (length < given.max_steps) & ~stalled
        cut[: data.carried] = False  # their round may have ended them by another `stall`, and has checked them
        if given.steady or not data.usual(cut):
            _note(faults, cut, length - 1, given.steady, "it stops without an end")
    found = _noted(data, faults, length)
    return outcome(
        "lengths",
        data,
        found,
        length,
        np.zeros(data.count),
        given.max_steps,
        "steps",
        "every episode ends as it should",
        "lengths",
    )


def actions(data: Set) -> Check:
    """Actions that are no numbers or outside their bounds; and how much of these the set covers. Where nobody knows
    what a world needs, a button that is never pressed is a warning, and a set without any other action fails."""
    given = data.given
    faults: Faults = {}
    _note(faults, data["act_bad"] > 0, data["act_bad_at"], True, "no finite number")
    _note(faults, data["act_outside"] > 0, data["act_outside_at"], True, "outside their bounds")
    varied = np.quantile(data["acts_changed"] / data["length"], 0.25) > 0.2
    constant = (data["acts_changed"] == 0) & (data["length"] >= 20) & bool(varied)
    if not data.usual(constant):
        _note(faults, constant, np.zeros(data.count), given.steady, "one action all the time")
    low, high = np.nanmin(data.measured.acts[:, 0], 0), np.nanmax(data.measured.acts[:, 1], 0)
    full = np.asarray(given.high) - np.asarray(given.low) if given.low else np.maximum(high - low, 1e-9)
    span = (high - low) / np.maximum(full, 1e-9)
    least = int(span.argmin())
    spans = np.full(data.count, span.min())
    found = _noted(data, faults, spans)
    well = f"they cover {span.min():.0%} of their range or more"
    check = outcome("actions", data, found, spans, np.zeros(data.count), data.config.span, "share", well, "actions")
    if found or span.min() >= data.config.span or data["length"].sum() < 200:
        return check
    verdict = "fail" if (span.min() if given.steady else span.max()) < 0.01 else "warn"
    message = f"number {least} of an action covers {span.min():.0%} of its range, so that nobody learns what it does"
    return Check(**{**vars(check), "verdict": verdict, "message": message})


def copies(data: Set) -> Check:
    """The same episode twice, whole or nearly so, or its beginning. Where nobody knows the world, two seeds may lead to
    one episode, and a player that has learned begins alike: only recordings, which have no seeds, were copied."""
    keys, whole = data.measured.keys.T
    begun = (keys > 0) & _twice(keys)
    long = data["length"] >= 20
    share = np.where(_twice(whole), 1.0, data.repeats.shared) * long
    limit = max(data.config.alike, min(data.limit(share, 0.2, 3.0), 1.0 if data.given.steady else 9.0))
    flags = ((share >= limit) | (begun & ~data.usual(begun))) & long
    words = ["its actions begin as another's" if n < limit else f"{n:.0%} of its frames are another's" for n in share]
    played = np.array([seed is not None for seed in data.seeds])
    worst = data.given.steady | ((share >= limit) & ~played)
    found = data.found(flags, share, np.zeros(data.count), worst, words)
    return outcome(
        "copies", data, found, share, np.zeros(data.count), limit, "share", "no episode is another's copy", "copies"
    )


def _twice(keys: np.ndarray) -> np.ndarray:
    """Which of these numbers are there more than once."""
    values, counts = np.unique(keys, return_counts=True)
    return np.isin(keys, values[counts > 1])


def _note(faults: Faults, flags: np.ndarray, at: np.ndarray, worst: bool, why: str) -> None:
    for index in np.flatnonzero(flags):
        faults.setdefault(int(index), (int(at[index]), worst, why))


def _noted(data: Set, faults: Faults, figures: np.ndarray) -> list[FaultyEpisode]:
    return [
        FaultyEpisode(episode=i, at=at, figure=round(float(figures[i]), 4), worst=worst, why=why, seed=data.seeds[i])
        for i, (at, worst, why) in sorted(faults.items(), key=lambda item: (not item[1][1], item[0]))
    ]
