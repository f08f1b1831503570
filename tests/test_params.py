"""params.yaml: what is wrong in it is said in one sentence that names the key, before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny_world
import yaml
from dvc.utils.serialize import loads_yaml, modify_yaml
from ruamel.yaml import YAML

from wm import params, worlds
from wm.cli import main
from wm.core.errors import UserError
from wm.models.mdnrnn import MDNRNN
from wm.models.vae import VAE
from wm.play import agent as agents
from wm.play import cluster
from wm.play.cluster import Cluster
from wm.run import plan, run_stage
from wm.views import keys

ROOT = Path(__file__).parent.parent
MISTAKES = {
    "unknown key": ("evaluate: {", "evaluate: {epsiodes: 3, ", "experiments.tiny.evaluate.epsiodes"),
    "unknown section": ("    encode: {", "    evlove: {}\n    encode: {", "experiments.tiny.evlove"),
    "a world among numbers": ("    encode: {", "    world: tiny\n    encode: {", "experiments.tiny.world"),
    "workers among numbers": ("{batch: 16,", "{workers: 2, batch: 16,", "experiments.tiny.encode.workers"),
    "unknown top key": ("models:\n", "modles: {}\nmodels:\n", "modles"),
    "missing key": ("generations: 5, ", "", "experiments.tiny.evolve.generations"),
    "a string for a number": ("seed: 3", "seed: three", "models.tiny.seed"),
    "a quoted number": ("steps: 12,", "steps: '12',", "experiments.tiny.train_vae.steps"),
    "a fraction for a whole number": ("steps: 12,", "steps: 1.5,", "experiments.tiny.train_vae.steps"),
    "true for a number": ("steps: 12,", "steps: true,", "experiments.tiny.train_vae.steps"),
    "a list for a section": ("encode: {batch: 16, threads: 1}", "encode: [1]", "experiments.tiny.encode"),
    "no room for a new episode": ("hard_episodes: 1", "hard_episodes: 2", "experiments.tiny.evolve"),
    "directions of a hidden layer": ("centre: true", "directions: 3, hidden: 4", "experiments.tiny.evolve"),
    "directions and centre": ("centre: true", "directions: 3, centre: true", "experiments.tiny.evolve"),
    "a negative size": ("z_size: 4", "z_size: -4", "experiments.tiny.train_vae.model.z_size"),
    "nothing for a number": ("batch: 16", "batch: ", "experiments.tiny.encode.batch"),
    "not a number": ("learning_rate: 1.0e-3", "learning_rate: .nan", "experiments.tiny.train_vae.learning_rate"),
    "a device that is none": ("batch: 16", "device: tpu, batch: 16", "experiments.tiny.encode.device"),
    "unknown world": ("world: tiny", "world: mars", "models.tiny.world is 'mars': expected one of tiny"),
    "a world without who plays": ("own: tiny_world:Tiny", "solved: 900", "by `own` (path/module:Class), `gym` (an id)"),
    "a class by its dotted name": ("own: tiny_world:Tiny", "own: tiny.world:Tiny", "worlds.tiny.own"),
    "a class whose file is not here": ("own: tiny_world:Tiny", "own: mars/world:Mars", "no mars/world.py here"),
    "code that is not here": ("code: tiny_world.py", "code: tiny", "models.tiny.code is 'tiny', which is not here"),
    "code of another world": (
        "code: tiny_world.py",
        "code: runs",
        "models.tiny.code is 'runs', but tiny_world.py plays",
    ),
    "code elsewhere": ("code: tiny_world.py", "code: ../tiny_world.py", "models.tiny.code"),
    "no code": ("code: tiny_world.py, ", "", "models.tiny.code is missing"),
    "a machine's unknown stage": (
        "models:\n",
        "machines: {big: {encore: {batch: 2}}}\nmodels:\n",
        "machines.big is 'encore'",
    ),
    "a machine's unknown key": (
        "models:\n",
        "machines: {big: {encode: {bach: 2}}}\nmodels:\n",
        "machines.big.encode is 'bach'",
    ),
    "a colon that DVC does not read": ("\n    own: tiny_world:Tiny", " {own: tiny_world:Tiny}", "YAML at line 2"),
    "unknown experiment": (
        "{experiment: tiny, world",
        "{experiment: big, world",
        "models.tiny.experiment",
    ),
    "unknown model": ("model: tiny, ", "model: huge, ", "agents.tiny.model"),
    "unknown predecessor": ("after: tiny, actor", "after: tinny, actor", "models.tiny-2.after"),
    "its own predecessor": ("after: tiny, actor", "after: tiny-2, actor", "models.tiny-2.after"),
    "a circle through an agent": ("actor: tiny,", "actor: tiny-2,", "tiny-2', which itself builds on"),
    "a temperature of zero": ("after: zero, tau: 1.0", "after: zero, tau: 0", "agents.tiny.tau"),
    "a name that leaves the folder": ("models:\n", "models:\n  ../x: {experiment: tiny}\n", "../x"),
    "a name that DVC would read as a path of keys": ("models:\n", "models:\n  a.b: {experiment: tiny}\n", "a.b"),
    "the name zero": ("models:\n", "models:\n  zero: {experiment: tiny}\n", "zero"),
    "a number for a name": ("models:\n", "models:\n  7: {experiment: tiny}\n", "models.7"),
    "no seed": ("actor: zero, seed: 3", "actor: zero", "models.tiny.seed"),
    "a key twice": ("seed: 3", "seed: 3, seed: 4", "seed"),
    "invalid YAML": ("models:\n", "models: [\n", "YAML at line"),
    "a character that is none": ("world: tiny", "world: tiny\x07", "YAML"),
    "an empty file": (tiny_world.PARAMS, "", "the file"),
    "a list": (tiny_world.PARAMS, "- 1\n", "the file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_that_names_the_key(project, capsys, mistake):
    good, bad, key = MISTAKES[mistake]
    assert good in tiny_world.PARAMS
    Path("params.yaml").write_text(tiny_world.PARAMS.replace(good, bad, 1))
    before = sorted(project.rglob("*"))
    for command in (["params", "check"], ["train_vae", "tiny"]):
        assert main(command) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and len(said.err) < 400, said.err
        assert said.err.startswith("error: params.yaml") and key in said.err, said.err
    assert sorted(project.rglob("*")) == before, "something was written"


def test_entries_that_build_on_another_world_are_refused(project):
    text = tiny_world.PARAMS.replace("experiments:\n", "  other:\n    own: tiny_world:Tiny\nexperiments:\n")
    entry = "tiny-2: {experiment: tiny, world: tiny, code: tiny_world.py, model"
    Path("params.yaml").write_text(text.replace(entry, entry.replace("world: tiny,", "world: other,")))
    with pytest.raises(UserError, match=r"agents.tiny-2.model is 'tiny-2', of tiny: expected one of other"):
        params.load()


def test_a_missing_file_and_a_folder_in_its_place(project, capsys):
    Path("params.yaml").unlink()
    assert main(["params", "check"]) == 2 and "params.yaml is not here" in capsys.readouterr().err
    Path("params.yaml").mkdir()
    assert main(["params", "check"]) == 2 and capsys.readouterr().err.count("\n") == 1


def test_numbers_are_read_as_yaml_1_2_has_them(project):
    Path("params.yaml").write_text(tiny_world.PARAMS.replace("learning_rate: 1.0e-3", "learning_rate: 1e-4"))
    assert params.load().experiments["tiny"].train_vae.learning_rate == 1e-4


def test_the_defaults_are_the_papers_where_the_paper_has_one(project):
    tiny = params.load().experiments["tiny"]
    assert (tiny.evolve.sigma0, tiny.evolve.sampled, tiny.evolve.inputs) == (0.1, True, None)
    assert (tiny.train_mdn.clip, tiny.train_vae.clip) == (1.0, 0.0)


def test_the_projects_own_files_are_right():
    everything = params.load(ROOT / "params.yaml")
    assert "smoke" in everything.models and "smoke" in everything.agents
    assert everything.address("evaluate", "smoke") == "evaluate@smoke"
    assert everything.address("evaluate", "ablation") == "trials/dvc.yaml:evaluate@ablation", everything.entry(
        "agents", "ablation"
    )
    for name, world in everything.worlds.items():  # of the two in this package, who has no params.yaml knows the same
        assert (world.entry_point, {}) == worlds.registered()[name] and worlds.get(name).spec.name == name


@pytest.mark.parametrize("path", ["params.yaml", "trials/params.yaml"])
def test_a_file_is_short_and_all_parsers_read_its_merge_keys_alike(path):
    text = (ROOT / path).read_text()
    lines = text.splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 140
    found = yaml.safe_load(text)
    assert found == YAML(typ="safe").load(text) == YAML(typ="safe", pure=True).load(text) == loads_yaml(text)
    merged = [line.split("<<: *")[1].split(",")[0] for line in lines if "<<: *" in line]
    assert len(merged) >= 10 and not [line for line in lines for name in merged if f"&{name} {{<<" in line], (
        "two levels"
    )


# ---------------------------------------------------------------- trials

TRIALS = """\
experiments:
  longer:
    evolve: {population: 4, generations: 9, episodes: 2}
    evaluate: {episodes: 3}
agents:
  longer: {experiment: longer, world: tiny, code: tiny_world.py, model: tiny, after: tiny, tau: 1.0, seed: 3}
"""
TRIAL_MISTAKES = {
    "a name of params.yaml": ("  longer: {exp", "  tiny: {exp", "agents.tiny stands in params.yaml too"),
    "numbers of params.yaml": (
        "experiment: longer",
        "experiment: tiny",
        "agents.longer.experiment is 'tiny', of params.yaml",
    ),
    "a section of params.yaml alone": (
        "experiments:\n",
        "worlds: {}\nexperiments:\n",
        "worlds is no section of trials",
    ),
    "a list": (TRIALS, "- 1\n", "mappings"),
    "unknown model": ("model: tiny", "model: big", "agents.longer.model is 'big'"),
    "code that is not here": ("code: tiny_world.py", "code: tiny", "agents.longer.code is 'tiny', which is not here"),
}


def test_a_trial_builds_on_params_yaml(project):
    Path("trials").mkdir()
    Path("trials/params.yaml").write_text(TRIALS)
    everything = params.load()
    todo = plan(everything, "evolve", "longer")
    assert todo.config.generations == 9 and todo.inputs["vae"] == Path("runs/tiny/train_vae")
    assert everything.address("evolve", "longer") == "trials/dvc.yaml:evolve@longer"
    with pytest.raises(UserError, match="run `dvc repro train_vae@tiny` first"):
        run_stage("evolve", "longer")
    (Path("runs/tiny/evolve")).mkdir(parents=True)
    with pytest.raises(UserError, match=r"run `dvc repro trials/dvc\.yaml:evolve@longer` first"):
        run_stage("evaluate", "longer")


@pytest.mark.parametrize("mistake", TRIAL_MISTAKES)
def test_a_mistake_among_trials_is_one_of_who_asks_for_a_trial(project, capsys, mistake):
    good, bad, sentence = TRIAL_MISTAKES[mistake]
    assert good in TRIALS
    Path("trials").mkdir()
    Path("trials/params.yaml").write_text(TRIALS.replace(good, bad, 1))
    assert main(["params", "check"]) == 0 and params.load().entry("agents", "tiny")
    assert main(["evolve", "longer"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: trials/params.yaml: ") and sentence in said.err and said.err.count("\n") == 1


def test_workers_are_the_machines_cores_or_what_the_environment_says(monkeypatch):
    monkeypatch.delenv("WM_WORKERS")
    assert cluster.workers() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("WM_WORKERS", "3")
    assert cluster.workers() == Cluster().workers == 3
    for text in ("0", "-1", "two", "1.5", "4097"):
        monkeypatch.setenv("WM_WORKERS", text)
        with pytest.raises(UserError, match=f"WM_WORKERS is '{text}': expected a whole number from 1 to 4096"):
            cluster.workers()


@pytest.mark.parametrize("name", ["take_cover-1", "take_cover", "take_cover_paper", "take_cover_smoke"])
def test_take_cover_has_the_papers_number_of_parameters(name):
    everything = params.load(ROOT / "params.yaml")
    experiment = everything.experiments[everything.models[name].experiment]
    world, config = worlds.get(everything.models[name].world), experiment.train_vae.model
    spec = world.spec
    memory = MDNRNN(experiment.train_mdn.model, config.z_size, spec.action_size, spec.predicts_restart)
    counts = [sum(weight.numel() for weight in model.parameters()) for model in (VAE(config), memory)]
    search = everything.experiments[everything.agents[name].experiment].evolve
    layout = agents.layout(world, memory, tuple(search.inputs or spec.controller_inputs), search.hidden)
    assert [*counts, layout.size] == [4_446_915, 1_678_785, 1_088] and not layout.bias


def test_every_key_is_described():
    lines = keys.describe()
    assert len(lines) > 50
    for line in lines:
        key, _, meaning = line.partition("): ")
        assert len(meaning) > 2 and meaning != "None", f"{key} has no description"


def test_params_describes_every_key_that_a_file_may_hold(project):
    """What `describe` lists and what a file with every default filled in holds are the same keys."""

    def flat(prefix, value):
        return (
            [key for name, part in value.items() for key in flat(f"{prefix}.{name}", part)]
            if isinstance(value, dict) and value
            else [prefix]
        )

    everything = params.load().model_dump(by_alias=True)
    held = (
        flat("worlds.NAME", everything["worlds"]["tiny"])
        + flat("experiments.NAME", everything["experiments"]["tiny"])
        + flat("models.NAME", everything["models"]["tiny"])
        + flat("agents.NAME", everything["agents"]["tiny"])
    )
    held.append("machines.NAME.STAGE.KEY")
    assert sorted(line.split(" ")[0] for line in keys.describe()) == sorted(held)


@pytest.mark.parametrize("name", ["params.yaml", "trials/params.yaml"])
def test_dvc_can_change_a_number_in_it(tmp_path, name):
    """`dvc exp run -S` writes the whole file again, without quotes, and cannot read `{own: a/b:C}` afterwards."""
    path = tmp_path / "params.yaml"
    path.write_text((Path(__file__).parent.parent / name).read_text())
    before = YAML(typ="safe").load(path)
    first = next(iter(before["experiments"]))
    with modify_yaml(path) as content:
        content["experiments"][first]["evaluate"]["episodes"] = 77
    before["experiments"][first]["evaluate"]["episodes"] = 77
    assert YAML(typ="safe").load(path) == before
