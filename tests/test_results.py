"""The results page and the score to expect: figures of real stages of the tiny world, times of a real MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_world
from conftest import STAGES, make_project

from wm import expectation, files, journal, table, tracking
from wm.cli import main

DREAM = """\
  tiny_dream:
    world: tiny
    seed: 3
    evolve: {population: 4, generations: 3, episodes: 3, dream: true, select: dream, rescore_every: 3,
             rescore_episodes: 2, slots: 2, workers: 1}
    evaluate: {episodes: 3, episodes_per_job: 2, slots: 2, workers: 1, videos: false}
models:
"""
SECONDS = {"collect": 10, "train_vae": 20, "encode": 5, "train_mdn": 15, "evolve": 30, "evaluate": 8}


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    """A project in which `tiny`, its second round, and an agent that learns in the dream of its model are scored."""
    folder = make_project(tmp_path_factory.mktemp("line"))
    agent = "  tiny_dream: {experiment: tiny_dream, model: tiny, after: zero, tau: 1.0}\n"
    (folder / "params.yaml").write_text(tiny_world.PARAMS.replace("models:\n", DREAM) + agent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WM_TRACKING", "off")
        patch.chdir(folder)
        made = [main([stage, name]) for name in ("tiny", "tiny-2") for stage in STAGES]
        assert made + [main([stage, "tiny_dream"]) for stage in STAGES[4:]] == [0] * 14
    return folder


@pytest.fixture
def copy(line, tmp_path, monkeypatch) -> Path:
    """A copy of `line` that a test may spoil; the current folder. Nothing is tracked."""
    monkeypatch.setenv("WM_TRACKING", "off")
    monkeypatch.chdir(shutil.copytree(line, tmp_path / "copy"))
    return tmp_path / "copy"


def lengths(name: str, stage: str) -> int:
    """Steps of a search's generations, or of a data set's episodes."""
    folder = Path("runs", name, stage)
    if stage == "evolve":
        return sum(one["steps"] for one in journal.read(folder / "metrics.jsonl"))
    return files.read_json(folder / "summary.json")["steps"]


def test_a_record_has_scores_costs_and_the_curve_of_the_whole_lineage(copy):
    assert main(["results", "tiny-2"]) == 0
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
    assert main(["results", "tiny", "--machine", "an abacus, 3 cores"]) == 0
    record = expectation.read("tiny")
    assert {record["cost"][key] for key in ("training_seconds", "test_seconds", "core_hours")} == {None}
    assert record["cost"]["unrecorded"] == [f"{stage}@tiny" for stage in STAGES]
    assert {point["seconds"] for point in record["curve"]} == {None}
    page = Path("results/README.md").read_text()
    assert "| tiny |  (6 stages are not recorded) |  |  | 12 | 40 | 24 |" in page
    assert "| evolve@tiny |  | 1 | 40 |" in page and "an abacus, 3 cores |" in page


def test_the_page_compares_agents_of_one_model_in_pairs_and_says_where_numbers_come_from(copy, capsys):
    names = ["tiny", "tiny-2", "tiny_dream"]
    assert main(["results", *names]) == 0
    page = Path("results/README.md").read_text()
    assert table.table(["tiny", "tiny_dream"]) in page and page.count("What the parts are worth") == 1
    for name in names:
        score = table.scores(name)
        assert f"| **{name}** | **{score['mean']:.0f} ± {score['std']:.0f}** |" in page
        assert f"`python -m flows.pipeline {name}`" in page and f"dvc repro evaluate@{name}" in page
        assert f"({name}.png)" in page and Path("results", f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert [expectation.read(name)["decides"] for name in names] == ["world", "world", "dream"]
    dreamed = lengths("tiny_dream", "evolve")
    assert f"| {lengths('tiny', 'collect'):,} | 36 | {dreamed:,} |" in page  # real steps; dreamed episodes and steps
    before = {path: path.read_bytes() for path in Path("results").iterdir()}
    assert main(["results", *names]) == 0
    assert before == {path: path.read_bytes() for path in Path("results").iterdir()} and len(before) == 7


def test_times_and_machines_are_those_of_the_runs_that_made_the_outputs(copy, monkeypatch):
    monkeypatch.delenv("WM_TRACKING")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = tracking.connect(copy)
    experiment = client.create_experiment("tiny")
    for stage, seconds in SECONDS.items():
        about = {"stage": stage, "name": "tiny", "output": tracking.digest(Path("runs/tiny", stage)), "machine": "M"}
        tags = {f"wm.{key}": value for key, value in about.items()} | {"mlflow.source.git.commit": "c" * 40}
        run = client.create_run(experiment, start_time=1000, tags=tags)
        for generation in range(1, 6) if stage == "evolve" else ():
            client.log_metric(run.info.run_id, "seconds", 1.0 + generation, step=generation)
        client.set_terminated(run.info.run_id, "FINISHED", 1000 + 1000 * seconds)
    assert main(["results", "tiny"]) == 0
    record = expectation.read("tiny")
    cost = record["cost"]
    assert (cost["training_seconds"], cost["test_seconds"], cost["core_hours"]) == (80, 8, round(80 / 3600, 3))
    assert [point["seconds"] for point in record["curve"]] == [50 + 2 + 3, 50 + 2 + 3 + 4 + 5, 50 + 20]
    assert record["machines"] == ["M"] and record["commit"] == "c" * 40 and not cost["unrecorded"]
    assert "| tiny | 1 min 20 s | 8 s | 0.02 |" in Path("results/README.md").read_text()


def test_a_mistake_is_one_sentence_and_nothing_is_written(copy, capsys):
    shutil.rmtree("runs/tiny-2/evaluate")
    Path("file").touch()
    for words, sentence in (
        (["nobody"], "'nobody' is not in `agents` of params.yaml"),
        (["tiny", "tiny-2"], "tiny-2 has no score yet: run `python -m flows.pipeline tiny-2` first"),
        (["tiny", "--out", "file"], "file cannot be a folder"),
        (["tiny", "--out", "nowhere/results"], "nowhere/results cannot be a folder"),
    ):
        assert main(["results", *words]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    shutil.rmtree("runs/tiny/train_vae")
    assert main(["results", "tiny"]) == 1
    assert "runs/tiny/train_vae/summary.json is missing" in capsys.readouterr().err
    assert not Path("results").exists()


# ---------------------------------------------------------------- the score to expect

RECORD = {
    "agent": "a",
    "score": {"mean": 820.0, "ci95_low": 800.0, "ci95_high": 835.0},
    "curve": [{"agent": "before", "generation": 40, "kept": 9999.0}]
    + [{"agent": "a", "generation": at, "kept": kept} for at, kept in ((2, 700.0), (4, 800.0), (8, 850.0))],
}


@pytest.mark.parametrize(
    "generations, score, at_least",
    [(2, 670, False), (3, 720, False), (4, 770, False), (5, 782.5, False), (8, 820, False), (9, 820, True)],
)
def test_expected_scores_lie_on_the_recorded_curve_shifted_to_the_test(generations, score, at_least):
    found = expectation.expect(RECORD, generations)
    assert found == expectation.Expectation(score, score - 20, score + 15, at_least)


def test_where_the_dream_chooses_what_the_world_said_is_expected():
    curve = [{**point, "rescored": point["kept"] / 10} for point in RECORD["curve"]]
    found = expectation.expect({**RECORD, "curve": curve, "decides": "dream"}, 4)
    assert found == expectation.Expectation(820 - 5, 800 - 5, 835 - 5, False)


def test_before_the_first_look_nothing_is_expected():
    assert expectation.expect(RECORD, 1) is None
    assert expectation.expect({**RECORD, "agent": "nobody"}, 5) is None


@pytest.mark.parametrize(
    "left, fits", [(1000, 10), (999, 8), (800, 8), (799, 6), (200, 2), (199, 0), (0, 0), (-5, 0), (1e9, 10)]
)
def test_a_search_that_runs_out_of_time_ends_at_a_look(left, fits):
    assert expectation.fitting(left, search=1000, generations=10, every=2) == fits


def sentences(budget: float | None, generations: int = 8) -> list[str]:
    found = [
        ("collect", "a", 60.0, ""),
        ("evolve", "b", 40.0, ""),
        ("evolve", "a", 800.0, ""),
        ("evaluate", "a", 100.0, ""),
    ]
    return expectation.lines("a", found, generations, 2, budget)


def test_what_is_said_about_a_budget(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentences(None) == []
    assert sentences(200 + 599) == ["in 13 min 19 s fit 4 of the 8 generations of evolve a"]
    Path("results").mkdir()
    files.write_record(Path("results/a.json"), RECORD)
    said = "770 (95% interval 750 to 785) after 4 generations, from results/a.json"
    assert sentences(200 + 599)[1:] == [f"score to expect: {said}"]
    assert sentences(None, 9)[0].startswith("score to expect: at least as recorded, 820 (95% interval 800 to 835)")
    (short,) = sentences(200 + 199)
    assert short.startswith(
        "6 min 39 s is too short: the first look at the search, after 2 generations, would take 6 min 40 s"
    )
    (early,) = sentences(None, 1)
    assert "no look as early as generation 1" in early


def test_estimate_prints_it_below_the_table(project, capsys):
    words = ["estimate", "tiny", "--only", "evolve@tiny", "--budget"]
    assert main([*words, "10h"]) == 0
    assert "\nin 10 h 0 min fit 5 of the 5 generations of evolve tiny\n" in capsys.readouterr().out
    assert main([*words, "soon"]) == 2
    assert "the budget is 'soon'" in capsys.readouterr().err
