"""Charts as inline SVG, coloured by the page's own style, so that they follow its light and its dark.

Classes: `a` to `d` are lines, `band` and `span` areas, `rule` reference lines, `grid` and `axis` what it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 26, 36
_LETTER = 7.0
"""Width of a letter of a label."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """Points joined by a line, in parts that are not joined to one another.

    Attributes:
        colour: `a`, `b`, `c` or `d`.
        dots: mark every point.
    """

    label: str
    parts: Sequence[Points]
    colour: str
    dots: bool = False


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(x) for x in (self.low, self.high, value)) if self.log else (
            self.low, self.high, value)  # fmt: skip
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def lines(
    title: str,
    about: str,
    drawn: Sequence[Line],
    *,
    xlabel: str,
    rounds: Sequence[tuple[float, float, str]] = (),
    band: Sequence[tuple[Points, Points]] = (),
    reference: tuple[str, float] | None = None,
) -> str:
    """Curves over several rounds that follow one another on the x axis.

    Args:
        about: what the picture shows, for people who do not see it.
        rounds: (first x, last x, label) of each; where labels would overlap their last words stand there, the numbers.
        band: (lower, upper) border of an area, a pair a round.
        reference: (label, y) of a dashed line.
    """
    xs = [x for line in drawn for part in line.parts for x, _ in part]
    ys = [y for line in drawn for part in line.parts for _, y in part]
    ys += [y for pair in band for border in pair for _, y in border] + ([reference[1]] if reference else [])
    if not xs:
        return ""
    log = min(ys) > 0 and max(ys) > 8 * min(ys) and not band
    x = _Scale(0 if rounds else min(xs), max(max(xs), min(xs) + 1), _LEFT, WIDTH - _RIGHT)
    low, high, ticks = _ticks(min(ys), max(ys), log)
    y = _Scale(low, high, HEIGHT - _BOTTOM, _TOP, log)
    out = [_grid(y, ticks), _axis(x, _round_ticks(x.low, x.high), xlabel)]
    fit = all(x(last) - x(first) > _LETTER * len(label) for first, last, label in rounds)
    for number, (first, last, label) in enumerate(rounds):
        if number:
            out.append(f'<line class="rule round" x1="{x(first):.1f}" x2="{x(first):.1f}" y1="{_TOP}" '
                       f'y2="{HEIGHT - _BOTTOM}"/>')  # fmt: skip
        if len(rounds) > 1:
            out.append(_text((x(first) + x(last)) / 2, _TOP - 8, label if fit else label.split()[-1], "middle"))
    for lower, upper in band:
        out.append(f'<path class="band" d="{_path([*lower, *reversed(upper)], x, y)}Z"/>')
    if reference:
        label, value = reference
        out.append(f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        out.append(_text(_LEFT + 4, y(value) - 5, f"{label} {value:g}", "start"))
    for line in drawn:
        for part in line.parts:
            out.append(f'<path class="line {line.colour}" d="{_path(part, x, y)}"/>')
            if line.dots or len(part) == 1:
                out += [f'<circle class="dot {line.colour}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"/>' for a, b in part]
    keys = [(line.label, line.colour) for line in drawn] + ([("worst to best", "band")] if band else [])
    return _figure(title, about, out, keys)


def histogram(
    title: str,
    about: str,
    values: Sequence[float],
    *,
    interval: tuple[float, float] | None = None,
    reference: tuple[str, float] | None = None,
    xlabel: str = "score of an episode",
) -> str:
    """How often each score was reached, with the mean, its interval and a value to compare with."""
    scores = np.asarray(values, dtype=float)
    spread = [*scores, *([reference[1]] if reference else [])]
    edges = np.histogram_bin_edges(scores, bins=int(np.clip(2 * np.sqrt(len(scores)), 5, 30)))
    counts, _ = np.histogram(scores, edges)
    low, high = min(edges[0], *spread), max(edges[-1], *spread)
    margin = 0.03 * (high - low) or 1
    x = _Scale(low - margin, high + margin, _LEFT, WIDTH - _RIGHT)
    _, top, ticks = _ticks(0, max(counts), False)
    y = _Scale(0, top, HEIGHT - _BOTTOM, _TOP)
    out = [_grid(y, [tick for tick in ticks if tick == int(tick)]), _axis(x, _round_ticks(x.low, x.high), xlabel)]
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if count:
            width, height = max(x(right) - x(left) - 1, 1), y(0) - y(count)
            out.append(f'<rect class="bar" x="{x(left):.1f}" y="{y(count):.1f}" width="{width:.1f}" '
                       f'height="{height:.1f}"/>')  # fmt: skip
    keys = [("episodes", "bar")]
    if interval:
        a, b = map(x, interval)
        out.append(f'<rect class="span" x="{a:.1f}" y="{_TOP}" width="{max(b - a, 1):.1f}" '
                   f'height="{HEIGHT - _BOTTOM - _TOP}"/>')  # fmt: skip
        keys.append(("95% interval of the mean", "span"))
    mean = x(float(scores.mean()))
    out.append(f'<line class="line b" x1="{mean:.1f}" x2="{mean:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
    keys.insert(1, ("mean", "b"))
    if reference:
        label, value = reference
        out.append(f'<line class="rule" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        out.append(_text(x(value), _TOP - 8, f"{label} {value:g}", "middle" if x(value) < WIDTH - 60 else "end"))
    return _figure(title, about, out, keys)


def _figure(title: str, about: str, inside: Sequence[str], keys: Sequence[tuple[str, str]]) -> str:
    legend = "".join(f'<span class="key {colour}">{escape(label)}</span>' for label, colour in keys)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about, quote=True)}">{"".join(inside)}'
        f'</svg><p class="legend">{legend}</p></figure>'
    )


def _grid(y: _Scale, ticks: Sequence[float]) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        + _text(_LEFT - 7, y(tick) + 4, f"{tick:,g}" if abs(tick) < 1e5 else f"{tick:.0e}", "end")
        for tick in ticks
    )


def _axis(x: _Scale, ticks: Sequence[float], label: str) -> str:
    base = HEIGHT - _BOTTOM
    return (
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
        + "".join(_text(x(tick), base + 16, f"{tick:,g}", "middle") for tick in ticks)
        + _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, label, "middle")
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(points: Points, x: _Scale, y: _Scale) -> str:
    return "M" + "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)


def _ticks(low: float, high: float, log: bool) -> tuple[float, float, list[float]]:
    """The axis' ends and its ticks: round numbers, the ends a little beyond the values."""
    if log:
        marks = [m * 10.0**e for e in range(-9, 10) for m in (1, 2, 5)]
        low, high = low / 1.08, high * 1.08
        return low, high, [mark for mark in marks if low <= mark <= high]
    margin = 0.04 * (high - low) or 1
    low, high = (low if low == 0 else low - margin), high + margin
    return low, high, _round_ticks(low, high)


def _round_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4.5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]
