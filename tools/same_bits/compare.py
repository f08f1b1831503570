"""What two commits gave, side by side: every output's md5, and file by file where two differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST = 8
"""Files that are named of an output that differs."""


@dataclass
class Row:
    """A line of the table.

    Attributes:
        what: smoke, a case, or pretrained/NAME.
        compared: what was, as text.
        seconds: of the old and the new commit.
        differences: a line each; empty where all is equal.
        skipped: why nothing was compared.
    """

    what: str
    compared: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)
    differences: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.skipped:
            return f"skipped: {self.skipped}"
        return "different" if self.differences else "equal"


def stages(what: str, old: Mapping[str, Any], new: Mapping[str, Any], folders: tuple[Path, Path]) -> Row:
    """The row of some stages.

    Args:
        old, new: {address: what `Commit.run` returned}.
        folders: the two clones.
    """
    outputs = [f"{address.partition('@')[0]} {_short(result)}" for address, result in new.items()]
    row = Row(what, ", ".join(outputs), _seconds(old.values(), new.values()))
    for address in dict.fromkeys([*old, *new]):
        if address not in old or address not in new:
            row.differences.append(f"{address} ran in one of the two commits alone")
            continue
        row.differences += _outputs(old[address]["outputs"], new[address]["outputs"], folders)
    return row


def scores(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Row:
    """The row of a pretrained agent, whose scores are compared episode by episode."""
    before, after = old["scores"], new["scores"]
    other = [index for index, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]]
    known = "the recorded ones" if new["recorded"] else "not the recorded ones: another machine or other packages"
    mean = sum(after) / len(after)
    row = Row(f"pretrained/{name}", f"{len(after)} scores, mean {mean:.4f}, {known}", _seconds([old], [new]))
    if len(before) != len(after):
        row.differences.append(f"{len(before)} episodes and {len(after)}")
    elif other:
        first = other[0]
        row.differences.append(
            f"{len(other)} episodes differ, the first is number {first}: {before[first]:.4f} and {after[first]:.4f}"
        )
    elif old["outputs"] != new["outputs"]:
        row.differences.append("scores.json differs, though every score is equal")
    elif old["recorded"] != new["recorded"]:
        row.differences.append("one of the two commits calls them the recorded ones")
    return row


def table(rows: Iterable[Row], names: tuple[str, str]) -> str:
    """A table in Markdown, with the differences below it.

    Args:
        names: of the two commits.
    """
    lines = [f"| what ran | compared | seconds at {names[0]}, {names[1]} | result |", "|---|---|---|---|"]
    below = []
    for row in rows:
        seconds = "" if row.skipped else f"{row.seconds[0]:.0f}, {row.seconds[1]:.0f}"
        lines.append(f"| {row.what} | {row.compared} | {seconds} | {row.verdict} |")
        below += [f"{row.what}: {difference}" for difference in row.differences]
    return "\n".join([*lines, *(["", *below] if below else [])])


def _short(result: Mapping[str, Any]) -> str:
    return " ".join(f"`{output['md5'][:8]}`" for output in result["outputs"].values())


def _seconds(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    return sum(result["seconds"] for result in old), sum(result["seconds"] for result in new)


def _outputs(old: Mapping[str, Any], new: Mapping[str, Any], folders: tuple[Path, Path]) -> list[str]:
    lines = []
    for path in dict.fromkeys([*old, *new]):
        if path not in old or path not in new:
            lines.append(f"{path} is in one of the two commits alone")
        elif old[path]["md5"] != new[path]["md5"]:
            lines.append(f"{path}: {old[path]['md5']} and {new[path]['md5']}")
            lines += _files(path, old[path]["files"], new[path]["files"], folders)
    return lines


def _files(path: str, old: Mapping[str, str], new: Mapping[str, str], folders: tuple[Path, Path]) -> list[str]:
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    lines = []
    for name in names[:MOST]:
        if name not in old or name not in new:
            lines.append(f"{path}/{name} is {'new' if name in new else 'gone'}")
        else:
            lines.append(f"{path}/{name} differs{_first_line(*(folder / path / name for folder in folders))}")
    return [*lines, *([f"{path}: {len(names) - MOST} more files differ"] if len(names) > MOST else [])]


def _first_line(old: Path, new: Path) -> str:
    """The first line that differs in a text of two versions, or nothing."""
    try:
        texts = [path.read_text().splitlines() for path in (old, new)]
    except (UnicodeDecodeError, OSError):
        return ""
    for number, (before, after) in enumerate(zip(*texts, strict=False), 1):
        if before != after:
            return f" in line {number}: {before[:200]} | {after[:200]}"
    return f": {len(texts[0])} and {len(texts[1])} lines"
