"""What is on record about how outputs were made: dvc.lock, params.yaml and runs/, here or at an earlier commit.

Those of trials/ are read beside them: a name stands in one of the two files only.

DVC's files are read as what they are, YAML and a cache of files by md5; DVC itself is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wm import worlds
from wm.core import files
from wm.core.errors import DamagedData, UserError
from wm.records import dvcfiles, git
from wm.stages import STAGES

ZERO = "runs/zero/"
TRIALS = "trials/"
LOCKS = ("dvc.lock", f"{TRIALS}dvc.lock")
CHANGED = "`git diff` shows what was changed"
ASIDE = ("workers", "checkpoint_every")
"""Numbers of older records that decide no bit, and that params.yaml no longer has."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage of a name: what it was made from, and what came out.

    Attributes:
        inputs: data folders -> DVC's md5 (None where a folder is not here).
        output: DVC's md5 of runs/NAME/<stage>; None if it was not made.
        code: files and folders of code -> DVC's md5; empty where DVC did not run the stage.
        params: full dotted key of params.yaml -> value.
        recorded: whether dvc.lock says so; else it is what params.yaml and the folders here say now.
        trial: whether the name is one of trials/.
    """

    stage: str
    name: str
    inputs: Mapping[str, str | None]
    output: str | None
    code: Mapping[str, str]
    params: Mapping[str, Any]
    recorded: bool
    trial: bool = False

    @property
    def address(self) -> str:
        """As in dvc.yaml: "train_vae@smoke"."""
        return f"{self.stage}@{self.name}"

    @property
    def target(self) -> str:
        """What to ask DVC for: the address, of a trial with the file that has it."""
        return f"{TRIALS}dvc.yaml:{self.address}" if self.trial else self.address

    @property
    def folder(self) -> str:
        """runs/NAME/<stage>."""
        return f"runs/{self.name}/{self.stage}"

    @property
    def numbers(self) -> dict[str, Any]:
        """The parameters by their last names, which are the same for every experiment: {"seed": 0, "steps": 40}.

        Which class plays the world is code, and no number; what decides no bit is left out.
        """
        found: dict[str, Any] = {}
        for key, value in self.params.items():
            if key.startswith("worlds."):
                found["world"], _, rest = key.removeprefix("worlds.").partition(".")
                found |= {} if rest in ("", "own") else {f"world.{rest}": value}
            elif (short := _short(key)) not in ASIDE:
                found[short] = value
        return found


class Snapshot:
    """The project as it is here, or as git has it at a commit.

    Args:
        rev: a commit-ish; None for the files here.
    """

    def __init__(self, rev: str | None = None):
        self.rev = rev
        if rev is not None and not git.find(Path.cwd(), rev):
            raise UserError(f"{rev!r} is no commit that git knows here: look at `git log`, or run `git fetch`")

    def text(self, path: str) -> str | None:
        """A file that git keeps; None if there is none.

        Raises:
            DamagedData: it is no text.
        """
        try:
            if self.rev is not None:
                found = git.content(Path.cwd(), self.rev, path)
                return None if found is None else found.decode()
            return Path(path).read_text(encoding="utf-8") if Path(path).is_file() else None
        except UnicodeDecodeError as error:
            raise DamagedData(f"{self._name(path)} is no UTF-8 text ({error}): {CHANGED}") from None

    @property
    def lock_text(self) -> str:
        """dvc.lock's text, and that of the trials."""
        return "".join(self.text(path) or "" for path in LOCKS)

    @cached_property
    def lock(self) -> dict[str, Any]:
        """dvc.lock's stages by address, those of the trials too.

        Raises:
            DamagedData: it is not as DVC writes it.
        """
        found: dict[str, Any] = {}
        for path in LOCKS:
            stages = _mapping(self._yaml(path).get("stages") or {}, f"{self._name(path)}: stages")
            for address, stage in stages.items():
                if stage is not None and not _is_entry(stage):
                    raise DamagedData(f"{self._name(path)}: stages.{address} is not as DVC writes it: {CHANGED}")
            found |= stages
        return found

    @cached_property
    def trials(self) -> dict[str, Any]:
        """trials/params.yaml, unchecked; empty if there is none."""
        return self._yaml(f"{TRIALS}params.yaml")

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml and the trials' as one, unchecked: old ones need not fit today's schema."""
        own = self._yaml("params.yaml")
        return {
            key: value | self.trials[key] if isinstance(value, dict) and self.trials.get(key) else value
            for key, value in own.items()
        }

    def _yaml(self, path: str) -> dict[str, Any]:
        content = files.parse_yaml(self.text(path) or "", self._name(path)) or {}
        return _mapping(content, self._name(path))

    def read(self, step: Step, name: str) -> bytes | None:
        """A file of a step's output: from its folder here, else from DVC's cache; None if neither has it."""
        path = Path(step.folder, name)
        if self.rev is None and path.is_file():
            return path.read_bytes()
        return dvcfiles.cached(step.output, name) if step.output else None

    def json(self, step: Step, name: str) -> dict[str, Any]:
        """As `read`, parsed; empty if there is none.

        Raises:
            DamagedData: it is not whole.
        """
        return _object(self.read(step, name), f"{step.folder}/{name}")

    def _name(self, path: str) -> str:
        """Of a file, for who has to look at it."""
        return f"{path} of commit {self.rev}" if self.rev else path

    def scores(self, step: Step) -> dict[str, Any]:
        """What an `evaluate` says: its scores.json, or, where neither runs/ nor DVC's cache has it, what git has of it.

        Returns:
            as `evaluate` writes it; of metrics/NAME.json without each episode's score. Empty if there is none.
        """
        if step.output is None:
            return {}
        if found := self.json(step, "scores.json"):
            return sound(found, f"{step.folder}/scores.json")
        metrics = f"metrics/{step.name}.json"
        cure = f"`git checkout {metrics}` brings it back"
        found = _object(self.text(metrics), self._name(metrics), cure).get("score", {})
        world, drawing = step.numbers.get("world"), step.numbers.get("drawing")
        if drawing is None and world in worlds.names():
            drawing = worlds.get(world).spec.drawings[-1]
        return found and {"world": world, "drawing": drawing, **found}

    def steps(self, name: str) -> list[Step]:
        """Every step behind the score of agent `name` (or behind model `name`), the first first.

        Raises:
            UserError: neither params.yaml nor dvc.lock knows the name.
        """
        last = self._last(name)
        found: dict[str, Step] = {}

        def visit(stage: str, name: str) -> None:
            step = self.step(stage, name)
            for folder in step.inputs:
                if not folder.startswith(ZERO):
                    _, other, before = Path(folder).parts
                    if f"{before}@{other}" not in found:
                        visit(before, other)
            found[step.address] = step

        visit(*last)
        return list(found.values())

    def _last(self, name: str) -> tuple[str, str]:
        for stage, section in (("evaluate", "agents"), ("train_mdn", "models")):
            if f"{stage}@{name}" in self.lock or name in (self.params.get(section) or {}):
                return stage, name
        where = f" at {self.rev}" if self.rev else ""
        if not self.params:
            raise UserError(
                f"there is no params.yaml here{where}: run this in the top folder of a checkout of the repository"
            )
        known = {key: None for section in ("agents", "models") for key in self.params.get(section) or {}}
        raise UserError(
            f"{name!r} is not in `agents` or `models` of params.yaml{where}: expected one of {', '.join(known)}"
        )

    def step(self, stage: str, name: str) -> Step:
        """A stage of a name, as dvc.lock has it; where it has not, as params.yaml and the folders here say."""
        entry = self.lock.get(f"{stage}@{name}")
        if entry is None:
            return self._unrecorded(stage, name)
        deps = {dep["path"]: dep["md5"] for dep in entry.get("deps", ())}
        outs = {out["path"]: out["md5"] for out in entry.get("outs", ())}
        params = (entry.get("params") or {}).values()  # of params.yaml, of trials/params.yaml
        return Step(
            stage=stage,
            name=name,
            inputs={path: md5 for path, md5 in deps.items() if path.startswith("runs/")},
            output=outs.get(f"runs/{name}/{stage}"),
            code={path: md5 for path, md5 in deps.items() if not path.startswith("runs/")},
            params={key: value for sections in params for key, value in flat(sections)},
            recorded=True,
            trial=self._of_trials(stage, name),
        )

    def _of_trials(self, stage: str, name: str) -> bool:
        return name in (self.trials.get(STAGES[stage].of) or {})

    def _unrecorded(self, stage: str, name: str) -> Step:
        """A step that DVC did not run: as params.yaml has it, with the folders that are here."""
        known = STAGES[stage]
        section, own = self.params.get(known.of) or {}, f"runs/{name}"
        if name not in section:
            raise UserError(f"{stage}@{name} is in neither dvc.lock nor params.yaml, so nothing says how it was made")
        entry = section[name]
        inputs = [
            f"{own}/{before}" if whose == "own" else f"runs/{entry.get(whose, 'zero')}/{before}"
            for whose, before in known.reads.values()
        ]
        experiment = entry["experiment"]
        numbers = (self.params.get("experiments") or {}).get(experiment) or {}
        params = {f"experiments.{experiment}.{stage}": numbers.get(stage) or {}}
        params |= {f"{known.of}.{name}.{key}": entry[key] for key in known.own if key != "world" and key in entry}
        if "world" in known.own and "world" in entry:
            params[f"worlds.{entry['world']}"] = (self.params.get("worlds") or {}).get(entry["world"]) or {}
        elif "world" in known.own:  # before worlds had a section, the experiment named its own
            params[f"experiments.{experiment}.world"] = numbers.get("world")
        here = self.rev is None
        return Step(
            stage=stage,
            name=name,
            inputs={path: dvcfiles.md5(path) if here else None for path in inputs},
            output=dvcfiles.md5(f"{own}/{stage}") if here else None,
            code={},
            params=dict(flat(params)),
            recorded=False,
            trial=self._of_trials(stage, name),
        )


def sound(scores: Any, name: str) -> dict[str, Any]:
    """Scores, as `evaluate` writes them.

    Args:
        name: of their file.
    Raises:
        DamagedData: they are something else.
    """
    found = _mapping(scores, name)
    numbers = found.get("scores")
    seeds = found.get("seeds", numbers)
    lists = isinstance(numbers, list) and isinstance(seeds, list)
    lists = lists and len(numbers) == len(seeds) == found.get("episodes", len(numbers))
    if not lists or not all(isinstance(each, (int, float)) for each in (*numbers, *seeds, found.get("mean"))):
        raise DamagedData(f"{name} does not hold a score and a seed of each episode: {files.MEND}")
    return found


def split(text: str) -> tuple[Snapshot, str]:
    """`NAME`, or a commit-ish and a name such as `HEAD~3:smoke`."""
    rev, _, name = text.rpartition(":")
    return Snapshot(rev or None), name


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree with dotted keys: {"model": {"z_size": 64}} -> ("model.z_size", 64)."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differs(step: Step, lock: Mapping[str, Any]) -> bool:
    """Whether the folder of a recorded step is another now than when DVC recorded it; False if it is not here.

    Of a data set, which may be large, the count and the sizes of its files stand for its bytes.
    """
    folder = Path(step.folder)
    if not step.recorded or not folder.is_dir():
        return False
    if not (folder / "manifest.json").exists():
        return dvcfiles.md5(folder) != step.output
    record = next(out for out in lock[step.address]["outs"] if out["path"] == step.folder)
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return (len(sizes), sum(sizes)) != (record.get("nfiles"), record.get("size"))


def _short(key: str) -> str:
    """`experiments.NAME.collect.stall` -> `stall`; `models.NAME.seed` -> `seed`; `agents.NAME.tau` -> `tau`."""
    parts = key.split(".")[2:]
    return ".".join(parts[1:] if parts[0] in STAGES else parts)


def _object(data: bytes | str | None, name: str, cure: str = files.MEND) -> dict[str, Any]:
    """What JSON says, which is a mapping; empty where there is none."""
    return _mapping(files.parse_json(data, name, cure), name) if data else {}


def _mapping(content: Any, name: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise DamagedData(f"{name} has to be a mapping of keys to values: {CHANGED}")
    return content


def _is_entry(stage: Any) -> bool:
    """Whether this is how DVC records a stage."""
    if not isinstance(stage, dict):
        return False
    lists, params = [stage.get(key) or [] for key in ("deps", "outs")], stage.get("params") or {}
    return (
        all(isinstance(one, list) for one in lists)
        and all(isinstance(row, dict) and {"path", "md5"} <= row.keys() for one in lists for row in one)
        and isinstance(params, dict)
        and all(isinstance(values, dict) for values in params.values())
    )
