"""Verdicts: what a check found, where it is written, and who is refused by it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from wm.core import files
from wm.core.errors import UserError

FILE = "checks.json"
"""In the output of `collect` and of `encode`."""
NAMED = 5
"""Episodes that a sentence names; the file has all of them."""
Verdict = Literal["pass", "warn", "fail"]

DATA = {
    "blank": "frames of one colour",
    "frozen": "pictures that stand still while they should change",
    "repeated": "frames in a row that come back elsewhere",
    "torn": "frames whose upper and lower part are of different moments",
    "order": "frames out of their order",
    "unlike": "frames unlike those of all other episodes: colours, light, detail, motion",
    "rewards": "rewards that the world cannot give",
    "lengths": "lengths and ends that the world cannot give",
    "actions": "actions outside their bounds, and how much of these they cover",
    "copies": "episodes that are copies of each other",
}
"""The checks of `collect`, by name: what each looks for."""
LATENTS = {
    "unknown": "latents outside what V knew of the episodes held out of its training",
    "unused": "dimensions of the latent that say nothing about a frame",
}
"""The checks of `encode`."""


@dataclass(frozen=True, kw_only=True)
class FaultyEpisode:
    """An episode with a fault.

    Attributes:
        episode: its index in the set.
        at: the step.
        figure: what was measured.
        worst: whether this alone fails the check.
        why: a few words: "13 steps".
    """

    episode: int
    at: int
    figure: float
    worst: bool
    why: str
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a check of a set found.

    Attributes:
        name: a key of DATA or LATENTS.
        figure: of the worst episode, or of the whole set.
        limit: from where on it speaks.
        unit: of both: "steps".
        message: one sentence's worth of words.
        where: (episode, step) of the worst, also where that is no fault; what a picture shows.
        episodes: those concerned, the worst first.
    """

    name: str
    verdict: Verdict
    figure: float
    limit: float | None
    unit: str
    message: str
    where: tuple[int, int] | None = None
    episodes: tuple[FaultyEpisode, ...] = field(default=())


def write(checks: Sequence[Check], folder: Path) -> None:
    """Writes checks.json, with a checksum inside."""
    files.write_record(Path(folder) / FILE, {"checks": [asdict(check) for check in checks]})


def read(folder: Path) -> list[Check]:
    """What `write` wrote.

    Raises:
        DamagedData: the file is missing or damaged.
    """
    found = []
    for content in files.read_record(Path(folder) / FILE)["checks"]:
        episodes = tuple(FaultyEpisode(**one) for one in content.pop("episodes"))
        where = content.pop("where")
        found.append(Check(**content, where=where and tuple(where), episodes=episodes))
    return found


def require(folder: Path, accept: Collection[str]) -> None:
    """Lets data through whose checks have not failed.

    Args:
        folder: of the data, with its checks.json.
        accept: names of checks that may fail.
    Raises:
        UserError: one has failed that is not accepted; names it, its figure, the episodes, and what to do.
        DamagedData: checks.json is missing or damaged.
    """
    failed = [check for check in read(folder) if check.verdict == "fail" and check.name not in accept]
    if failed:
        first = failed[0]
        more = f" ({', '.join(check.name for check in failed[1:])} failed too)" if failed[1:] else ""
        names = ", ".join(check.name for check in failed)
        raise UserError(
            f"the data in {folder} fail the check `{first.name}`: {first.message}{_episodes(first)}{more}; mend or "
            f"collect them again, or let them through with train_vae.accept: [{names}]"
        )


def _episodes(check: Check) -> str:
    """`, in episodes 3 (at step 17), 9 and 12 others`."""
    if not check.episodes:
        return ""
    named = [f"{one.episode} (at step {one.at})" for one in check.episodes[:NAMED]]
    more = len(check.episodes) - len(named)
    words = ", ".join(named) + (f" and {more} more" if more else "")
    return f", in {'episodes' if len(check.episodes) > 1 else 'episode'} {words}"


def table(checks: Sequence[Check]) -> str:
    """The checks as a Markdown table."""
    lines = ["| check | verdict | figure | limit | what | episodes |", "|---|---|---:|---:|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row.values()) + " |" for row in rows(checks))])


def rows(checks: Sequence[Check]) -> list[dict[str, str]]:
    """The checks as rows of words."""
    return [
        {
            "check": check.name,
            "verdict": check.verdict,
            "figure": f"{check.figure:.4g}",
            "limit": "" if check.limit is None else f"{check.limit:.4g}",
            "what": check.message,
            "episodes": _episodes(check).removeprefix(", in "),
        }
        for check in checks
    ]


def counts(checks: Sequence[Check]) -> dict[str, Any]:
    """How many failed and how many warned, for a stage's summary."""
    verdicts = [check.verdict for check in checks]
    return {"checks_failed": verdicts.count("fail"), "checks_warned": verdicts.count("warn")}
