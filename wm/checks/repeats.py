"""Frames that are elsewhere too: blocks that come back, parts of torn frames, copies of episodes.

The hashes of a set are sorted once, so what it takes grows with N log N. A picture that stands still counts once.

N steps of a set, E episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm.checks.measures import Measures

CROWD = 3
"""Episodes that may share a frame at a step before it counts as a common beginning."""
SURE = 14
"""Frames in a row that never come back by chance: in sets of Doom 13 do."""
JUMP = 4.0
"""Times the usual change with which both ends of a shorter block begin and end together, where it was put in."""
LEAST = 3
"""Frames in a row that are the least worth a look."""


@dataclass(frozen=True)
class Repeats:
    """Of every episode, [E] each.

    Attributes:
        block: frames of its longest block that is elsewhere, at other steps; block_at: where it begins.
        parts: frames of which one band is another frame's, and the rest is not; parts_at: the first.
        shared: share of frames that another episode has at the same steps.
        single: share of frames in the set whose bands no other frame has.
        again: share of frames in the set that come back, each in a standing picture counted once.
    """

    block: np.ndarray
    block_at: np.ndarray
    parts: np.ndarray
    parts_at: np.ndarray
    shared: np.ndarray
    single: float
    again: float


def find(measured: Measures) -> Repeats:
    """Looks through all frames of a set."""
    lengths = measured.column("length").astype(np.int64)
    count = len(lengths)
    episode = np.repeat(np.arange(count), lengths)
    step = np.arange(len(episode)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    top, bottom, whole = measured.hashes.T
    kept = _fresh(whole, step)
    shared = _shared(whole[kept], episode[kept], step[kept], count)
    block, block_at = _blocks(whole[kept], episode[kept], step[kept], measured.change[kept], count)
    parts, parts_at, single = _parts(top, bottom, whole, episode, step, count)
    _, counts = np.unique(whole[kept], return_counts=True)
    again = float(1 - (counts == 1).sum() / counts.sum())
    return Repeats(block, block_at, parts, parts_at, shared, single, again)


def _fresh(hashes: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Which frames are other ones than those before them."""
    return np.concatenate([[True], (hashes[1:] != hashes[:-1])]) | (step == 0)


def _groups(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order in which equal hashes are neighbours, and whether each is its neighbour's equal, [N - 1]."""
    order = np.argsort(hashes, kind="stable")
    return order, hashes[order[1:]] == hashes[order[:-1]]


def _shared(hashes: np.ndarray, episode: np.ndarray, step: np.ndarray, count: int) -> np.ndarray:
    """Share of an episode's frames that the same other episode has at the same steps: the largest, [E]. Frames that
    more than three episodes have there, such as those of a common beginning, do not count."""
    order = np.lexsort((episode, step, hashes))
    h, s, e = hashes[order], step[order], episode[order]
    fresh = np.concatenate([[True], (h[1:] != h[:-1]) | (s[1:] != s[:-1])])
    group = np.cumsum(fresh) - 1
    few = np.bincount(group)[group] <= CROWD
    frames = np.bincount(e[few], minlength=count)
    pairs = []
    for gap in range(1, CROWD):
        same = (group[gap:] == group[:-gap]) & few[gap:]
        pairs.append(np.stack([e[:-gap][same], e[gap:][same]], 1))
    found, best = np.concatenate(pairs), np.zeros(count)
    if len(found):
        both, many = np.unique(found[:, 0] * count + found[:, 1], return_counts=True)
        one, two = both // count, both % count
        share = np.where(many >= LEAST, many / np.maximum(np.minimum(frames[one], frames[two]), 1), 0.0)
        np.maximum.at(best, one, share)
        np.maximum.at(best, two, share)
    return best


def _blocks(
    hashes: np.ndarray, episode: np.ndarray, step: np.ndarray, change: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The longest block of every episode that is elsewhere at other steps, and where it begins."""
    order, same = _groups(hashes)
    longest, at = np.zeros(count), np.zeros(count, np.int64)
    before = np.full(len(hashes), -1)
    before[order[1:][same]] = order[:-1][same]
    offset = np.where(before >= 0, np.arange(len(hashes)) - before, 0)
    apart = (before >= 0) & ((step != step[before]) | (episode == episode[before]))
    joined = apart[1:] & apart[:-1] & (offset[1:] == offset[:-1]) & (episode[1:] == episode[:-1])
    joined &= episode[before[1:]] == episode[before[:-1]]
    starts = np.flatnonzero(apart & ~np.concatenate([[False], joined]))
    ends = np.flatnonzero(apart & ~np.concatenate([joined, [False]])) + 1
    jump = np.concatenate([change, [0.0]])
    for first, last in zip(starts, ends, strict=True):
        if last - first < LEAST:
            continue
        inside = np.median(change[first:last])
        copy, source = ((i, jump[i] + jump[i + last - first]) for i in (first, before[first]))
        place = max(copy, source, key=lambda pair: pair[1])[0]  # where it was put, the picture jumps before and after
        if last - first < SURE and max(copy[1], source[1]) < JUMP * inside:
            continue  # short, and the picture comes and goes as smoothly as it moves: chance
        if last - first > longest[episode[place]]:
            longest[episode[place]], at[episode[place]] = last - first, step[place]
    return longest, at


def _parts(
    top: np.ndarray, bottom: np.ndarray, whole: np.ndarray, episode: np.ndarray, step: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Frames of which one band is that of exactly one other frame, while the whole is not."""
    torn, single = np.zeros(len(whole), bool), 0
    for band in (top, bottom):
        order, same = _groups(band)
        edge = np.concatenate([[False], same, [False]])
        single += (~edge[:-1] & ~edge[1:]).sum() / (2 * len(whole))
        pair = same & ~edge[:-2] & ~edge[2:]  # two equal ones, and no third
        one, two = order[:-1][pair], order[1:][pair]
        other = whole[one] != whole[two]
        torn[one[other]] = torn[two[other]] = True
    many = np.bincount(episode[torn], minlength=count).astype(float)
    first = np.full(count, 0, np.int64)
    places = np.flatnonzero(torn)[::-1]
    first[episode[places]] = step[places]
    return many, first, float(single)
