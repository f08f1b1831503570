"""What is run in both commits: the smokes as they are, and small experiments on top of them (cases.yaml).

A case is written into a commit's own params.yaml as a copy of its smoke's lines with some values replaced. So whatever
else a line of that commit has (which world, which code) comes along, and no layout of the file is known here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

SMOKES = ("smoke", "take_cover_smoke")
OF_MODEL = ("collect", "train_vae", "encode", "train_mdn")
OF_AGENT = ("evolve", "evaluate")
STAGES = (*OF_MODEL, *OF_AGENT)
PREFIX = "same_bits-"
"""Of a case's entries in params.yaml."""
NOT_COMPARED = {
    "device": "needs a GPU",
    "workers": "decides no bit",
    "checkpoint_every": "decides no bit",
}
"""Options that a kept agent may use and no case does."""


@dataclass(frozen=True)
class Case:
    """A small experiment: what it changes of the smoke that it is like, and what it builds on."""

    name: str
    like: str
    sections: Mapping[str, Mapping[str, Any]]
    links: Mapping[str, str]
    tau: float | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The smokes and cases whose outputs it reads."""
        return tuple(dict.fromkeys([self.like, *self.links.values()]))

    @property
    def runs(self) -> list[str]:
        """Addresses of the stages that run, in order."""
        return [f"{stage}@{entry(self.name)}" for stage in STAGES if stage in self.sections]

    @property
    def options(self) -> set[str]:
        """Dotted keys that it sets: evolve.directions, train_vae.model.focus."""
        return set(options(self.sections))


def load() -> dict[str, Case]:
    """The cases of cases.yaml, in order."""
    content = YAML(typ="safe").load(Path(__file__).with_name("cases.yaml"))
    found = {}
    for name, numbers in content.items():
        found[name] = Case(
            name=name,
            like=numbers["like"],
            sections={stage: numbers[stage] for stage in STAGES if stage in numbers},
            links={key: numbers[key] for key in ("after", "actor", "model_after") if key in numbers},
            tau=numbers.get("tau"),
        )
    return found


def entry(name: str) -> str:
    """What a smoke or a case is called in params.yaml."""
    return name if name in SMOKES else PREFIX + name


def definition(name: str, cases: Mapping[str, Case]) -> str:
    """Everything that a smoke or a case is made of besides its smoke's numbers, as one text."""
    if name in SMOKES:
        return name
    case = cases[name]
    before = {key: definition(other, cases) for key, other in {"like": case.like, **case.links}.items()}
    return json.dumps([before, case.sections, case.tau], sort_keys=True)


def add(params: Mapping[str, Any], cases: Mapping[str, Case]) -> dict[str, Any]:
    """params.yaml's content with the entries of these cases."""
    params = copy.deepcopy(dict(params))
    for case in cases.values():
        name = entry(case.name)
        numbers = copy.deepcopy(params["experiments"][case.like])
        for stage, changes in case.sections.items():
            numbers[stage] = {**numbers.get(stage, {}), **changes}
        params["experiments"][name] = numbers
        links = {key: entry(other) for key, other in case.links.items()}
        trains = any(stage in case.sections for stage in OF_MODEL)
        if trains:
            line = {**params["models"][case.like], "experiment": name}
            line["after"] = links.get("model_after", line["after"])
            params["models"][name] = {**line, "actor": links.get("actor", line["actor"])}
        if "evolve" in case.sections:
            line = {**params["agents"][case.like], "experiment": name, "model": name if trains else case.like}
            line["after"] = links.get("after", line["after"])
            params["agents"][name] = {**line, "tau": case.tau or line["tau"]}
    return params


def options(sections: Mapping[str, Any]) -> Iterator[str]:
    """Dotted keys of an experiment's sections."""
    for stage in STAGES:
        for key, value in (sections.get(stage) or {}).items():
            if isinstance(value, Mapping):
                yield from (f"{stage}.{key}.{inner}" for inner in value)
            else:
                yield f"{stage}.{key}"


def uncovered(files: list[Mapping[str, Any]], cases: Mapping[str, Case]) -> dict[str, str]:
    """Options that some kept model or agent uses and that neither a smoke nor a case of these sets.

    Args:
        files: contents of params.yaml and of trials/params.yaml, if there is one.
    Returns:
        {dotted option: an experiment that uses it}, without what NOT_COMPARED excuses.
    """
    experiments = {name: numbers for file in files for name, numbers in (file.get("experiments") or {}).items()}
    covered = {option for case in cases.values() for option in case.options}
    covered |= {option for smoke in SMOKES for option in options(experiments.get(smoke, {}))}
    found = {}
    for file in files:
        for section, stages in (("models", OF_MODEL), ("agents", OF_AGENT)):
            for line in (file.get(section) or {}).values():
                numbers = experiments.get(line["experiment"], {})
                used = options({stage: numbers.get(stage) for stage in stages})
                found |= {option: line["experiment"] for option in used if option not in covered}
    return {option: user for option, user in found.items() if option.rpartition(".")[2] not in NOT_COMPARED}
