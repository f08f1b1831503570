"""params.yaml: what is wrong in it is said in one sentence that names the key, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_world

from wm import params, worlds
from wm.cli import main
from wm.core.errors import UserError
from wm.models.mdnrnn import MDNRNN
from wm.models.vae import VAE
from wm.play import agent as agents

ROOT = Path(__file__).parent.parent
MISTAKES = {
    "unknown key": ("evaluate: {", "evaluate: {epsiodes: 3, ", "experiments.tiny.evaluate.epsiodes"),
    "unknown section": ("    world: tiny", "    world: tiny\n    evlove: {}", "experiments.tiny.evlove"),
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
    "unknown world": ("world: tiny", "world: mars", "experiments.tiny.world"),
    "unknown experiment": (
        "{experiment: tiny, after: zero, actor",
        "{experiment: big, after: zero, actor",
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
    for command in (["check"], ["train_vae", "tiny"]):
        assert main(command) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and len(said.err) < 400, said.err
        assert said.err.startswith("error: params.yaml") and key in said.err, said.err
    assert sorted(project.rglob("*")) == before, "something was written"


def test_entries_that_build_on_another_world_are_refused(project):
    text = tiny_world.PARAMS.replace(
        "models:\n",
        "  other: &other\n    world: car_racing\n"
        + "".join(f"{line}\n" for line in tiny_world.PARAMS.split("models:")[0].splitlines()[3:])
        + "models:\n",
        1,
    )
    Path("params.yaml").write_text(
        text.replace("tiny-2: {experiment: tiny, model", "tiny-2: {experiment: other, model")
    )
    with pytest.raises(UserError, match=r"agents.tiny-2.model is 'tiny-2', of tiny: expected one of car_racing"):
        params.load()


def test_a_missing_file_and_a_folder_in_its_place(project, capsys):
    Path("params.yaml").unlink()
    assert main(["check"]) == 2 and "params.yaml is not here" in capsys.readouterr().err
    Path("params.yaml").mkdir()
    assert main(["check"]) == 2 and capsys.readouterr().err.count("\n") == 1


def test_numbers_are_read_as_yaml_1_2_has_them(project):
    Path("params.yaml").write_text(tiny_world.PARAMS.replace("learning_rate: 1.0e-3", "learning_rate: 1e-4"))
    assert params.load().experiments["tiny"].train_vae.learning_rate == 1e-4


def test_the_defaults_are_the_papers_where_the_paper_has_one(project):
    tiny = params.load().experiments["tiny"]
    assert (tiny.evolve.sigma0, tiny.evolve.sampled, tiny.evolve.inputs) == (0.1, True, None)
    assert (tiny.train_mdn.clip, tiny.train_vae.clip) == (1.0, 0.0)


def test_the_projects_own_file_is_right():
    everything = params.load(ROOT / "params.yaml")
    assert "smoke" in everything.models and "smoke" in everything.agents


@pytest.mark.parametrize("name", ["take_cover-1", "take_cover", "take_cover_paper", "take_cover_smoke"])
def test_take_cover_has_the_papers_number_of_parameters(name):
    everything = params.load(ROOT / "params.yaml")
    experiment = everything.experiments[everything.models[name].experiment]
    world, config = worlds.get(experiment.world), experiment.train_vae.model
    spec = world.spec
    memory = MDNRNN(experiment.train_mdn.model, config.z_size, spec.action_size, spec.predicts_restart)
    counts = [sum(weight.numel() for weight in model.parameters()) for model in (VAE(config), memory)]
    search = everything.experiments[everything.agents[name].experiment].evolve
    layout = agents.layout(world, memory, tuple(search.inputs or spec.controller_inputs), search.hidden)
    assert [*counts, layout.size] == [4_446_915, 1_678_785, 1_088] and not layout.bias


@pytest.mark.parametrize("number", [1, 2])
def test_the_seeds_of_car_racing_differ_in_nothing_but_the_seed(number):
    everything = params.load(ROOT / "params.yaml")
    for entries in (everything.models, everything.agents):
        for ending in ("-1", ""):
            ours = entries[f"car_racing_seed{number}{ending}"].model_dump()
            theirs = entries[f"car_racing{ending}"].model_dump()
            assert ours.pop("seed") == number and theirs.pop("seed") == 0
            assert {key: f"{value}".replace(f"_seed{number}", "") for key, value in ours.items()} == {
                key: f"{value}" for key, value in theirs.items()
            }


def test_every_key_is_described():
    lines = params.describe()
    assert len(lines) > 50
    for line in lines:
        key, _, meaning = line.partition("): ")
        assert len(meaning) > 2 and meaning != "None", f"{key} has no description"


def test_params_describes_every_key_that_a_file_may_hold(project):
    """What `describe` lists and what a file with every default filled in holds are the same keys."""

    def flat(prefix, value):
        return (
            [key for name, part in value.items() for key in flat(f"{prefix}.{name}", part)]
            if isinstance(value, dict)
            else [prefix]
        )

    everything = params.load().model_dump()
    keys = (
        flat("experiments.NAME", everything["experiments"]["tiny"])
        + flat("models.NAME", everything["models"]["tiny"])
        + flat("agents.NAME", everything["agents"]["tiny"])
    )
    assert sorted(line.split(" ")[0] for line in params.describe()) == sorted(keys)
