"""Checks of frames.

E episodes.
"""

from __future__ import annotations

import numpy as np

from wm.checks.measures import EDGE, LOOKS
from wm.checks.sets import FEW, Set, outcome
from wm.core.verdicts import Check

ROOM = {
    "light": (16.0, 3.0), "red_green": (0.75, 4.0), "red_blue": (0.75, 4.0), "green_blue": (0.75, 4.0),
    "grain": (1.0, 3.0), "top_bottom": (20.0, 4.0), "change": (8.0, 10.0),
}  # fmt: skip
"""How far beyond the middle half of the episodes a look may go: at least so much, in 1/255, and so many widths of that
half. What 200 sound episodes of CarRacing and of Doom each need: light 11 or 1.0, colours 0.2 or 1.5, grain 0.7 or 1.1,
top_bottom 13 or 3.1, change 3 or 6.3."""
FAR = 8.0
"""Times the usual reach for frames of which an episode has only some: outside CarRacing's field it is 6.2."""
MANY = 50
"""Episodes from which on a set shows how frames may look that are rare."""
UPRIGHT = 0.9
"""Distance of a mean picture on its head to the others', against its own: 0.97 and more of sound episodes."""
NOISE = 0.8
"""Share of the change in one step in that in two from which on a picture flickers too much to see its order."""
SEAM = 0.5
"""Sharpness of a row in the mean of all frames beyond the others', in 1/255: 0.42 in sound CarRacing."""
REST = 16
"""Times as long as usual for which a picture may stand still where that is usual: a lander rested 12 times as long."""


def blank(data: Set) -> Check:
    """Frames of one colour. A game may show one at a start or a loss of life, and then shows it in many episodes."""
    many, lengths = data["blank"], data["length"]
    flags = many > 0
    if not data.given.steady and data.usual(flags):
        flags = many == lengths if (many == lengths).mean() > 0.5 else np.zeros_like(flags)
    worst = data.given.steady | ((many == lengths) & (lengths >= FEW))
    found = data.found(flags, many, "blank_at", worst, lambda n: f"{n:.0f} frames of one colour")
    return outcome(
        "blank", data, found, many, "blank_at", 0, "frames", "no blank frame that is not usual", "blank frames"
    )


def frozen(data: Set) -> Check:
    """A picture that stands still. Fails where the world says that it cannot, or where it never moves in an episode of
    a world that moves; where all episodes are drawn alike, also where actions changed meanwhile and that always shows.
    Else it may be how the world is: a lander that left the picture, a wall in a maze."""
    still, given = data["still"], data.given
    usual = float(np.quantile(still, 0.75, method="higher"))
    limit = (
        float(given.still) if given.still is not None else max(data.config.still, 4 * usual + 2 * REST * (usual > 0))
    )
    whole = (still == data["length"] - 1) & (still >= FEW) & (data["still_acts"] > 0)
    shown = np.quantile(data["acts_changed_still"] / np.maximum(data["acts_changed"], 1), 0.75) <= 0.01
    ignored = (data["still_acts"] >= 3) & bool(shown) & given.steady
    worst = given.still is not None or whole | ignored
    found = data.found(still > limit, still, "still_at", worst, lambda n: f"{n:.0f} steps without any change")
    return outcome(
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
    length, at, steady = data.repeats.block, data.repeats.block_at, data.given.steady
    if not steady and data.repeats.again > 0.5:
        length = np.zeros_like(length)
    limit = max(data.config.block - 1.0, data.limit(length, 0, 3.0))
    worst = steady & (length > data.config.sure * limit)
    found = data.found(length > limit, length, at, worst, lambda n: f"{n:.0f} frames in a row are elsewhere too")
    well, ill = "no block of frames comes back", "frames are repeated"
    return outcome("repeated", data, found, length, at, limit, "frames", well, ill)


def torn(data: Set) -> Check:
    """Frames of two moments: a part is exactly another frame's, or flashes up, or there is a straight edge, which comes
    and goes or is in all frames. Where parts of a picture stand still, that says nothing."""
    parts, steady, single = data.repeats.parts, data.given.steady, data.repeats.single
    limit = data.limit(parts / data["length"], 0, 5.0) * data["length"] + data.config.borrowed
    always, zero = _always(data), np.zeros(data.count)
    signs = [
        (parts / limit, data.repeats.parts_at, "frames have a part of another one"),
        (
            data["glitch"] / data.limit(np.maximum(data["glitch"], 0), 2.0, 4.0),
            data["glitch_at"],
            "a part of frames flashes up",
        ),
        (data["seam"] / data.limit(data["seam"], 1.0, 4.0), data["seam_at"], "an edge through frames comes and goes"),
        (always / (data.config.sure * data.limit(always, SEAM, 8.0)), zero, "an edge is in all frames"),
    ]
    shares = np.stack([sign[0] for sign in signs])
    first, excess = shares.argmax(0), shares.max(0) * (steady or single > 0.5)
    at = np.stack([sign[1] for sign in signs])[first, np.arange(data.count)]
    worst = (excess > data.config.sure) & steady
    flags = (excess > 1) & (worst | (data.count >= MANY))
    found = data.found(flags, excess, at, worst, [signs[i][2] for i in first])
    return outcome("torn", data, found, excess, at, 1, "times", "every frame is of one moment", "torn frames")


def _always(data: Set) -> np.ndarray:
    """How much sharper a row is than those beside it in the mean of an episode's frames, beyond the other episodes'."""
    more = data.measured.seams - np.median(data.measured.seams, 0)
    wide = np.pad(more, ((0, 0), (2, 2)))
    beside = np.max([wide[:, shift : shift + more.shape[1]] for shift in (0, 1, 3, 4)], 0)
    return (more - np.maximum(beside, 0))[:, EDGE:-EDGE].max(1)


def order(data: Set) -> Check:
    """Neighbouring frames resemble each other less than usual."""
    share = data["order"]
    moving = share[share > 0]
    told = len(moving) >= FEW and np.median(moving) < NOISE
    limit = data.limit(moving, data.config.order, 4.0) if told else np.inf
    limit = limit if data.given.steady else max(limit, 0.95)
    middle = np.median(moving) if len(moving) else 0.0
    worst = data.given.steady & (share - middle > data.config.sure * (limit - middle))
    found = data.found(
        share > limit, share, "order_at", worst, lambda n: f"a step changes {n:.2f} of what two steps do"
    )
    return outcome(
        "order", data, found, share, "order_at", limit, "share", "frames follow each other", "frames are out of order"
    )


def unlike(data: Set) -> Check:
    """Frames that look as in no other episode: eight of them have to, since one may be a flash.

    Fails where all frames of an episode lie outside what most others show: some may be a rare place or a hit, so for
    them it warns, and only in a set that is large enough to have shown what is rare.
    """
    excess, whole = np.zeros(data.count), np.zeros(data.count)
    where, what = np.zeros(data.count), np.zeros(data.count, int)
    for index, name in enumerate(LOOKS):
        for side, other, sign in (("low", "high", -1.0), ("high", "low", 1.0)):
            values = sign * data[f"{name}_{side}"]
            low, high = np.quantile(values, [0.25, 0.75], method="higher")
            floor, widths = ROOM[name]
            room = data.config.reach * max(floor, widths * (high - low))
            if data.count >= MANY:
                beyond = (values - high) / (FAR * room)
                more = beyond > excess
                where = np.where(more, data[f"{name}_{side}_at"], where)
                what, excess = np.where(more, index, what), np.where(more, beyond, excess)
            beyond = 1 + (sign * data[f"{name}_{other}"] - high) / max(floor, high - low)
            what = np.where((beyond > 1) & (beyond > whole) & (excess <= 1), index, what)
            whole = np.maximum(whole, beyond)
    turned = _turned(data)
    excess, where = np.maximum(excess, turned), np.where(turned > excess, 0, where)
    what = np.where(turned == excess, len(LOOKS), what) if turned.any() else what
    flags = ((excess > 1.0) | (whole > 1.0)) & (data.count >= FEW)
    words = {
        i: (*LOOKS, "that they stand on their heads")[what[i]].replace("_", " against ") for i in range(data.count)
    }
    worst = data.given.steady & ((whole > data.config.sure) | (turned > data.config.sure))
    excess = np.maximum(excess, whole)
    found = data.found(flags, excess, where, worst, lambda n: f"{n:.1f} times as far as any usual episode")
    ill = f"frames are unlike the rest in {words[found[0].episode]}" if found else ""
    return outcome("unlike", data, found, excess, where, 1, "times", "all episodes look alike", ill)


def _turned(data: Set) -> np.ndarray:
    """Above 1 of episodes [E] whose mean picture is like the others' when it stands on its head."""
    pictures = data.measured.pictures
    middle = np.median(pictures, 0)
    own, head = (((part - middle) ** 2).mean((1, 2, 3)) for part in (pictures, pictures[:, ::-1]))
    share = head / np.maximum(own, 1e-9)
    if np.quantile(share, 0.25) < 1 / UPRIGHT:  # of a world without top and bottom nobody can tell
        return np.zeros(data.count)
    return np.where(share < UPRIGHT, UPRIGHT / np.maximum(share, 1e-9), 0.0)
