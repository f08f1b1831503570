"""What is measured of an episode while its frames are in memory: a row of numbers, and three hashes a frame.

A frame costs about 20 microseconds, and 24 bytes are kept of its 12,288. All sums are of whole numbers, so that they
are the same on every processor.

Shapes: T steps of an episode, N steps of a set, E episodes, A action.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from wm.core.episodes import EpisodeSet, Shard
from wm.core.files import write_bytes

SIDE = 64
BAND = 16
"""Rows at the top and at the bottom of a frame whose hashes are kept: what a torn frame has of another one."""
LOOKS = ("light", "red_green", "red_blue", "green_blue", "grain", "top_bottom", "change")
"""What a frame looks like: mean brightness, differences of its channels' means, mean step from a row to the next, upper
minus lower half, and mean change since the frame before; all in 1/255."""
EDGE = 6
"""Rows beside the upper and lower edge where no seam is looked for."""
PREFIX = 16
"""Changes of the action by which the beginning of a policy is known again."""
WINDOW = 12
"""Frames over which the order of frames is judged."""

FIGURES = (
    "length", "blank", "blank_at", "still", "still_at", "still_acts", "acts_changed", "acts_changed_still",
    "seam", "seam_at", "glitch", "glitch_at", "order", "order_at", "end_marks", "ended", "idle",
    "rew_bad", "rew_bad_at", "rew_low", "rew_low_at", "rew_high", "rew_high_at", "rew_sum", "rew_most", "rew_kinds",
    "rew_size", "act_bad", "act_bad_at", "act_outside", "act_outside_at",
    *(f"{name}_{side}{at}" for name in LOOKS for side in ("low", "high") for at in ("", "_at")),
)  # fmt: skip
"""Columns of `Measures.figures`; `…_at` is the step of what stands before."""

_FACTORS = np.random.Generator(np.random.Philox(key=0xC4EC)).integers(1, 2**63, SIDE * SIDE * 3 // 8, np.uint64)
_FACTORS = _FACTORS * np.uint64(2) + np.uint64(1)


@dataclass
class Measures:
    """Of some episodes, in their order.

    Attributes:
        figures: [E, len(FIGURES)] float64.
        hashes: [N, 3] uint64: of a frame's upper band, its lower band, and the whole.
        acts: [E, 2, A] float64: lowest and highest action.
        keys: [E, 2] uint64: the hash of the first actions, up to the 16th change (0 where there are fewer), and that of
            all frames and actions.
        change: [N] float64: mean change of a frame since the one before; 0 of an episode's first.
        seams: [E, 61] float64: how sharp the edge between two rows is in the mean of all frames.
        pictures: [E, 16, 16, 3] float64: the mean frame, small.
    """

    figures: np.ndarray
    hashes: np.ndarray
    acts: np.ndarray
    keys: np.ndarray
    change: np.ndarray
    seams: np.ndarray
    pictures: np.ndarray

    @classmethod
    def join(cls, parts: list[Measures]) -> Measures:
        """Those of all parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in NAMES))

    def column(self, name: str) -> np.ndarray:
        """A figure of every episode, [E]."""
        return self.figures[:, FIGURES.index(name)]

    def save(self, path: Any) -> None:
        """Writes them to a file, whole or not at all."""
        data = io.BytesIO()
        np.savez(data, **{name: getattr(self, name) for name in NAMES})
        write_bytes(path, data.getvalue())

    @classmethod
    def load(cls, path: Any) -> Measures:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in NAMES})


NAMES = tuple(field.name for field in fields(Measures))


class MeasuredShard(Shard):
    """A shard whose episodes are measured as they come."""

    def __init__(self, columns: Any, bounds: tuple[Any, Any] | None, blank: int, rare: int):
        super().__init__(columns)
        self._measured: list[Measures] = []
        self._how = bounds, blank, rare

    def add(self, episode: dict[str, np.ndarray], **about: Any) -> None:
        super().add(episode, **about)
        self._measured.append(measure(episode, *self._how))

    @property
    def measures(self) -> Measures:
        """Of all its episodes."""
        return Measures.join(self._measured)


def measure_set(data: EpisodeSet, numbers: range, bounds: tuple[Any, Any] | None, blank: int, rare: int) -> Measures:
    """Of the episodes `numbers` of a set on disk, read one at a time."""
    return Measures.join([measure(data.read(number), bounds, blank, rare) for number in numbers])


def measure(episode: dict[str, np.ndarray], bounds: tuple[Any, Any] | None, blank: int, rare: int) -> Measures:
    """Of one episode.

    Args:
        episode: obs [T, 64, 64, 3] uint8, act [T, A], rew [T], end [T].
        bounds: lowest and highest action, each [A]; None where nobody knows.
        blank, rare: as in `wm.checks.config.ChecksConfig`.
    """
    obs, act = episode["obs"], np.asarray(episode["act"], np.float32).astype(np.float64)
    hashes = _hashes(obs)
    looks, more = _frames(obs, blank, rare)
    found = {"length": len(obs), **looks, **_rewards(episode["rew"])}
    found |= _still(hashes[:, 2], act) | _actions(act, bounds)
    end = np.asarray(episode["end"], bool)
    found |= {"end_marks": end[:-1].sum(), "ended": end[-1:].sum()}
    with np.errstate(invalid="ignore"):
        spread = np.stack([act.min(0), act.max(0)])
    row = np.array([float(found[name]) for name in FIGURES])
    content = hashlib.blake2b(hashes.tobytes() + act.tobytes(), digest_size=8).digest()
    keys = np.array([[_key(act), int.from_bytes(content, "little")]], np.uint64)
    return Measures(row[None], hashes, spread[None], keys, *more)


def _hashes(obs: np.ndarray) -> np.ndarray:
    """obs [T, 64, 64, 3] -> [T, 3] uint64: of the upper band, of the lower band, of all."""
    words = np.ascontiguousarray(obs).reshape(len(obs), -1).view(np.uint64) * _FACTORS
    words ^= words >> np.uint64(29)
    quarters = words.reshape(len(obs), SIDE // BAND, -1).sum(2, dtype=np.uint64)
    return np.stack([quarters[:, 0], quarters[:, -1], quarters.sum(1, dtype=np.uint64)], 1)


def _rows(grey: np.ndarray, count: int) -> np.ndarray:
    """Sums of rows of 64 numbers: [count, rows] int64."""
    sums = cv2.reduce(grey.reshape(-1, SIDE), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    return sums.reshape(count, -1).astype(np.int64)


def _difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    shape = one.shape
    one, two = (np.ascontiguousarray(part).reshape(-1, SIDE) for part in (one, two))
    return cv2.absdiff(one, two).reshape(shape)


def _frames(obs: np.ndarray, blank: int, rare: int) -> tuple[dict[str, float], tuple[np.ndarray, ...]]:
    """Figures of frames alone; and `change`, `seams` and `pictures` of `Measures`."""
    steps = len(obs)
    flat = np.array([cv2.minMaxLoc(frame.reshape(SIDE, -1))[:2] for frame in obs])
    is_blank = flat[:, 1] - flat[:, 0] <= blank
    grey = cv2.cvtColor(obs.reshape(steps * SIDE, SIDE, 3), cv2.COLOR_RGB2GRAY).reshape(steps, SIDE, SIDE)
    means = np.array([cv2.mean(frame)[:3] for frame in obs])
    light, edges = _rows(grey, steps), _difference(grey[:, 1:], grey[:, :-1])
    grain = _rows(edges, steps).sum(1) / (SIDE * (SIDE - 1))
    top = light[:, : SIDE // 2].sum(1) - light[:, SIDE // 2 :].sum(1)
    changed = _rows(_difference(grey[1:], grey[:-1]), steps - 1) if steps > 1 else np.zeros((0, SIDE), np.int64)
    change = np.concatenate([changed.sum(1)[:1], changed.sum(1)]) / SIDE**2 if steps > 1 else np.zeros(1)
    red, green, blue = means.T
    looks = (light.sum(1) / SIDE**2, red - green, red - blue, green - blue, grain, top / (SIDE**2 // 2), change)
    found = {"blank": is_blank.sum(), "blank_at": is_blank.argmax()}
    for name, values in zip(LOOKS, looks, strict=True):
        order = np.argsort(values, kind="stable")
        place = min(rare, steps) - 1
        for side, at in (("low", order[place]), ("high", order[-1 - place])):
            found |= {f"{name}_{side}": values[at], f"{name}_{side}_at": at}
    sharp = _sharp(edges)
    twice = _rows(_difference(grey[2:], grey[:-2]), steps - 2) if steps > 2 else np.zeros((0, SIDE), np.int64)
    found |= _seam(sharp, changed) | _glitch(changed, twice) | _order(twice.sum(1), changed.sum(1))
    total = obs.reshape(steps, -1).sum(0, dtype=np.uint32).reshape(16, 4, 16, 4, 3).sum((1, 3))
    since = np.concatenate([[0.0], changed.sum(1) / SIDE**2])
    return found, (since, sharp.sum(0)[None] / (steps * SIDE), total[None] / (steps * 16))


def _sharp(edges: np.ndarray) -> np.ndarray:
    """[T, 61], in 1/64: how much more two rows differ than those beside them, of edges [T, 63, 64]."""
    beside = np.maximum(edges[:, :-2], edges[:, 2:])
    middle = np.ascontiguousarray(edges[:, 1:-1])
    return _rows(cv2.subtract(middle.reshape(-1, SIDE), beside.reshape(-1, SIDE)), len(edges))


def _seam(sharp: np.ndarray, changed: np.ndarray) -> dict[str, float]:
    """How strongly a straight edge comes or goes in a frame whose one side changes and whose other does not: the second
    largest of the episode, in units that make 1 the largest of a usual episode.

    Args:
        sharp: [T, 61] of `_sharp`.
        changed: [T - 1, 64] sums of changes of a row.
    """
    if len(sharp) < 3:
        return {"seam": 0.0, "seam_at": 0}
    around = cv2.dilate(sharp.astype(np.float32), np.ones((1, 7), np.uint8))
    fresh, gone = sharp[1:] - around[:-1], sharp[:-1] - around[1:]
    total = np.cumsum(changed, 1)
    rows = np.arange(2, SIDE - 1)
    above = total[:, 1 : SIDE - 2] / (rows * SIDE)
    below = (total[:, -1:] - total[:, 1 : SIDE - 2]) / ((SIDE - rows) * SIDE)
    uneven = np.maximum(above, below) / (np.minimum(above, below) + 2.0) / 3.0
    score = np.minimum(np.maximum(fresh, gone) / (8.0 * SIDE), uneven)[:, EDGE:-EDGE].max(1)
    at = np.argsort(score, kind="stable")[-2]
    return {"seam": score[at], "seam_at": at + 1}


def _order(twice: np.ndarray, change: np.ndarray) -> dict[str, float]:
    """The largest share, over windows of 12 frames with more than the usual change, of the change in one step in that
    in two: about 0.5 of steady motion, 1 of noise and of frames in any order.

    Args:
        twice: [T - 2] changes in two steps; change: [T - 1] in one.
    """
    if len(change) < 2 * WINDOW:
        return {"order": 0.0, "order_at": 0}
    one, two = (_windows(values) for values in (change[1:], twice))
    moving = one >= max(np.sort(one)[len(one) // 2], 1)
    share = np.where(moving, one / np.maximum(two, 1), 0.0)
    at = int(share.argmax())
    return {"order": share[at], "order_at": at + 1}


def _glitch(changed: np.ndarray, twice: np.ndarray) -> dict[str, float]:
    """How much a band differs from the frames before and after, more than these from each other: the fifth largest.

    Args:
        changed: [T - 1, 64] sums of changes of a row in one step; twice: [T - 2, 64] in two.
    """
    if len(twice) < 5:
        return {"glitch": 0.0, "glitch_at": 0}
    bands = []
    for band in (slice(0, BAND), slice(SIDE - BAND, SIDE)):
        sums = changed[:, band].sum(1)
        bands.append(np.minimum(sums[:-1], sums[1:]) - twice[:, band].sum(1))
    both = np.maximum(*bands) / (BAND * SIDE)
    at = np.argsort(both, kind="stable")[-5]
    return {"glitch": both[at], "glitch_at": at + 1}


def _windows(values: np.ndarray) -> np.ndarray:
    """Sums of every 12 in a row."""
    total = np.concatenate([[0], np.cumsum(values)])
    return total[WINDOW:] - total[:-WINDOW]


def _still(whole: np.ndarray, act: np.ndarray) -> dict[str, float]:
    """The longest time for which the picture stands still, and whether actions changed meanwhile."""
    same = np.concatenate([[False], whole[1:] == whole[:-1]])
    other = np.concatenate([[False], (act[1:] != act[:-1]).any(1)])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    found = {"still": 0, "still_at": 0, "still_acts": 0}
    if len(starts):
        longest = int((ends - starts).argmax())
        first, last = starts[longest], ends[longest]
        found = {"still": last - first, "still_at": first, "still_acts": other[first:last].sum()}
    return found | {"acts_changed": other.sum(), "acts_changed_still": (other & same).sum()}


def _rewards(rew: np.ndarray) -> dict[str, float]:
    rew = np.asarray(rew, np.float32).astype(np.float64)  # as they are kept, in play too
    bad = ~np.isfinite(rew)
    sound = np.where(bad, 0.0, rew)
    values, counts = np.unique(sound, return_counts=True)
    positive = np.flatnonzero(sound > 0)
    idle = len(rew) - 1 - (positive[-1] if len(positive) else -1)
    return {
        "rew_bad": bad.sum(), "rew_bad_at": bad.argmax(),
        "rew_low": sound.min(), "rew_low_at": sound.argmin(), "rew_high": sound.max(), "rew_high_at": sound.argmax(),
        "rew_sum": sound.sum(), "rew_most": values[counts.argmax()], "rew_kinds": len(values),
        "rew_size": np.sort(np.abs(sound))[len(sound) // 2], "idle": idle,
    }  # fmt: skip


def _actions(act: np.ndarray, bounds: tuple[Any, Any] | None) -> dict[str, float]:
    bad = ~np.isfinite(act).all(1)
    outside: Any = np.zeros(len(act), bool)
    if bounds:
        low, high = (np.asarray(bound, np.float64) for bound in bounds)
        room = 1e-5 * np.maximum(1.0, np.abs(high - low))
        outside = ((act < low - room) | (act > high + room)).any(1)
    return {
        "act_bad": bad.sum(),
        "act_bad_at": bad.argmax(),
        "act_outside": outside.sum(),
        "act_outside_at": outside.argmax(),
    }


def _key(act: np.ndarray) -> int:
    """What identifies the beginning of a policy: its actions up to their 16th change; 0 where there are fewer."""
    changes = np.flatnonzero((act[1:] != act[:-1]).any(1))
    if len(changes) < PREFIX:
        return 0
    digest = hashlib.blake2b(np.ascontiguousarray(act[: changes[PREFIX - 1] + 2]).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
