"""From data to score: what made an agent or a model, stage by stage, and how to make it again.

The files say what was read and written (`wm.records.history`); MLflow, where it knows an output, says who made it
and when.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wm.core.errors import UserError
from wm.records import earlier, git, gitfiles, history, provenance, tracking
from wm.records.history import Snapshot, Step


@dataclass(frozen=True, kw_only=True)
class Made:
    """A step with what is known about the run that made it.

    Attributes:
        commit: git's; empty if nobody knows.
        run: `earlier.run_of`'s answer, if any.
        others: code and parameters of the step that are others at that commit.
        elsewhere: the folder here is not the one that is recorded.
    """

    step: Step
    commit: str = ""
    run: Mapping[str, Any] | None = None
    others: tuple[str, ...] = ()
    elsewhere: bool = False


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Every step behind a score, the first first.

    Attributes:
        score: as `evaluate` wrote it, e.g. {"mean": 853.7, "std": 61.3, "ci95_low": …}; empty if there is none.
        commit: what to check out to make it again; empty if no commit is known.
    """

    title: str
    name: str
    steps: list[Made]
    score: Mapping[str, float]
    commit: str

    @property
    def target(self) -> str:
        """What to ask DVC for."""
        return self.steps[-1].step.target

    @property
    def again(self) -> str:
        """The command that makes it again."""
        checkout = f"git checkout {self.commit[:12]} && " if self.commit else ""
        return f"{checkout}dvc repro {self.target}"

    @property
    def doubts(self) -> list[str]:
        """Why that command might not give the same, a sentence each."""
        missing = [made.step.address for made in self.steps if made.step.output is None]
        others = sorted({other for made in self.steps for other in made.others})
        elsewhere = [made.step.folder for made in self.steps if made.elsewhere]
        dirty = [made.step.address for made in self.steps if not made.step.recorded and (made.run or {}).get("dirty")]
        said = []
        if missing:
            said.append(f"not made yet: {', '.join(missing)}")
        if not self.commit and git.is_shallow(Path.cwd()):
            said.append(
                "git's history is cut here (`git clone --depth`), so which commit made it is unknown: run "
                "`git fetch --unshallow`"
            )
        elif not self.commit:
            said.append("no commit is known: commit params.yaml and dvc.lock, so that others can make it again")
        elif not gitfiles.has_commit(self.commit):
            said.append(f"git has no commit {self.commit[:12]} here: `git fetch` may bring it")
        if others:
            said.append(f"it was made with changes that the commit lacks: {', '.join(others)}")
        if dirty:
            said.append(f"the working tree had changes, and nothing says which: {', '.join(dirty)}")
        if read := list(self._read_others()):
            said.append(f"it was made from what has been made again since: {', '.join(read)}")
        if elsewhere:
            said.append(f"changed since DVC recorded it: {', '.join(elsewhere)} (`dvc checkout` brings it back)")
        return said

    def _read_others(self) -> Iterator[str]:
        """Inputs that are not what the steps here wrote: `evolve@smoke read another runs/smoke/train_mdn`."""
        written = {(made.step.folder, made.step.output) for made in self.steps}
        made_here = {folder for folder, output in written if output}
        for made in self.steps:
            for folder, hashed in made.step.inputs.items():
                if hashed and folder in made_here and (folder, hashed) not in written:
                    yield f"{made.step.address} read another {folder}"


def trace(model: str) -> Lineage:
    """The lineage of an entry of `agents` or `models`, here or at a commit (`BRANCH:NAME`), or of a registered model
    (`NAME/3`, `NAME@champion`).

    Raises:
        UserError: there is no such entry or version.
    """
    text = model.removeprefix("models:/")
    if ":" in text:
        return _entry(text)
    for sign in ("/", "@"):
        if sign in text:
            name, _, version = text.partition(sign)
            return _registered(name, version if sign == "/" else f"@{version}")
    return _entry(text)


def _entry(text: str) -> Lineage:
    snapshot, name = history.split(text)
    steps = [_made(step, snapshot) for step in snapshot.steps(name)]
    last = steps[-1]
    score = snapshot.scores(last.step) if last.step.stage == "evaluate" else {}
    commit = gitfiles.commit_of(*(made.step for made in steps), rev=snapshot.rev) or last.commit
    if gitfiles.has_commit(commit):
        steps = [replace(made, others=_others(made.step, commit)) for made in steps]
    return Lineage(title=text, name=name, steps=steps, score=_numbers(score), commit=commit)


def _made(step: Step, snapshot: Snapshot) -> Made:
    folder = Path(step.folder)
    if snapshot.rev is not None:  # the folders here are of other runs
        return Made(step=step, commit=gitfiles.commit_of(step, rev=snapshot.rev))
    run = earlier.run_of(provenance.digest(folder)) if step.output and folder.is_dir() else None
    commit = (run or {}).get("commit")
    if commit and run["dirty"] and step.recorded:  # the run began with changes that a later commit has
        commit = gitfiles.commit_of(step) or commit
    commit = commit or gitfiles.commit_of(step)
    return Made(step=step, commit=commit, run=run, elsewhere=history.differs(step, snapshot.lock))


def _others(step: Step, commit: str) -> tuple[str, ...]:
    return tuple(gitfiles.changed_since(step, commit)) if step.recorded else ()


def _registered(name: str, version: str) -> Lineage:
    """By MLflow alone: from a version's run back through the runs that wrote what it read."""
    run = earlier.version(name, version)
    if run is None:
        raise UserError(
            f"MLflow at {tracking.place(Path())} has no model {name!r} {version}: `python -m wm ui` shows what it has"
        )
    steps: dict[str, Made] = {}

    def visit(run: Mapping[str, Any]) -> None:
        for folder, digest in run["inputs"].items():
            before = None if folder.startswith(history.ZERO) else earlier.run_of(digest)
            if before and before["output"] not in steps:
                visit(before)
        steps[run["output"]] = Made(step=_step(run), commit=run["commit"], run=run)

    visit(run)
    score = run["metrics"] if run["stage"] == "evaluate" else {}
    return Lineage(
        title=run["version"], name=run["name"], steps=list(steps.values()), score=score, commit=run["commit"]
    )


def _step(run: Mapping[str, Any]) -> Step:
    """A step as MLflow tells it: hashes are sha256 digests (`provenance.digest`), values are text."""
    return Step(
        stage=run["stage"],
        name=run["name"],
        inputs=run["inputs"],
        output=run["output"],
        code={},
        params={f"run.{run['stage']}.{key}": value for key, value in run["params"].items()},
        recorded=False,
    )


def _numbers(score: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in score.items() if isinstance(value, int | float)}


# ---------------------------------------------------------------- as text


def text(lineage: Lineage) -> str:
    """What `python -m wm lineage` prints."""
    return "\n".join(_lines(lineage))


def _lines(lineage: Lineage) -> Iterator[str]:
    yield f"{lineage.title}: {score_text(lineage.score)}"
    for number, made in enumerate(lineage.steps, 1):
        step = made.step
        yield ""
        yield f"{number:>2} {step.address}"
        for path, hashed in step.inputs.items():
            yield f"     reads  {path:<32} {short_hash(hashed)}"
        yield f"     wrote  {step.folder:<32} {short_hash(step.output) if step.output else 'not made yet'}"
        if step.params:
            yield f"     params {', '.join(f'{key} {value}' for key, value in sorted(step.numbers.items()))}"
        yield f"     code   {code_text(made)}"
        if made.run:
            yield f"     run    {run_text(made.run)}"
    yield ""
    yield "Make it again:"
    yield f"  {lineage.again}"
    yield from (f"  ({doubt})" for doubt in lineage.doubts)


def score_text(score: Mapping[str, float]) -> str:
    """`853.7 ± 61.3 over 100 episodes, 95% interval of the mean 841.0 to 865.3`."""
    if not score:
        return "no score here"
    said = f"{score['mean']:.1f} ± {score['std']:.1f} over {score['episodes']:.0f} episodes"
    if "ci95_low" in score:
        said += f", 95% interval of the mean {score['ci95_low']:.1f} to {score['ci95_high']:.1f}"
    return said


def code_text(made: Made) -> str:
    """The commit, and whether that is all."""
    said = f"commit {made.commit[:12]}" if made.commit else "no commit known"
    if made.step.code:
        said += f", {len(made.step.code)} rooms and files in dvc.lock"
    elif not made.run:
        said += ", not run by DVC, so not in dvc.lock"
    if made.others:
        said += f"; with changes: {', '.join(made.others)}"
    elif (made.run or {}).get("dirty"):
        said += "; the working tree had changes" + (" elsewhere" if made.step.code else "")
    return said


def run_text(run: Mapping[str, Any]) -> str:
    """When, for how long, and which MLflow run."""
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run["start_ms"] / 1000))
    version = f", registered as {run['version']}" if run["version"] else ""
    return f"{when} UTC, {duration(run['seconds'])}{version}, MLflow {run['url'] or run['run_id']}"


def duration(seconds: float) -> str:
    """`38 s`, `7 min 10 s`, `2 h 5 min`."""
    minutes, left = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def short_hash(hashed: str | None) -> str:
    """The first 12 letters of a hash."""
    return hashed[:12] if hashed else "not here"
