"""A limit on time: a search that has one ends at a look at the selection episodes, and leaves a value that says so."""

from __future__ import annotations

import os
import re
from pathlib import Path

from wm.core import files
from wm.core.errors import UserError

VARIABLE = "WM_DEADLINE"
"""Environment variable with the time, in seconds since 1970, by which `evolve` has to end."""
ENDED = "ended.json"
"""In the scratch folder of a search that ran out of time: {"generation", "planned", "score"}."""
UNITS = {"h": 3600, "m": 60, "min": 60, "s": 1}


class OutOfTime(UserError):
    """The next look would come too late; a checkpoint has all until here. Exit code 3."""

    code = 3

    def __init__(self, done: int, planned: int, score: float):
        super().__init__(
            f"the time is over after generation {done} of {planned}, with a selection score of {score:.1f}: set "
            f"`generations` of evolve to {done}, and the same command keeps the best so far, or go on without a budget"
        )
        self.done, self.planned, self.score = done, planned, score

    def write(self, folder: Path) -> None:
        """Leaves what it says in a search's scratch folder."""
        files.write_json(folder / ENDED, {"generation": self.done, "planned": self.planned, "score": self.score})


def deadline() -> float:
    """When a search has to end, in seconds since 1970; infinity where nobody said."""
    return float(os.environ.get(VARIABLE) or "inf")


def seconds(text: str) -> float:
    """The length of "2h", "90m", "1h30m" or "45s".

    Raises:
        UserError: it is no length of time, or nothing.
    """
    compact = text.replace(" ", "").lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|min|m|s)", compact)
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != compact or not total:
        raise UserError(f"the budget is {text!r}: expected a length of time such as 2h, 90m or 1h30m")
    return total
