"""Why two scores differ: the first stage that was made otherwise, what followed, and whether the difference is real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from wm.core.errors import UserError
from wm.records import gitfiles, history
from wm.records.history import Snapshot, Step
from wm.records.lineage import score_text, short_hash
from wm.stages import STAGES
from wm.stages.evaluate import interval

POWER = 2.8
"""Standard errors that a difference has to be for 95% confidence with 80% power: 1.96 + 0.84."""
PARTS = {"V": "vae.json", "M": "mdnrnn.json", "C": "controller.json"}
"""The files of an agent that hold its weights' sha256."""


@dataclass(frozen=True)
class Side:
    """One of the two: a score and everything behind it."""

    label: str
    snapshot: Snapshot
    steps: list[Step]
    scores: dict[str, Any]
    weights: dict[str, str]


@dataclass(frozen=True)
class Pair:
    """The same stage of the same round on both sides; None where a side has none."""

    a: Step | None
    b: Step | None

    @property
    def params(self) -> list[str]:
        """What was set otherwise: `steps 40 -> 80`."""
        a, b = self.a.numbers, self.b.numbers
        keys = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
        return [f"{key} {a.get(key, '(default)')} -> {b.get(key, '(default)')}" for key in keys]

    @property
    def code(self) -> list[str]:
        """Files and folders of code that are others; none where DVC recorded only one side."""
        if not (self.a.code and self.b.code):
            return []
        return [path for path in sorted({*self.a.code, *self.b.code}) if self.a.code.get(path) != self.b.code.get(path)]

    @property
    def inputs(self) -> list[str]:
        """Kinds of data read that are others: `collect`, …, in the order of the pipeline."""
        a, b = _kinds(self.a), _kinds(self.b)
        return [kind for kind in STAGES if a.get(kind) != b.get(kind)]

    @property
    def same_output(self) -> bool:
        """Whether both sides wrote the same bytes."""
        return self.a.output is not None and self.a.output == self.b.output


def why(a: str, b: str) -> str:
    """What `python -m wm why` prints about two agents, each `NAME` or `COMMIT:NAME`.

    Raises:
        UserError: one of them is unknown, or they are not scored, or of different worlds.
    """
    return "\n".join(_lines(_side(a), _side(b)))


def _side(label: str) -> Side:
    snapshot, name = history.split(label)
    steps = snapshot.steps(name)
    if steps[-1].stage != "evaluate":
        raise UserError(f"{label} is a model, not an agent: only agents have scores")
    if steps[-1].output is None:
        at = f"git checkout {snapshot.rev} && " if snapshot.rev else ""
        raise UserError(f"{label} has no score: run `{at}dvc repro {steps[-1].target}` first")
    scores = snapshot.scores(steps[-1])
    evolve = next(step for step in steps if step.address == f"evolve@{name}")
    weights = {part: snapshot.json(evolve, file).get("sha256", "") for part, file in PARTS.items()}
    return Side(label, snapshot, steps, scores, weights)


def _lines(a: Side, b: Side) -> Iterator[str]:
    width = max(len(a.label), len(b.label))
    for sign, side in (("A", a), ("B", b)):
        yield f"{sign}  {side.label:<{width}}  {score_text(side.scores)}"
    yield difference(a.scores, b.scores)
    yield ""
    pairs = _pairs(a.steps, b.steps)
    first = next((pair for pair in pairs if _own(pair)), None)
    if first is None:
        yield "Nothing differs: parameters, code and data of every stage are the same."
    else:
        yield f"First difference: {_name(first)}"
        yield from _details(first, a, b)
        rest = pairs[pairs.index(first) + 1 :]
        if rest:
            yield ""
            yield "After it:"
        for pair in rest:
            yield from _after(pair, a, b)
    if any(a.weights.values()) or any(b.weights.values()):
        yield ""
        yield f"{'weights':<10}{'A':<14}{'B':<14}"
        for part in PARTS:
            known = a.weights[part] and b.weights[part]
            same = "unknown" if not known else "the same" if a.weights[part] == b.weights[part] else "others"
            yield f"{part:<10}{short_hash(a.weights[part]):<14}{short_hash(b.weights[part]):<14}{same}"


# ---------------------------------------------------------------- the scores


def difference(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Whether B scores otherwise than A, in a sentence: the mean difference and its 95% interval.

    Args:
        a, b: as `evaluate` writes scores.json: paired by `seeds` where both have `scores`, else only means.
    """
    if not a or not b:
        return "no scores to compare: `dvc pull` fetches them where a remote has them"
    for key in ("world", "drawing"):
        if a.get(key) and b.get(key) and a[key] != b[key]:
            raise UserError(f"A is scored on {a[key]} and B on {b[key]}: there is nothing to compare")
    common = [seed for seed in a.get("seeds", ()) if seed in set(b.get("seeds", ()))]
    if len(common) > 1:
        of_a, of_b = (dict(zip(side["seeds"], side["scores"], strict=True)) for side in (a, b))
        deltas = np.array([of_b[seed] - of_a[seed] for seed in common])
        found = interval(deltas)
        low, high, error = found["ci95_low"], found["ci95_high"], float(deltas.std(ddof=1))
        mean, how = float(deltas.mean()), f"paired, the same {len(common)} episodes"
    else:
        mean = b["mean"] - a["mean"]
        spread = np.sqrt(sum(side["std"] ** 2 / side["episodes"] for side in (a, b)))
        low, high, error = mean - 1.96 * spread, mean + 1.96 * spread, 0.0
        how = "not paired: the episodes' own scores are not here"
    said = f"B - A = {mean:+.1f}, 95% interval {low:+.1f} to {high:+.1f} ({how})"
    if low == high == 0:
        return f"{said}: the scores are the same"
    if low > 0 or high < 0:
        return f"{said}: B is {'better' if mean > 0 else 'worse'}, significantly"
    needed = int(np.ceil((POWER * error / mean) ** 2)) if mean and error else 0
    more = f"; a difference of this size would take some {needed:,} episodes to show" if needed > len(common) else ""
    return f"{said}: not significant{more}"


# ---------------------------------------------------------------- the stages


def _pairs(a: list[Step], b: list[Step]) -> list[Pair]:
    """Stages of the same kind, matched by round, in the order in which they were made."""
    pairs = []
    for kind in STAGES:
        of_kind = ([step for step in steps if step.stage == kind] for steps in (a, b))
        pairs += [(number, Pair(*both)) for number, both in enumerate(zip_longest(*of_kind))]
    order = {kind: index for index, kind in enumerate(STAGES)}
    last = len(STAGES) - 1
    key = {id(pair): (number, order[(pair.a or pair.b).stage]) for number, pair in pairs}
    # there is one evaluate, of the last round
    return sorted((pair for _, pair in pairs), key=lambda pair: (key[id(pair)][1] == last, key[id(pair)]))


def _own(pair: Pair) -> bool:
    """Whether the stage itself was made otherwise, whatever it read."""
    if pair.a is None or pair.b is None:
        return True
    return bool(pair.params or pair.code or (pair.a.output != pair.b.output and not pair.inputs))


def _details(pair: Pair, a: Side, b: Side) -> Iterator[str]:
    if pair.a is None or pair.b is None:
        yield f"  only {'B' if pair.a is None else 'A'} has it: a round more, or another start"
        return
    if pair.params:
        yield f"  params  {', '.join(pair.params)}"
    yield from (f"  code    {line}" for line in _code(pair, a, b))
    if pair.inputs:
        yield f"  reads   another {', '.join(pair.inputs)}"
    elif pair.a.inputs:
        data = (f"{kind} {short_hash(md5)}" for kind, md5 in _kinds(pair.a).items())
        yield f"  reads   the same data: {', '.join(data)}"
    if not (pair.a.code and pair.b.code):
        yield "  code    unknown: DVC did not run it on both sides"
    if not (pair.params or pair.code or pair.inputs):
        yield "  the same inputs gave other outputs: another machine, other packages, or code outside the stage"
    if pair.same_output:
        yield "  and yet wrote the same bytes"


def _after(pair: Pair, a: Side, b: Side) -> Iterator[str]:
    if pair.a is None or pair.b is None:
        yield f"  {_name(pair):<44} only in {'B' if pair.a is None else 'A'}"
    elif pair.same_output:
        yield f"  {_name(pair):<44} the same bytes"
    else:
        own = [*pair.params, *_code(pair, a, b)]
        reads = f"another {', '.join(pair.inputs)}" if pair.inputs else "the same data"
        yield f"  {_name(pair):<44} {reads}" + (f"; itself: {', '.join(own)}" if own else "")


def _code(pair: Pair, a: Side, b: Side) -> Iterator[str]:
    """Files of code that are others, and the command that shows how, where git has both versions."""
    for path in pair.code:
        revs = []
        for step, side in ((pair.a, a), (pair.b, b)):
            md5, rev = step.code.get(path), side.snapshot.rev
            exact = rev if rev and md5 and gitfiles.code_md5(path, rev) == md5 else ""
            revs.append(exact or (gitfiles.last_commit_with(path, md5)[:12] if md5 else ""))
        if all(revs):
            for name in gitfiles.different_files(path, *map(gitfiles.code_at, revs)):
                yield f"{name}   (git diff {revs[0]} {revs[1]} -- {name})"
        else:
            one_side = None in (pair.a.code.get(path), pair.b.code.get(path))
            yield f"{path}   (only on one side)" if one_side else path


def _kinds(step: Step) -> dict[str, str | None]:
    """What a step reads, by the kind of data: {"collect": md5, …}; an actor is an `evolve`."""
    return {folder.rpartition("/")[2]: md5 for folder, md5 in step.inputs.items()}


def _name(pair: Pair) -> str:
    a, b = pair.a, pair.b
    if a is None or b is None or a.address == b.address:
        return (a or b).address
    return f"{a.address} / {b.address}"
