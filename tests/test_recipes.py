"""The recipes of params.yaml from start to end, at a small size: what one round hands to the next has to be taken."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from wm.cli import main
from wm.core import files, verdicts

SMALL: dict[str, dict[str, Any]] = {
    "collect": {"episodes": 3},
    "train_vae": {"steps": 4, "batch": 4, "held_out_every": 2, "report_every": 2, "pool_episodes": 2},
    "encode": {},
    "train_mdn": {"steps": 4, "batch": 2, "length": 16, "held_out_every": 2, "report_every": 2},
    "evolve": {"population": 4, "generations": 2, "episodes": 2, "rescore_every": 1, "rescore_episodes": 1,
               "final_episodes": 1, "gauge_controllers": 4, "gauge_episodes": 1},
    "evaluate": {"episodes": 2, "videos": False},
}  # fmt: skip
"""What every experiment of params.yaml has less of; the rest stays, and decides how the rounds fit together."""


def small(experiment: dict[str, Any]) -> dict[str, Any]:
    """The experiment's sections with small numbers; a search ends no later than a person would wait for a test."""
    made = {stage: {**section, **SMALL[stage]} for stage, section in experiment.items() if stage in SMALL}
    if "final_episodes" not in experiment.get("evolve", {}):
        made["evolve"].pop("final_episodes")
    return made


@pytest.mark.parametrize("recipe", ["car_racing", "take_cover"])
def test_every_stage_of_a_recipe_takes_what_those_before_it_made(recipe, tmp_path, monkeypatch):
    if recipe == "take_cover":
        pytest.importorskip("vizdoom", reason="make install EXTRAS=doom")
    top = Path(__file__).parents[1]
    everything = YAML(typ="safe").load(top / "params.yaml")
    everything["experiments"] = {name: small(one) for name, one in everything["experiments"].items()}
    with (tmp_path / "params.yaml").open("w") as out:
        YAML(typ="safe").dump(everything, out)
    shutil.copytree(top / "runs/zero", tmp_path / "runs/zero")
    monkeypatch.setenv("WM_TRACKING", "off")
    monkeypatch.chdir(tmp_path)
    for stage, name in steps(everything, recipe):
        assert main([stage, name]) == 0, f"{stage} {name}"
    judged = [verdicts.read(folder.parent) for folder in sorted(Path("runs").glob("*/collect/checks.json"))]
    assert len(judged) == 2 and all(check.verdict != "fail" for checks in judged for check in checks)
    assert files.read_json(Path(f"runs/{recipe}/evaluate/scores.json"))["episodes"]


def steps(everything: dict[str, Any], recipe: str) -> list[tuple[str, str]]:
    """What `wm run` runs for the agent, in order: (stage, name)."""
    models, agents, made = everything["models"], everything["agents"], []

    def add(stage: str, name: str) -> None:
        if name != "zero" and (stage, name) not in made:
            if stage == "collect":
                add("collect", models[name]["after"])
                add("evolve", models[name]["actor"])
            elif stage == "evolve":
                add("evolve", agents[name]["after"])
                add("train_mdn", agents[name]["model"])
            elif stage == "train_mdn":
                for each in ("collect", "train_vae", "encode"):
                    add(each, name)
            made.append((stage, name))

    add("evolve", recipe)
    return [*made, ("evaluate", recipe)]
