"""The results page: figures of real stages of the tiny world, times of a real MLflow."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny_world
from conftest import STAGES, make_project

from wm.cli import main
from wm.core import files, journal
from wm.estimate import expectation
from wm.records import dvcfiles, provenance, tracking
from wm.views import paper, table

DREAM = """\
  tiny_dream:
    evolve: {population: 4, generations: 3, episodes: 3, dream: true, select: dream, gauge_least: -1, rescore_every: 3,
             rescore_episodes: 2, slots: 2}
    evaluate: {episodes: 3, episodes_per_job: 2, slots: 2, videos: false}
models:
"""
SECONDS = {"collect": 10, "train_vae": 20, "encode": 5, "train_mdn": 15, "evolve": 30, "evaluate": 8}


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    """A project in which `tiny` (from two seeds), its second round, and one that learns in its dream are scored."""
    folder = make_project(tmp_path_factory.mktemp("line"))
    experiments, rest = tiny_world.PARAMS.split("models:\n")
    entry = "experiment: tiny, world: tiny, code: tiny_world.py"
    model = f"  tiny_seed4: {{{entry}, after: zero, actor: zero, seed: 4}}\n"
    text = f"{experiments}{DREAM}{model}{rest}"
    text += f"  tiny_seed4: {{{entry}, model: tiny_seed4, after: zero, tau: 1.0, seed: 4}}\n"
    text += (
        f"  tiny_dream: {{{entry.replace('tiny,', 'tiny_dream,', 1)}, model: tiny, after: zero, tau: 1.0, seed: 3}}\n"
    )
    (folder / "params.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WM_TRACKING", "off")
        patch.chdir(folder)
        made = [main([stage, name]) for name in ("tiny", "tiny-2", "tiny_seed4") for stage in STAGES]
        assert made + [main([stage, "tiny_dream"]) for stage in STAGES[4:]] == [0] * 20
    return folder


@pytest.fixture
def copy(line, tmp_path, monkeypatch) -> Path:
    """A copy of `line` that a test may spoil; the current folder. Nothing is tracked."""
    monkeypatch.setenv("WM_TRACKING", "off")
    monkeypatch.chdir(shutil.copytree(line, tmp_path / "copy"))
    return tmp_path / "copy"


def page() -> str:
    return Path("results/README.md").read_text()


def change(name: str, function) -> None:
    """Lets `function` change a record in results/."""
    content = expectation.read(name)
    function(content)
    files.write_record(Path(f"results/{name}.json"), content)


def lengths(name: str, stage: str) -> int:
    """Steps of a search's generations, or of a data set's episodes."""
    folder = Path("runs", name, stage)
    if stage == "evolve":
        return sum(one["steps"] for one in journal.read(folder / "metrics.jsonl"))
    return files.read_json(folder / "summary.json")["steps"]


def test_a_record_has_scores_costs_and_the_curve_of_the_whole_lineage(copy):
    assert main(["results", "page", "tiny-2"]) == 0
    record, scores = expectation.read("tiny-2"), table.scores("tiny-2")
    assert record["score"]["mean"] == scores["mean"] and record["score"]["median"] == np.median(scores["scores"])
    cost = record["cost"]
    assert (cost["collected_episodes"], cost["searched_episodes"]) == (12 + 12, 2 * 5 * 4 * 2)
    looks, finals = 2 * 3 * 2 * 2, 2 * 4 * 3  # after 2, 4, 5 the mean and the best; the best three and the average
    assert cost["selection"] == looks + 2 + finals  # and what the second inherits
    assert cost["steps"] == lengths("tiny-2", "collect") + lengths("tiny", "evolve") + lengths("tiny-2", "evolve")
    assert cost["dreamed_episodes"] == cost["dreamed_steps"] == 0
    curve = record["curve"]
    assert [(point["agent"], point["generation"]) for point in curve] == [
        (name, generation) for name in ("tiny", "tiny-2") for generation in (2, 4, 5)
    ]
    assert [point["episodes"] for point in curve] == [12 + 16, 12 + 32, 12 + 40, 64 + 16, 64 + 32, 64 + 40]
    assert curve[-1]["steps"] == cost["steps"] and curve[-1]["kept"] == max(point["kept"] for point in curve[3:])
    assert curve[2]["steps"] == lengths("tiny", "collect") + lengths("tiny", "evolve")


def test_what_no_run_recorded_is_empty(copy):
    assert main(["results", "page", "tiny", "--machine", "an abacus, 3 cores"]) == 0
    record = expectation.read("tiny")
    assert {record["cost"][key] for key in ("training_seconds", "test_seconds", "core_hours")} == {None}
    assert record["cost"]["unrecorded"] == [f"{stage}@tiny" for stage in STAGES]
    assert {point["seconds"] for point in record["curve"]} == {None}
    assert "| tiny |  (5 stages are not recorded) |  |  | 12 | 40 | 24 |" in page()
    assert "| evolve@tiny |  | 1 | 40 |" in page() and "an abacus, 3 cores |" in page()


def test_the_page_compares_agents_of_one_model_in_pairs_and_says_where_numbers_come_from(copy, capsys):
    names = ["tiny", "tiny-2", "tiny_dream"]
    assert main(["results", "page", *names]) == 0
    _, _, tiny, dreaming = table.table(["tiny", "tiny_dream"]).splitlines()
    assert tiny.replace("| tiny |", "| V and M | [tiny](tiny.png) |") in page()
    acts = "| V and M, evolved in the dream at tau 1 | [tiny_dream](tiny_dream.png) |"
    assert dreaming.replace("| tiny_dream |", acts) in page()
    assert page().count("What the parts are worth") == page().count("compared in pairs") == 1
    hashes = ", ".join(dvcfiles.md5(f"runs/tiny/{stage}")[:12] for stage in ("train_vae", "train_mdn"))
    assert f"\nOn V and M of tiny ({hashes}), tested in the slow drawing:\n" in page()
    for name in names:
        score = table.scores(name)
        row = f"| **{name}** | **{score['mean']:.0f} ± {score['std']:.0f}** |"
        assert (row in page()) == (name != "tiny_dream")  # it learns on the finished model of another
        assert f"dvc repro evaluate@{name}" in page()
        assert f"({name}.png)" in page() and Path("results", f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "`python -m flows.pipeline tiny-2`" in page()
    assert [expectation.read(name)["decides"] for name in names] == ["world", "world", "dream"]
    dreamed = lengths("tiny_dream", "evolve")
    assert f"| {lengths('tiny', 'collect'):,} | 36 | {dreamed:,} |" in page()  # real steps; dreamed episodes and steps
    before = {path: path.read_bytes() for path in Path("results").iterdir()}
    assert main(["results", "page", *names]) == 0
    assert before == {path: path.read_bytes() for path in Path("results").iterdir()} and len(before) == 7


def test_agents_that_differ_in_their_seed_alone_are_one_recipe(copy, capsys):
    names = ["tiny", "tiny_seed4", "tiny-2", "tiny_dream"]
    assert main(["results", "page", *names]) == 0
    first, second = (table.scores(name)["mean"] for name in names[:2])
    mean, std = (first + second) / 2, abs(first - second) / 2**0.5
    each = f"seed 3: {first:.0f}, seed 4: {second:.0f}"
    assert f"| **tiny, 2 seeds** | **{mean:.0f} ± {std:.0f}** |  |  |  | {each} |" in page()
    assert page().count("2 seeds") == 1 and "| **tiny** |" in page() and "| **tiny_seed4** |" in page()
    capsys.readouterr()
    assert main(["results", "table", *names[:2]]) == 0
    said = f"tiny, 2 seeds: {mean:.0f} ± {std:.0f} (mean ± standard deviation between seeds; {each})"
    assert capsys.readouterr().out.strip().splitlines()[-1] == said
    assert "seeds" not in table.table(["tiny", "tiny-2"])
    text = Path("params.yaml").read_text()
    again = text[text.index("  tiny:\n    collect") : text.index("  tiny_dream:")].replace("  tiny:", "  again:")
    text = text.replace("models:\n", again.replace("batch: 16", "batch: 8") + "models:\n")
    Path("params.yaml").write_text(text.replace("tiny_seed4: {experiment: tiny,", "tiny_seed4: {experiment: again,"))
    assert "seeds" not in table.table(names[:2])


def test_seeds_of_a_search_on_one_model_are_called_so(copy):
    """`tiny` from another seed for its search alone; and under another name, which makes no further seed of it."""
    assert main(["results", "page", "tiny"]) == 0
    one = expectation.read("tiny")
    again, other = (
        json.loads(re.sub("(evolve|evaluate)@tiny", rf"\1@{name}", json.dumps(one))) | {"agent": name}
        for name in ("again", "other")
    )
    (search,) = (stage for stage in other["stages"] if stage["address"] == "evolve@other")
    search["params"]["seed"] = 9
    assert table.recipes([one, again]) == []
    (recipe,) = table.recipes([one, again, other])
    assert recipe.title == "tiny, 2 seeds of the search"
    assert recipe.seeds == ("seed 3", "seeds 3 and 9") and recipe.agents == ("tiny", "other")


def test_agents_that_are_not_named_keep_their_records_and_the_page_needs_nothing_else(copy, capsys):
    names = ["tiny", "tiny_dream", "tiny-2", "tiny_seed4"]
    assert main(["results", "page", *names]) == 0
    whole = {path: path.read_bytes() for path in Path("results").iterdir()}
    for name in names[1:]:
        Path(f"results/{name}.json").unlink()
        Path(f"results/{name}.png").unlink()
    assert main(["results", "page"]) == 0 and page().count("[tiny_dream]") == 0
    for name in names[1:]:
        assert main(["results", "page", name]) == 0
    compared = table.table(names[:1] + names[-1:]), table.table(names[:2])
    shutil.move("runs", copy.parent)
    assert compared == (table.table(names[:1] + names[-1:]), table.table(names[:2])) and "2 seeds" in compared[0]
    assert main(["results", "page"]) == 0
    assert whole == {path: path.read_bytes() for path in Path("results").iterdir()}
    Path("results/tiny-2.json").unlink()
    assert main(["results", "page"]) == 0 and "tiny-2" not in page() and "tiny_seed4" in page()
    record = Path("results/tiny.json")
    record.write_text(record.read_text().replace("12", "13"))
    capsys.readouterr()
    assert main(["results", "page"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: results/tiny.json is no record of an agent: `git checkout results/tiny.json`")
    assert said.count("\n") == 1
    shutil.copytree(copy.parent / "runs", "runs")
    assert main(["results", "page", "tiny"]) == 0 and "| **tiny** |" in page()


def test_a_look_at_what_a_search_starts_from_is_counted_where_it_was_made(copy):
    assert main(["results", "page", "tiny-2"]) == 0
    before = expectation.read("tiny-2")["cost"]["selection"]
    path = Path("runs/tiny-2/evolve/metrics.jsonl")
    first, *rest = path.read_text().splitlines(keepends=True)
    assert json.loads(first)["step"] == 0
    path.write_text("".join(rest))  # as where the controller that it starts from fits nothing
    assert main(["results", "page", "tiny-2"]) == 0
    assert expectation.read("tiny-2")["cost"]["selection"] == before - 2  # rescore_episodes


def test_old_records_are_read(copy):
    """results/car_racing.json was written before records had numbers, hashes and the scores of every episode."""

    def make_old(record: dict) -> None:
        del record["test"]
        for stage in record["stages"]:
            del stage["params"], stage["reads"], stage["md5"]

    assert main(["results", "page", "tiny", "tiny_dream", "tiny_seed4"]) == 0
    for name in ("tiny", "tiny_dream"):
        change(name, make_old)
    assert main(["results", "page"]) == 0
    assert "| **tiny** |" in page() and "seeds" not in page().split("## tiny")[1]
    assert "|  | [tiny_dream](tiny_dream.png) |" in page() and "compared in pairs" not in page()
    assert page().count("| train_vae@tiny |") == 1


def test_every_stage_has_the_hash_of_its_output_and_the_way_to_check_it(copy):
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert main(["results", "page", "tiny", "tiny_dream"]) == 0
    stages = {stage["address"]: stage for stage in expectation.read("tiny_dream")["stages"]}
    md5 = dvcfiles.md5("runs/tiny/train_mdn")
    assert stages["train_mdn@tiny"]["md5"] == md5
    assert stages["train_mdn@tiny"]["reads"] == ["encode@tiny", "train_vae@tiny"]
    assert page().count(md5[:12]) == 2 and "To check one" not in page()  # of no commit
    for name in ("tiny", "tiny_dream"):
        change(name, lambda record: [stage.update(commit="c" * 40) for stage in record["stages"]])
    assert main(["results", "page"]) == 0
    assert f"`git checkout {'c' * 12} && dvc repro train_mdn@tiny`, then `python -m wm lineage tiny`" in page()
    assert main(["lineage", "tiny"]) == 0


def test_ablations_stand_below_the_paper_with_its_names_and_scores(copy):
    """The tiny world's record as one of CarRacing, with the numbers of the paper's ablations."""
    assert main(["results", "page", "tiny", "tiny_dream"]) == 0
    base = expectation.read("tiny_dream") | {"world": "car_racing"}
    kinds = {
        "full": ({}, "V and M", "906 ± 21"),
        "hidden": ({"inputs": ["z"], "hidden": 40}, "V alone, 40 hidden units", "788 ± 141"),
        "alone": ({"inputs": ["z"]}, "V alone", "632 ± 251"),
        "random": ({"untrained": True}, "V and an untrained M", f"866 ± 69, {paper.STUDY}"),
        "wider": ({"inputs": ["z", "h", "c"]}, "V and M, C reads [z, h, c]", ""),
        "started": ({}, "V and M, started in the dream", ""),
    }
    for name, (numbers, _, _) in kinds.items():
        renamed = json.dumps(base).replace("tiny_dream", name)
        record = json.loads(renamed)
        for number, stage in enumerate(record["stages"]):
            stage["commit"] = "c" * 40
            if stage["address"] == f"evolve@{name}":
                kept = {key: value for key, value in stage["params"].items() if key not in ("dream", "select")}
                if name == "started":
                    record["stages"].insert(number, stage | {"address": "evolve@start"})
                    stage = record["stages"][number + 1] = stage | {"reads": [*stage["reads"], "evolve@start"]}
                stage["params"] = kept | numbers
                break
        files.write_record(Path(f"results/{name}.json"), record)
    for name in ("tiny", "tiny_dream"):
        Path(f"results/{name}.json").unlink()
    assert main(["results", "page"]) == 0
    assert page().count("\nOn V and M of tiny (") == 1
    rows = [line for line in page().split("What the parts are worth")[1].splitlines() if ".png) |" in line]
    assert rows[0].startswith("| V and M | [full]")
    for name, (_, acts, score) in kinds.items():
        (row,) = (row for row in rows if f"[{name}]" in row)
        assert row.startswith(f"| {acts} | [{name}]({name}.png) |") and row.endswith(f"| {score} |")
    assert "| **" not in page() and page().count("CarRacing-v3") == 1
    assert page().index("| World Models | 906 ± 21 |") < page().index("| V alone | [alone]")


def test_an_agent_whose_search_goes_on_with_the_models_own_stands_in_the_papers_table_too(copy):
    assert main(["results", "page", "tiny", "tiny_dream"]) == 0
    for start, stands in (("other", False), ("tiny", True)):
        record = expectation.read("tiny_dream")
        number = next(n for n, stage in enumerate(record["stages"]) if stage["address"] == "evolve@tiny_dream")
        own = record["stages"][number]
        record["stages"].insert(number, own | {"address": f"evolve@{start}"})
        own["reads"] = [*(read for read in own["reads"] if not read.startswith("evolve@")), f"evolve@{start}"]
        files.write_record(Path("results/tiny_dream.json"), record)
        assert main(["results", "page"]) == 0
        assert ("| **tiny_dream** |" in page()) == stands == ("; goes on from tiny |" in page())
        assert page().count("[tiny_dream](tiny_dream.png)") == 1, "among the parts it stands in any case"
    assert page().index("| **tiny** |") < page().index("| **tiny_dream** |") < page().index("What the parts are worth")
    assert page().count("![Selection score of tiny_dream]") == 1


def test_sweeps_stand_under_their_world(copy, capsys):
    Path("results/tiny_tau/figures").mkdir(parents=True)
    Path("results/tiny_tau/table.md").write_text("| tau | …\n\n`python -m flows.sweep tiny`\n")
    assert main(["results", "page", "tiny"]) == 0
    found = page().split("## tiny\n")[1]
    assert "| tau | …\n\n`python -m flows.sweep tiny`\n\n![" in found and "(tiny_tau/figures/tau.png)" in found
    Path("results/tiny_tau").rename("results/tony_tau")
    capsys.readouterr()
    assert main(["results", "page"]) == 2
    assert "results/tony_tau is of a model that params.yaml does not have: delete it" in capsys.readouterr().err


def started(client, experiment: str, stage: str, machine: str):
    """A run of a stage of `tiny`, as its sender leaves it."""
    about = {"stage": stage, "name": "tiny", "output": provenance.digest(Path("runs/tiny", stage)), "machine": machine}
    tags = {f"wm.{key}": value for key, value in about.items()} | {"mlflow.source.git.commit": "c" * 40}
    return client.create_run(experiment, start_time=1000, tags=tags)


def test_cores_are_the_runs_workers_and_no_more_than_its_machine_has(copy, monkeypatch):
    monkeypatch.delenv("WM_TRACKING")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = tracking.connect(copy)
    experiment = client.create_experiment("tiny")
    for stage, machine in (
        ("collect", "an abacus, 3 cores"),
        ("evolve", "an abacus"),
        ("evaluate", "a cluster, 96 cores"),
    ):
        run = started(client, experiment, stage, machine)
        client.log_param(run.info.run_id, "workers", 64)
        client.set_terminated(run.info.run_id, "FINISHED", 2000)
    assert main(["results", "page", "tiny"]) == 0
    cores = {stage["address"].partition("@")[0]: stage["cores"] for stage in expectation.read("tiny")["stages"]}
    assert cores == {"collect": 3, "train_vae": 1, "encode": 1, "train_mdn": 1, "evolve": 64, "evaluate": 64}


def test_times_and_machines_are_those_of_the_runs_that_made_the_outputs(copy, monkeypatch):
    monkeypatch.delenv("WM_TRACKING")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = tracking.connect(copy)
    experiment = client.create_experiment("tiny")
    for stage, seconds in SECONDS.items():
        run = started(client, experiment, stage, "M")
        for generation in range(1, 6) if stage == "evolve" else ():
            client.log_metric(run.info.run_id, "seconds", 1.0 + generation, step=generation)
        client.set_terminated(run.info.run_id, "FINISHED", 1000 + 1000 * seconds)
    assert main(["results", "page", "tiny"]) == 0
    record = expectation.read("tiny")
    cost = record["cost"]
    assert (cost["training_seconds"], cost["test_seconds"], cost["core_hours"]) == (80, 8, round(80 / 3600, 3))
    assert [point["seconds"] for point in record["curve"]] == [50 + 2 + 3, 50 + 2 + 3 + 4 + 5, 50 + 20]
    assert record["machines"] == ["M"] and record["commit"] == "c" * 40 and not cost["unrecorded"]
    assert "| tiny | 1 min 20 s | 8 s | 0.02 |" in page()
    first, last = record["curve"][0], record["curve"][-1]
    gain = last["kept"] - first["kept"]
    said = f"raised the best rescored score so far by {gain:+.0f} and moved the mean of the distribution"
    assert f"tiny: the last 3 generations (15 s) {said} by {last['rescored'] - first['rescored']:+.0f}." in page()
    Path("runs/tiny/encode/summary.json").write_text("{}")  # not what its run wrote
    assert main(["results", "page", "tiny"]) == 0
    assert "| tiny | 1 min 15 s (1 stage is not recorded) | 8 s | at least 0.02 |" in page()
    assert "tiny: the last 3 generations raised" in page()


def test_a_mistake_is_one_sentence_and_nothing_is_written(copy, capsys):
    shutil.rmtree("runs/tiny-2/evaluate")
    Path("file").touch()
    for words, sentence in (
        ([], "results has no record of an agent: name agents that have been scored"),
        (["nobody"], "'nobody' is not in `agents` of params.yaml"),
        (["tiny", "tiny-2"], "tiny-2 has no score yet: run `wm run tiny-2` first"),
        (["tiny", "--out", "file"], "file cannot be a folder"),
        (["tiny", "--out", "nowhere/results"], "nowhere/results cannot be a folder"),
    ):
        assert main(["results", "page", *words]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    shutil.rmtree("runs/tiny/train_vae")
    assert main(["results", "page", "tiny"]) == 1
    assert "runs/tiny/train_vae/summary.json is missing" in capsys.readouterr().err
    assert not Path("results").exists()
