"""params.yaml, read once: every number of every experiment, checked before anything is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from wm import worlds
from wm.core.config import Config
from wm.core.errors import UserError
from wm.play.cluster import ClusterConfig
from wm.stages.collect import CollectConfig
from wm.stages.encode import EncodeConfig
from wm.stages.evaluate import EvaluateConfig
from wm.stages.evolve import EvolveConfig
from wm.stages.train_mdn import TrainMDNConfig
from wm.stages.train_vae import TrainVAEConfig

FILE = Path("params.yaml")
ZERO = "zero"
"""The predecessor of every first round: runs/zero holds no data, no model and no controller."""
MODEL_SECTIONS = ("collect", "train_vae", "encode", "train_mdn")
AGENT_SECTIONS = ("evolve", "evaluate")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class GateConfig(ClusterConfig):
    """How challenger and champion are compared."""

    episodes: int = Field(24, ge=2, description="gate episodes that both play")
    episodes_per_job: int = Field(12, ge=1, description="episodes in a job, the unit that goes to a worker")
    slots: int = Field(12, ge=1, description="environments that a job steps side by side")


class Experiment(Config):
    """A world and its numbers, a section a stage; those of models alone or agents alone lack the rest."""

    world: str = Field(description="which world: car_racing or take_cover")
    collect: CollectConfig | None = Field(None, description="episodes of the world")
    train_vae: TrainVAEConfig | None = Field(None, description="V")
    encode: EncodeConfig | None = Field(None, description="V's view of every frame")
    train_mdn: TrainMDNConfig | None = Field(None, description="M")
    evolve: EvolveConfig | None = Field(None, description="C")
    evaluate: EvaluateConfig | None = Field(None, description="the score that is reported")
    gate: GateConfig = Field(GateConfig(), description="whether the agent becomes champion (no stage)")

    @field_validator("world")
    @classmethod
    def _known(cls, world: str) -> str:
        if world not in worlds.names():
            raise ValueError(f"is no world: expected one of {', '.join(worlds.names())}")
        return world


class Model(Config):
    """A round of V and M."""

    experiment: str = Field(description="whose numbers")
    after: str = Field(ZERO, description="the model that it continues, with its data; zero for none")
    actor: str = Field(ZERO, description="the agent that collects; zero for the random policy")
    seed: int = Field(ge=0, description="every random number of the round comes from it")


class AgentEntry(Config):
    """A C evolved with one model."""

    experiment: str = Field(description="whose numbers")
    model: str = Field(description="the model that it sees and remembers with")
    after: str = Field(ZERO, description="the agent whose controller the search starts from; zero for none")
    tau: float = Field(gt=0, description="temperature of the dream that it is evolved in (paper: 1.15 is best)")
    seed: int = Field(ge=0, description="every random number of the search comes from it; test episodes are the same")


class Params(Config):
    """The whole file."""

    experiments: dict[str, Experiment] = Field(description="every number: an entry an experiment, a section a stage")
    models: dict[str, Model] = Field(description="an entry a round: what it continues, who collects")
    agents: dict[str, AgentEntry] = Field(
        description="an entry an agent: which model it learns on, what it starts from"
    )

    def entry(self, section: Literal["models", "agents"], name: str) -> Model | AgentEntry:
        """The entry of this name.

        Raises:
            UserError: there is none; names those that there are.
        """
        entries = getattr(self, section)
        if name not in entries:
            raise UserError(f"{name!r} is not in `{section}` of params.yaml: expected one of {', '.join(entries)}")
        return entries[name]

    @field_validator("experiments", "models", "agents")
    @classmethod
    def _names(cls, entries: dict[str, Any]) -> dict[str, Any]:
        for name in entries:
            check_name(name)
        return entries

    @model_validator(mode="after")
    def _references(self) -> Params:
        for name, model in self.models.items():
            _known(f"models.{name}.experiment", model.experiment, self.experiments)
            _known(f"models.{name}.after", model.after, self.models, ZERO)
            _known(f"models.{name}.actor", model.actor, self.agents, ZERO)
        for name, agent in self.agents.items():
            _known(f"agents.{name}.experiment", agent.experiment, self.experiments)
            _known(f"agents.{name}.model", agent.model, self.models)
            _known(f"agents.{name}.after", agent.after, self.agents, ZERO)
        for kind, sections in (("models", MODEL_SECTIONS), ("agents", AGENT_SECTIONS)):
            for name, entry in getattr(self, kind).items():
                for section in sections:
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
            f"{kind}.{name}": self.experiments[entry.experiment].world
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


def load(path: Path | str = FILE) -> Params:
    """The parameters.

    Raises:
        UserError: the file is missing or not YAML, or a key is unknown, of the wrong type or impossible; names the key.
    """
    path = Path(path)
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is not here: run from the repository's top") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): it has to be a file of yours") from None
    except (YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path} is not valid YAML{line}: {problem}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_sentence(error)}") from None


def check_name(name: str) -> str:
    """A name that may become a path, and a part of a dotted key: lower-case letters, digits, `_`, `-`.

    Raises:
        ValueError: it is something else, or `zero`.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name == ZERO:
        raise ValueError(f"{name!r} is not a name: use lower-case letters, digits, '_' and '-', and not '{ZERO}'")
    return name


def _known(key: str, name: str, entries: dict[str, Any], also: str | None = None) -> None:
    if name not in entries and name != also:
        expected = ", ".join([*entries, *filter(None, [also])])
        raise ValueError(f"{key} is {name!r}: expected one of {expected}")


def _sentence(error: ValidationError) -> str:
    """The first error of pydantic's list as one sentence that names the key."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{key} is no key that is known here: remove it, or look at `python -m wm params`"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":
        return f"{key} {message}" if key and not message.startswith(("models.", "agents.")) else message
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key or 'the file'} has to be a mapping of keys to values"
    return f"{key} is {first['input']!r}: {message[0].lower()}{message[1:]}"


def describe() -> list[str]:
    """A line for every key: dotted name, type, default, meaning."""
    roots = {"experiments.NAME": Experiment, "models.NAME": Model, "agents.NAME": AgentEntry}
    return [line for root, config in roots.items() for line in _describe(root, config)]


def _describe(prefix: str, config: type[Config]) -> list[str]:
    lines = []
    for name, field in config.model_fields.items():
        section = next(iter(get_args(field.annotation)), field.annotation)  # a Config, or Config | None
        if isinstance(section, type) and issubclass(section, Config):
            lines += _describe(f"{prefix}.{name}", section)
            continue
        kind = getattr(field.annotation, "__name__", str(field.annotation))
        default = "required" if field.is_required() else f"default {field.default!r}"
        lines.append(f"{prefix}.{name} ({kind}, {default}): {field.description}")
    return lines
