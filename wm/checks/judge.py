"""Verdicts on a set, from what was measured of its episodes (`wm.checks.measures`).

Most limits come from the set itself: a fault is in a few episodes, so three in four show how the world is. What the
world declares (`wm.checks.config.Given`) counts whatever the others show.

E episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm.checks.config import ChecksConfig, Given
from wm.checks.measures import EDGE, LOOKS, Measures
from wm.checks.repeats import Repeats, find
from wm.checks.verdicts import Check, Found

ROOM = {
    "light": (16.0, 3.0), "red_green": (0.75, 4.0), "red_blue": (0.75, 4.0), "green_blue": (0.75, 4.0),
    "grain": (1.0, 5.0), "top_bottom": (20.0, 4.0), "change": (8.0, 10.0),
}  # fmt: skip
"""How far beyond the middle half of the episodes a look may go: at least so much, in 1/255, and so many widths of that
half. What 200 sound episodes of CarRacing and of Doom each need: light 11 or 1.0, colours 0.2 or 1.5, grain 0.7 or 1.1,
top_bottom 13 or 3.1, change 3 or 6.3."""
UPRIGHT = 0.9
"""Distance of a mean picture that stands on its head to the others', against its own: 0.97 and more of sound episodes."""
SEAM = 0.5
"""Sharpness of a row in the mean of all frames beyond the others', in 1/255: 0.42 in sound CarRacing."""
REST = 16
"""Times as long as usual for which a picture may stand still where that is usual: a lander rested 12 times as long."""
FEW = 8
"""Episodes from which on they can be compared with each other."""


class Set:
    """A set under judgement."""

    def __init__(self, measured: Measures, given: Given, config: ChecksConfig, seeds: Sequence[int | None]):
        self.measured, self.given, self.config, self.seeds = measured, given, config, seeds
        self.count = len(measured.figures)
        self.repeats: Repeats = find(measured)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.measured.column(name)

    def usual(self, flags: np.ndarray) -> bool:
        """Whether so many episodes [E] have a thing that it is how the world is."""
        return self.count >= FEW and flags.mean() > self.config.common

    def limit(self, values: np.ndarray, floor: float, reach: float) -> float:
        """The largest usual value: `floor`, or `reach` widths, above the middle half of the episodes."""
        low, high = np.quantile(values, [0.25, 0.75], method="higher")
        return float(high + max(floor, reach * (high - low)))

    def found(self, flags: np.ndarray, figures: np.ndarray, at: np.ndarray | str, worst: Any, why: Any) -> list:
        """The episodes with a flag, the worst first."""
        at = self[at] if isinstance(at, str) else at
        worst = np.broadcast_to(worst, flags.shape)
        order = [int(i) for i in np.lexsort((-np.abs(figures), ~worst)) if flags[i]]
        return [
            Found(
                episode=i, at=int(at[i]), figure=round(float(figures[i]), 4), worst=bool(worst[i]),
                why=why(figures[i]) if callable(why) else why[i],
                seed=self.seeds[i],
            )
            for i in order
        ]  # fmt: skip


def judge(measured: Measures, given: Given, config: ChecksConfig, seeds: Sequence[int | None]) -> list[Check]:
    """Every check of a set of episodes.

    Args:
        seeds: of each episode; None where it has none.
    """
    data = Set(measured, given, config, seeds)
    checks = (blank, frozen, repeated, torn, order, unlike, rewards, lengths, actions, copies)
    return [check(data) for check in checks]


def _check(
    name: str,
    data: Set,
    found: Sequence[Found],
    figures: np.ndarray,
    at: np.ndarray | str,
    limit: float | None,
    unit: str,
    well: str,
    ill: str,
) -> Check:
    """Fails where an episode does so alone, warns where one is concerned; `figures` and `at` are of all, [E]."""
    verdict = "fail" if any(one.worst for one in found) else "warn" if found else "pass"
    worst, places = int(np.argmax(figures)), data[at] if isinstance(at, str) else at
    where = (found[0].episode, found[0].at) if found else (worst, int(places[worst]))
    return Check(
        name=name, verdict=verdict, figure=round(float(found[0].figure if found else figures[worst]), 4),
        limit=None if limit is None or not np.isfinite(limit) else round(float(limit), 4), unit=unit,
        said=f"{ill}: {found[0].why}" if found else well, where=where, episodes=tuple(found),
    )  # fmt: skip


def blank(data: Set) -> Check:
    """Frames of one colour. A game may show one at a start or a loss of life, and then shows it in many episodes."""
    many, lengths = data["blank"], data["length"]
    flags = many > 0
    if not data.given.steady and data.usual(flags):
        flags = many == lengths if (many == lengths).mean() > 0.5 else np.zeros_like(flags)
    worst = data.given.steady | ((many == lengths) & (lengths >= FEW))
    found = data.found(flags, many, "blank_at", worst, lambda n: f"{n:.0f} frames of one colour")
    return _check(
        "blank", data, found, many, "blank_at", 0, "frames", "no blank frame that is not usual", "blank frames"
    )


def frozen(data: Set) -> Check:
    """A picture that stands still. Fails where the world says that it cannot, or where actions changed meanwhile and
    in this world that always shows."""
    still, given = data["still"], data.given
    usual = float(np.quantile(still, 0.75, method="higher"))
    limit = (
        float(given.still) if given.still is not None else max(data.config.still, 4 * usual + 2 * REST * (usual > 0))
    )
    shown = np.quantile(data["acts_changed_still"] / np.maximum(data["acts_changed"], 1), 0.75) <= 0.01
    worst = given.still is not None or (data["still_acts"] >= 3) & bool(shown)
    found = data.found(still > limit, still, "still_at", worst, lambda n: f"{n:.0f} steps without any change")
    return _check(
        "frozen",
        data,
        found,
        still,
        "still_at",
        limit,
        "steps",
        "pictures move as is usual here",
        "a picture stands still",
    )


def repeated(data: Set) -> Check:
    """Frames in a row that were at other steps elsewhere. Worlds of few states repeat themselves everywhere; beginnings
    that all episodes share are no fault."""
    length, at = data.repeats.block, data.repeats.block_at
    limit = max(data.config.block - 1.0, data.limit(length, 0, 3.0))
    worst = data.given.steady or np.quantile(length, 0.75) < 2
    found = data.found(length > limit, length, at, worst, lambda n: f"{n:.0f} frames in a row are elsewhere too")
    return _check(
        "repeated", data, found, length, at, limit, "frames", "no block of frames comes back", "frames are repeated"
    )


def torn(data: Set) -> Check:
    """Frames of two moments: a part is exactly another frame's, or flashes up, or there is a straight edge, which comes
    and goes or is in all frames. Where parts of a picture stand still, that says nothing."""
    parts, steady, single = data.repeats.parts, data.given.steady, data.repeats.single
    limit = data.limit(parts / data["length"], 0, 5.0) * data["length"] + data.config.borrowed
    always, zero = _always(data), np.zeros(data.count)
    signs = [
        (parts / limit, data.repeats.parts_at, "frames have a part of another one"),
        (data["glitch"] / data.limit(data["glitch"], 2.0, 4.0), data["glitch_at"], "a part of frames flashes up"),
        (data["seam"] / data.limit(data["seam"], 1.0, 4.0), data["seam_at"], "an edge through frames comes and goes"),
        (always / data.limit(always, SEAM, 8.0), zero, "an edge is in all frames"),
    ]
    shares = np.stack([sign[0] for sign in signs])
    first, excess = shares.argmax(0), shares.max(0)
    at = np.stack([sign[1] for sign in signs])[first, np.arange(data.count)]
    flags = (excess > 1) & (steady or single > 0.5)
    worst = ((shares[0] > 1) & (single > 0.9)) | (steady & (excess > data.config.sure))
    found = data.found(flags, excess, at, worst, [signs[i][2] for i in first])
    return _check("torn", data, found, excess, at, 1, "times", "every frame is of one moment", "torn frames")


def _always(data: Set) -> np.ndarray:
    """How much sharper a row is than those beside it in the mean of an episode's frames, beyond what it is elsewhere."""
    more = data.measured.seams - np.median(data.measured.seams, 0)
    wide = np.pad(more, ((0, 0), (2, 2)))
    beside = np.max([wide[:, shift : shift + more.shape[1]] for shift in (0, 1, 3, 4)], 0)
    return (more - np.maximum(beside, 0))[:, EDGE:-EDGE].max(1)


def order(data: Set) -> Check:
    """Neighbouring frames resemble each other less than usual."""
    share = data["order"]
    moving = share[share > 0]
    limit = data.limit(moving, data.config.order, 4.0) if len(moving) >= FEW else np.inf
    limit = limit if data.given.steady else max(limit, 0.95)
    worst = (
        data.given.steady & (share - np.median(moving) > data.config.sure * (limit - np.median(moving)))
        if len(moving)
        else False
    )
    found = data.found(
        share > limit, share, "order_at", worst, lambda n: f"a step changes {n:.2f} of what two steps do"
    )
    return _check(
        "order", data, found, share, "order_at", limit, "share", "frames follow each other", "frames are out of order"
    )


def unlike(data: Set) -> Check:
    """Frames that look as in no other episode: eight of them have to, since one may be a flash."""
    excess = np.zeros(data.count)
    where, what = np.zeros(data.count), np.zeros(data.count, int)
    for index, name in enumerate(LOOKS):
        for side, sign in (("low", -1.0), ("high", 1.0)):
            values = sign * data[f"{name}_{side}"]
            low, high = np.quantile(values, [0.25, 0.75], method="higher")
            floor, widths = ROOM[name]
            beyond = (values - high) / (data.config.reach * max(floor, widths * (high - low)))
            more = beyond > excess
            where = np.where(more, data[f"{name}_{side}_at"], where)
            what, excess = np.where(more, index, what), np.where(more, beyond, excess)
    turned = _turned(data)
    excess, where = np.maximum(excess, turned), np.where(turned > excess, 0, where)
    what = np.where(turned == excess, len(LOOKS), what) if turned.any() else what
    flags = (excess > 1.0) & (data.count >= FEW)
    words = {
        i: (*LOOKS, "that they stand on their heads")[what[i]].replace("_", " against ") for i in range(data.count)
    }
    worst = data.given.steady & (excess > data.config.sure)
    found = data.found(flags, excess, where, worst, lambda n: f"{n:.1f} times as far as any usual episode")
    ill = f"frames are unlike the rest in {words[found[0].episode]}" if found else ""
    return _check("unlike", data, found, excess, where, 1, "times", "all episodes look alike", ill)


def _turned(data: Set) -> np.ndarray:
    """Above 1 of episodes [E] whose mean picture is like the others' when it stands on its head."""
    pictures = data.measured.pictures
    middle = np.median(pictures, 0)
    own, head = (((part - middle) ** 2).mean((1, 2, 3)) for part in (pictures, pictures[:, ::-1]))
    share = head / np.maximum(own, 1e-9)
    if np.quantile(share, 0.25) < 1 / UPRIGHT:  # of a world without top and bottom nobody can tell
        return np.zeros(data.count)
    return np.where(share < UPRIGHT, UPRIGHT / np.maximum(share, 1e-9), 0.0)


def rewards(data: Set) -> Check:
    """Rewards that are no numbers, or outside what the world can give; and those unlike the other episodes'."""
    given, faults = data.given, {}
    low, high = given.rewards or (-np.inf, np.inf)
    room = 1e-4 * max(1.0, *(abs(x) for x in (low, high) if np.isfinite(x)), 1.0)
    total = given.scores or (-np.inf, np.inf)
    _note(faults, data["rew_bad"] > 0, data["rew_bad_at"], True, "no finite number")
    _note(faults, data["rew_low"] < low - room, data["rew_low_at"], True, f"a reward below {low:g}")
    _note(faults, data["rew_high"] > high + room, data["rew_high_at"], True, f"a reward above {high:g}")
    slack = 1e-3 * data["length"] + 1e-3 * np.abs(data["rew_sum"])
    _note(faults, (data["rew_sum"] < total[0] - slack) | (data["rew_sum"] > total[1] + slack), data["rew_high_at"], True,
          f"a score outside {total[0]:g} to {total[1]:g}")  # fmt: skip
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
    return _check(
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
    given, faults, length = data.given, {}, data["length"]
    _note(faults, data["end_marks"] > 0, np.zeros(data.count), True, "it goes on after its end")
    if given.max_steps:
        _note(faults, length > given.max_steps, length - 1, True, f"longer than {given.max_steps} steps")
        stalled = (given.stall > 0) & (data["idle"] >= given.stall)
        cut = (data["ended"] == 0) & (length < given.max_steps) & ~stalled
        if given.steady or not data.usual(cut):
            _note(faults, cut, length - 1, given.steady, "it stops without an end")
    found = _noted(data, faults, length)
    return _check(
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
    """Actions that are no numbers or outside their bounds; and how much of these the set covers."""
    given, faults = data.given, {}
    _note(faults, data["act_bad"] > 0, data["act_bad_at"], True, "no finite number")
    _note(faults, data["act_outside"] > 0, data["act_outside_at"], True, "outside their bounds")
    varied = np.quantile(data["acts_changed"] / data["length"], 0.1) > 0.2
    constant = (data["acts_changed"] == 0) & (data["length"] >= 20) & bool(varied)
    if not data.usual(constant):
        _note(faults, constant, np.zeros(data.count), True, "one action all the time")
    low, high = np.nanmin(data.measured.acts[:, 0], 0), np.nanmax(data.measured.acts[:, 1], 0)
    full = np.asarray(given.high) - np.asarray(given.low) if given.low else np.maximum(high - low, 1e-9)
    span = (high - low) / np.maximum(full, 1e-9)
    least = int(span.argmin())
    spans = np.full(data.count, span.min())
    found = _noted(data, faults, spans)
    check = _check("actions", data, found, spans, np.zeros(data.count), data.config.span, "share", f"they cover {span.min():.0%} of their range or more",
                   "actions")  # fmt: skip
    if found or span.min() >= data.config.span or data["length"].sum() < 200:
        return check
    verdict = "fail" if span.min() < 0.01 else "warn"
    said = f"number {least} of an action covers {span.min():.0%} of its range, so that nobody learns what it does"
    return Check(**{**vars(check), "verdict": verdict, "said": said})


def copies(data: Set) -> Check:
    """The same episode twice, whole or nearly so, or its beginning."""
    keys, whole = data.measured.keys.T
    begun = (keys > 0) & _twice(keys)
    share = np.where(_twice(whole), 1.0, data.repeats.shared)
    limit = max(data.config.alike, min(data.limit(share, 0.2, 3.0), 1.0 if data.given.steady else 9.0))
    long = data["length"] >= 20
    flags = ((share >= limit) | (begun & ~data.usual(begun))) & long
    words = ["its actions begin as another's" if n < limit else f"{n:.0%} of its frames are another's" for n in share]
    found = data.found(flags, share, np.zeros(data.count), True, words)
    return _check(
        "copies", data, found, share, np.zeros(data.count), limit, "share", "no episode is another's copy", "copies"
    )


def _twice(keys: np.ndarray) -> np.ndarray:
    """Which of these numbers are there more than once."""
    values, counts = np.unique(keys, return_counts=True)
    return np.isin(keys, values[counts > 1])


def _note(faults: dict, flags: np.ndarray, at: np.ndarray, worst: bool, why: str) -> None:
    for index in np.flatnonzero(flags):
        faults.setdefault(int(index), (int(at[index]), worst, why))


def _noted(data: Set, faults: dict[int, tuple[int, bool, str]], figures: np.ndarray) -> list[Found]:
    return [
        Found(episode=i, at=at, figure=round(float(figures[i]), 4), worst=worst, why=why, seed=data.seeds[i])
        for i, (at, worst, why) in sorted(faults.items(), key=lambda item: (not item[1][1], item[0]))
    ]
