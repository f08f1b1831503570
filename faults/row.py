"""A row of the suite: one fault, some tries of it, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHORT = "FAULTS_SHORT"
"""Set in the environment of a short version, which makes fewer tries of a part."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a try.

    Attributes:
        tries: how often the fault was made.
        lost: what was lost, a sentence each; empty is what is asked for.
        said: what a person reads, a line each.
        seeds: of the moments, where they are drawn.
    """

    tries: int = 1
    lost: Sequence[str] = ()
    said: Sequence[str] = ()
    seeds: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault.

    Attributes:
        fault: for the table.
        tries: their names; each is run in a process of its own and goes into the journal when it has ended.
        run: makes the fault once, by its name, in an empty folder; an exception is a loss too.
        limit: seconds that a try may take; more is a hang.
        lacks: why it cannot be run here; empty where it can.
        unguarded: takes the protection out, in this process and its children, to see that the row can fail.
    """

    fault: str
    tries: Sequence[str]
    run: Callable[[str, Path], Outcome]
    limit: float
    lacks: Callable[[], str] = field(default=lambda: "")
    unguarded: Callable[[], None] | None = None
