"""params.yaml, and trials/params.yaml beside it, read once: everything is checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

import wm
from wm import worlds
from wm.core import files
from wm.core.config import Config
from wm.core.errors import UserError
from wm.play.cluster import ClusterConfig
from wm.stages import STAGES, of
from wm.stages.collect import CollectConfig
from wm.stages.encode import EncodeConfig
from wm.stages.evaluate import EvaluateConfig
from wm.stages.evolve import EvolveConfig
from wm.stages.train_mdn import TrainMDNConfig
from wm.stages.train_vae import TrainVAEConfig
from wm.worlds.entry import WorldEntry

FILE = Path("params.yaml")
TRIALS = Path("trials")
"""The folder of what was tried, with a params.yaml and a dvc.yaml of its own."""
OF_TRIALS = ("experiments", "models", "agents")
"""Its sections: worlds and machines are those of params.yaml."""
ZERO = "zero"
"""The predecessor of every first round: runs/zero holds no data, no model and no controller."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class GateConfig(ClusterConfig):
    """How challenger and champion are compared."""

    episodes: int = Field(24, ge=2, description="gate episodes that both play")
    episodes_per_job: int = Field(12, ge=1, description="episodes in a job, the unit that goes to a worker")
    slots: int = Field(12, ge=1, description="environments that a job steps side by side")


class Experiment(Config):
    """Numbers, a section a stage; those of models alone or agents alone lack the rest."""

    collect: CollectConfig | None = Field(None, description="episodes of the world")
    train_vae: TrainVAEConfig | None = Field(None, description="V")
    encode: EncodeConfig | None = Field(None, description="V's view of every frame")
    train_mdn: TrainMDNConfig | None = Field(None, description="M")
    evolve: EvolveConfig | None = Field(None, description="C")
    evaluate: EvaluateConfig | None = Field(None, description="the score that is reported")
    gate: GateConfig = Field(GateConfig(), description="whether the agent becomes champion (no stage)")


class Model(Config):
    """A round of V and M."""

    experiment: str = Field(description="whose numbers")
    world: str = Field(description="the entry of `worlds` that plays")
    code: str = Field(description="path of the files that play it: the stages depend on them, and on no other world's")
    after: str = Field(ZERO, description="the model that it continues, with its data; zero for none")
    actor: str = Field(ZERO, description="the agent that collects; zero for the random policy")
    seed: int = Field(ge=0, description="every random number of the round comes from it")


class AgentEntry(Config):
    """A C evolved with one model."""

    experiment: str = Field(description="whose numbers")
    world: str = Field(description="the entry of `worlds` that plays: the model's")
    code: str = Field(description="path of the files that play it: the stages depend on them, and on no other world's")
    model: str = Field(description="the model that it sees and remembers with")
    after: str = Field(ZERO, description="the agent whose controller the search starts from; zero for none")
    tau: float = Field(gt=0, description="temperature of the dream that it is evolved in (paper: 1.15 is best)")
    seed: int = Field(ge=0, description="every random number of the search comes from it; test episodes are the same")


class Params(Config):
    """Both files."""

    worlds: dict[str, WorldEntry] = Field(description="an entry a world: who plays")
    experiments: dict[str, Experiment] = Field(description="every number: an entry an experiment, a section a stage")
    models: dict[str, Model] = Field(description="an entry a round: what it continues, who collects")
    agents: dict[str, AgentEntry] = Field(
        description="an entry an agent: which model it learns on, what it starts from"
    )
    machines: dict[str, dict[str, dict[str, Any]]] = Field(
        {},
        description="an entry a kind of machine: what it sets in each experiment that is run on it, a section a stage",
    )
    _trials: frozenset[str] = PrivateAttr(frozenset())
    _mistake: str = PrivateAttr("")

    def address(self, stage: str, name: str) -> str:
        """What DVC calls a stage: evolve@smoke, trials/dvc.yaml:evolve@ablation."""
        trial = f"{STAGES[stage].of}.{name}" in self._trials
        return f"{TRIALS}/dvc.yaml:{stage}@{name}" if trial else f"{stage}@{name}"

    def entry(self, section: Literal["models", "agents"], name: str) -> Any:
        """The entry of this name, a Model or an AgentEntry.

        Raises:
            UserError: there is none; names those that there are, or the mistake that keeps the trials out.
        """
        entries = getattr(self, section)
        if name not in entries:
            if self._mistake:
                raise UserError(self._mistake)
            raise UserError(f"{name!r} is not in `{section}` of params.yaml: expected one of {', '.join(entries)}")
        return entries[name]

    @field_validator("worlds", "experiments", "models", "agents", "machines")
    @classmethod
    def _names(cls, entries: dict[str, Any]) -> dict[str, Any]:
        for name in entries:
            check_name(name)
        return entries

    @model_validator(mode="after")
    def _references(self) -> Params:
        for name, model in self.models.items():
            _known(f"models.{name}.experiment", model.experiment, self.experiments)
            _known(f"models.{name}.world", model.world, self.worlds)
            _known(f"models.{name}.after", model.after, self.models, ZERO)
            _known(f"models.{name}.actor", model.actor, self.agents, ZERO)
        for name, agent in self.agents.items():
            _known(f"agents.{name}.experiment", agent.experiment, self.experiments)
            _known(f"agents.{name}.world", agent.world, self.worlds)
            _known(f"agents.{name}.model", agent.model, self.models)
            _known(f"agents.{name}.after", agent.after, self.agents, ZERO)
        for name, sections in self.machines.items():
            for stage, numbers in sections.items():
                _known(f"machines.{name}", stage, STAGES)
                for key in numbers:
                    _known(f"machines.{name}.{stage}", key, config_of(stage).model_fields)
        for kind in ("models", "agents"):
            for name, entry in getattr(self, kind).items():
                for section in of(kind):
                    if getattr(self.experiments[entry.experiment], section) is None:
                        raise ValueError(
                            f"experiments.{entry.experiment}.{section} is missing, which {kind}.{name} needs"
                        )
        self._one_world()
        self._no_circles()
        return self

    def _one_world(self) -> None:
        """What an entry builds on belongs to the same world."""
        worlds_of = {
            f"{kind}.{name}": entry.world
            for kind in ("models", "agents")
            for name, entry in getattr(self, kind).items()
        }
        for entry, others in self._links().items():
            for key, other in others.items():
                if worlds_of[entry] != worlds_of[other]:
                    raise ValueError(
                        f"{entry}.{key} is {other.partition('.')[2]!r}, of {worlds_of[other]}: "
                        f"expected one of {worlds_of[entry]}"
                    )

    def _no_circles(self) -> None:
        """Rounds follow one another."""
        links, done = self._links(), set()

        def visit(entry: str, above: tuple[str, ...]) -> None:
            for key, other in links[entry].items() if entry not in done else ():
                if other in (*above, entry):
                    raise ValueError(
                        f"{entry}.{key} is {other.partition('.')[2]!r}, which itself builds on {entry}: "
                        "expected an earlier one"
                    )
                visit(other, (*above, entry))
            done.add(entry)

        for entry in links:
            visit(entry, ())

    def _links(self) -> dict[str, dict[str, str]]:
        """What each entry builds on: {"models.NAME": {"after": "models.OTHER"}, …}, without `zero`."""
        keys = {"models": {"after": "models", "actor": "agents"}, "agents": {"model": "models", "after": "agents"}}
        return {
            f"{kind}.{name}": {
                key: f"{section}.{getattr(entry, key)}"
                for key, section in keys[kind].items()
                if getattr(entry, key) != ZERO
            }
            for kind in keys
            for name, entry in getattr(self, kind).items()
        }


def config_of(stage: str) -> type[Config]:
    """The configuration of a stage."""
    return next(kind for kind in get_args(Experiment.model_fields[stage].annotation) if kind is not type(None))


def load(path: Path | str = FILE) -> Params:
    """The parameters, those of the trials beside them too; `worlds.get` knows their worlds from then on.

    A mistake among the trials is one of who asks for a trial: `Params.entry` then says it.

    Raises:
        UserError: the file is missing or not YAML, or a key is unknown, of the wrong type or impossible; names the key.
    """
    path = Path(path)
    content = _read(path)
    everything = _checked(content, path)
    _check_code(everything, path, path.parent)
    trials = path.parent / TRIALS / FILE.name
    if trials.exists():
        try:
            everything = _with_trials(everything, content, trials)
        except UserError as error:
            everything._mistake = str(error)
    for name, world in everything.worlds.items():
        worlds.register(name, world.entry_point, world.options(name))
    return everything


def _read(path: Path) -> Any:
    """What a file says, read as DVC does."""
    try:
        return files.parse_yaml(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise UserError(f"{path} is not here: run this in the top folder of a checkout of the repository") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): it has to be a file of yours") from None


def _checked(content: Any, path: Path) -> Params:
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_sentence(error)}") from None


def _with_trials(everything: Params, content: dict[str, Any], path: Path) -> Params:
    """Both files as one. A trial may build on models and agents of params.yaml, but its numbers stand beside it: DVC
    looks for them there."""
    trials = _read(path)
    if not isinstance(trials, dict) or not all(isinstance(part, dict) for part in trials.values()):
        raise UserError(f"{path}: the file and each of its sections have to be mappings of keys to values")
    for name, entries in trials.items():
        if name not in OF_TRIALS:
            raise UserError(f"{path}: {name} is no section of trials: expected some of {', '.join(OF_TRIALS)}")
        if twice := sorted(map(str, {*entries} & {*content[name]})):
            raise UserError(f"{path}: {name}.{twice[0]} stands in {FILE} too: give the trial another name")
    both = _checked(content | {name: content[name] | entries for name, entries in trials.items()}, path)
    both._trials = frozenset(f"{kind}.{name}" for kind in ("models", "agents") for name in trials.get(kind, ()))
    for entry in both._trials:
        kind, name = entry.split(".")
        if (experiment := getattr(both, kind)[name].experiment) in everything.experiments:
            raise UserError(f"{path}: {entry}.experiment is {experiment!r}, of {FILE}: expected one of this file")
    _check_code(both, path, path.parents[1])
    return both


def _check_code(everything: Params, path: Path, top: Path) -> None:
    """Whether `code` of each entry holds what plays its world: what it leaves out could change unseen."""
    plays = {name: _file(name, world, path, top) for name, world in everything.worlds.items()}
    for kind in ("models", "agents"):
        for name, entry in getattr(everything, kind).items():
            said, code = f"{path}: {kind}.{name}.code is {entry.code!r}", Path(entry.code)
            if code.is_absolute() or ".." in code.parts:
                raise UserError(f"{said}: expected a path from the repository's top")
            here = code_path(entry.code, top)
            if not here.exists() and not here.with_name(f"{here.name}.dvc").exists():
                raise UserError(f"{said}, which is not here: expected the files that play {entry.world}")
            if not plays[entry.world].is_relative_to(code):
                raise UserError(f"{said}, but {plays[entry.world]} plays {entry.world}: expected a path that holds it")


def _file(name: str, world: WorldEntry, path: Path, top: Path) -> Path:
    """What plays a world: a module, or the folder of its recordings."""
    if world.recordings:
        return Path(world.recordings)
    module = world.entry_point.partition(":")[0].replace(".", "/")
    for file in (f"{module}.py", f"{module}/__init__.py"):
        if code_path(file, top).is_file():
            return Path(file)
    raise UserError(f"{path}: worlds.{name}.own is {world.own!r}, but there is no {module}.py here")


def code_path(path: str, top: Path = Path()) -> Path:
    """Where a file or folder of code lies: this package's beside the package itself, all else below `top`."""
    return (Path(wm.__file__).parents[1] if path.startswith("wm/") else top) / path


def check_name(name: str) -> str:
    """A name that may become a path, and a part of a dotted key: lower-case letters, digits, `_`, `-`.

    Raises:
        ValueError: it is something else, or `zero`.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name == ZERO:
        raise ValueError(f"{name!r} is not a name: use lower-case letters, digits, '_' and '-', and not '{ZERO}'")
    return name


def _known(key: str, name: str, entries: Collection[str], also: str | None = None) -> None:
    if name not in entries and name != also:
        expected = ", ".join([*entries, *filter(None, [also])])
        raise ValueError(f"{key} is {name!r}: expected one of {expected}")


def _sentence(error: ValidationError) -> str:
    """The first error of pydantic's list as one sentence that names the key."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{key} is no key of params.yaml: remove it, or see `python -m wm params` for all keys"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":
        return f"{key} {message}" if key and not message.startswith(("models.", "agents.")) else message
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key or 'the file'} has to be a mapping of keys to values"
    return f"{key} is {first['input']!r}: {message[0].lower()}{message[1:]}"
