"""A variant of an agent's run: another seed, a limit on time, another machine. Each runs on a branch of its own.

The branch `run/NAME-seed1` has a worktree in `.wm/run/` that shares DVC's cache with the folder that it was started
from, and ends with a commit of whole numbers, dvc.lock and scores. So the user's own files stay as they are, and
`dvc repro evaluate@NAME` of that commit brings its hashes back, wherever it is checked out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import claim, graph, recipe, worktree
from wm.core.errors import UserError
from wm.records import git
from wm.search import budget as budgets


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is other than in params.yaml; false where nothing is.

    Attributes:
        seed: of every model and agent that the run's agent comes from.
        budget: how long the run may take, such as "2h"; its search ends in time for the evaluation.
        machine: an entry of `machines` in params.yaml, whose numbers replace those of every experiment in use.
    """

    seed: int | None = None
    budget: str | None = None
    machine: str | None = None

    def __bool__(self) -> bool:
        return bool(self._words)

    @property
    def _words(self) -> list[str]:
        seed = [] if self.seed is None else [f"seed{self.seed}"]
        length = [] if self.budget is None else ["".join(self.budget.lower().split())]
        return [*seed, *filter(None, [self.machine]), *length]

    @property
    def text(self) -> str:
        """For people: "seed1, gpu16, 2h"."""
        return ", ".join(self._words)

    def branch(self, agent: str) -> str:
        """Where its run is: "run/smoke-seed1"."""
        return f"run/{'-'.join([agent, *self._words])}"

    def check(self) -> None:
        """Raises UserError where a value is impossible."""
        if self.seed is not None and self.seed < 0:
            raise UserError(f"the seed is {self.seed}: expected 0 or more")
        if self.budget is not None:
            budgets.seconds(self.budget)

    def of(self, params: dict[str, Any], agent: str) -> dict[str, Any]:
        """The whole numbers of the variant.

        Args:
            params: as params.yaml says; stays as it is.
        Raises:
            UserError: there is no such machine.
        """
        self.check()
        if self and agent not in params["agents"]:
            raise UserError(f"{agent} is none of params.yaml's agents, which alone have seeds, budgets and machines")
        found = copy.deepcopy(params)
        entries = recipe.chain(found, agent) if self else []
        if self.budget is not None:
            _make_own_search(found, agent, [name for section, name in entries if section == "agents"])
        if self.seed is not None:
            for section, name in entries:
                found[section][name]["seed"] = self.seed
        for experiment in {found[section][name]["experiment"] for section, name in entries if self.machine}:
            stages = found["experiments"][experiment]
            for stage, changes in _machine(params, self.machine).items():
                if stage in stages:
                    stages[stage].update(changes)
        return found


def _machine(params: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    known = params.get("machines") or {}
    if name not in known:
        raise UserError(
            f"there is no machine {name!r} in `machines` of params.yaml: expected one of {', '.join(known)}"
        )
    return known[name]


def _make_own_search(params: dict[str, Any], agent: str, agents: list[str]) -> None:
    """An agent whose search has the numbers of another one that it builds on gets a copy of them, to be shortened.

    Its name ends as before, since MLflow's experiment is chosen by that.
    """
    entry = params["agents"][agent]
    shared = entry["experiment"]
    if any(params["agents"][other]["experiment"] == shared for other in agents if other != agent):
        entry["experiment"] = f"budget-{shared}"
        params["experiments"][entry["experiment"]] = copy.deepcopy(params["experiments"][shared])


@contextmanager
def inside(agent: str, variant: Variant) -> Iterator[None]:
    """The folder of the variant's run as the current one, claimed, with its numbers, and its branch up to date.

    Where there is no variant, or this is its folder already, nothing happens.

    Raises:
        UserError: code that the run would have is not committed, or git or DVC refuses.
    """
    top = Path.cwd()
    branch = variant.branch(agent)
    if not variant or git.branch(top) == branch:
        yield
        return
    graph.check(agent)
    wanted = variant.of(recipe.read(), agent)
    _check_code(top, agent)
    commit = git.read(top, "rev-parse", "HEAD").strip()
    with worktree.inside(branch), claim.workspace(f"{agent} ({variant.text})"):
        worktree.follow(commit)
        about = f"{agent} with {variant.text}: whole numbers, written by its run."
        known = _knows(wanted, agent, variant)
        if not known:
            recipe.write(wanted, about)
        done = graph.check_out(agent)
        if known and variant.budget is not None and f"evolve@{agent}" not in done:
            recipe.write(wanted, about)  # its search begins anew or goes on, with a budget of its own
        worktree.commit(f"{agent} with {variant.text}: its numbers")
        yield


def _knows(wanted: dict[str, Any], agent: str, variant: Variant) -> bool:
    """Whether the branch has these numbers; how many generations there are, a budget may have decided already."""
    mine = recipe.read()
    if variant.budget is not None and agent in mine.get("agents", {}):
        wanted = copy.deepcopy(wanted)
        recipe.search(wanted, agent)["generations"] = recipe.search(mine, agent).get("generations")
    return mine == wanted


def _check_code(top: Path, agent: str) -> None:
    changed = git.read(top, "status", "--porcelain", "-z", "--", *graph.code(agent)).split("\0")
    if changed[0]:
        raise UserError(
            f"{changed[0][3:]} is not as in the last commit, whose code a run on a branch of its own has: commit it "
            "first, or run without a seed, a budget and a machine"
        )
