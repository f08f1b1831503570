"""What a run will need of a machine, and the score that an earlier one lets expect."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import torch

from wm import params
from wm.cli import main
from wm.core import files
from wm.core.errors import UserError
from wm.estimate import expectation, needs, rates
from wm.records import history
from wm.run import Plan, plan
from wm.views.table import stage_record

ROOT = Path(__file__).parent.parent
RECORD = {
    "agent": "a",
    "stages": [],
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
    found = {"collect@a": 60.0, "evolve@b": 40.0, "evolve@a": 800.0, "evaluate@a": 100.0}
    return expectation.lines("a", found, generations, 2, budget, [])


def test_what_is_said_about_a_budget(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    none = "no score to expect: there is no results/a.json of an earlier run (`wm results page a`)"
    assert sentences(None) == [none]
    assert sentences(200 + 599) == ["in 13 min 19 s fit 4 of the 8 generations of evolve a", none]
    Path("results").mkdir()
    files.write_record(Path("results/a.json"), RECORD)
    said = "770, as results/a.json has it of one run (750 to 785 over its episodes) after 4 generations"
    assert sentences(200 + 599)[1] == f"score to expect: {said}; another run's luck comes on top"
    (beyond,) = sentences(None, 9)
    assert beyond.startswith("score to expect: 820, as") and beyond.endswith("), which ended before 9 generations")
    with pytest.raises(expectation.TooShort, match=r"^6 min 39 s is too short: the first .*, would take 6 min 40 s"):
        sentences(200 + 199)
    (early,) = sentences(None, 1)
    assert "no rescoring as early as generation 1" in early


def test_a_record_of_a_run_with_other_numbers_is_named_as_one(project):
    def plans() -> list[Plan]:
        everything = params.load()
        return [plan(everything, *one) for one in needs.stages(everything, "tiny")]

    stages = [stage_record(step) for step in history.Snapshot().steps("tiny")]
    record = {**RECORD, "agent": "tiny", "stages": stages}
    assert expectation.changes(record, plans()) == []
    own = stages[-2]["params"]
    own["generations"] = 999  # how long the search is, the curve knows
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("population: 4", "population: 4, hidden: 0"))  # as by default
    assert expectation.changes(record, plans()) == []
    del own["centre"]
    own |= {"population": 64, "inputs": ["z"]}
    stages[3]["params"]["model.hidden"] = 9
    expected = [
        "evolve@tiny had centre False, now True",
        "evolve@tiny had inputs ['z'], now None",
        "evolve@tiny had population 64, now 4",
        "train_mdn@tiny had model.hidden 9, now 8",
    ]
    assert expectation.changes(record, plans()) == expected
    Path("results").mkdir()
    files.write_record(
        Path("results/tiny.json"), {**record, "curve": [{"agent": "tiny", "generation": 2, "kept": 1.0}]}
    )
    told = expectation.lines("tiny", {}, 5, 2, None, plans())
    assert told[1:] == [f"but that run was of another params.yaml: {'; '.join(expected[:3])}; and 1 more"]
    stages[0]["address"] = "collect@before"
    stages[1]["reads"] = ["collect@before", "train_vae@before"]
    assert expectation.changes(record, plans())[4:] == [
        "train_vae@tiny read collect@before and train_vae@before, now collect@tiny",
        "it had no collect@tiny",
        "it alone had collect@before",
    ]


def test_of_a_record_without_numbers_no_change_is_known(project):
    plans = [plan(params.load(), "evolve", "tiny")]
    assert expectation.changes({"agent": "tiny", "stages": [{"address": "evolve@tiny"}]}, plans) == []


def test_the_records_of_the_repository_are_of_the_numbers_in_params_yaml(monkeypatch):
    """Whoever changes these numbers runs the agent again, or takes its record out of results/."""
    monkeypatch.chdir(ROOT)
    everything = params.load()
    for name in ("car_racing", "car_racing_fine", "take_cover", "ablation_v"):
        plans = [plan(everything, *one) for one in needs.stages(everything, name)]
        assert expectation.changes(expectation.read(name), plans) == []


def test_estimate_measures_every_stage_and_says_what_it_needs(project, capsys):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("train_vae: {", "train_vae: {device: cuda, ", 1))
    assert main(["estimate", "tiny", "--budget", "10h", "--seconds", "seconds.json"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"tiny: 6 stages, about \d+ (s|min) on this machine if none is cached", told[0])
    rows = [re.fullmatch(r"  (\w+@tiny) +(\d+) (s|min) +(\d+) MB +([\d.]+) (MB|GB)   .*", line) for line in told[2:8]]
    seconds = files.read_json(Path("seconds.json"))
    assert sorted(row[1] for row in rows) == sorted(seconds)
    for row in rows:
        unit = {"s": 1, "min": 60}[row[3]]
        assert abs(seconds[row[1]] - int(row[2]) * unit) <= 0.51 * unit
        assert 1 <= int(row[4]) < 100 and 100 < float(row[5]) * {"MB": 1, "GB": 1000}[row[6]] < 5000
    assert "on the CPU, for there is no cuda here" in told[3] or torch.cuda.is_available()
    assert told[8] == "in 10 h 0 min fit 5 of the 5 generations of evolve tiny"


def test_a_damaged_record_of_an_earlier_run_is_a_warning(project, capsys):
    Path("results").mkdir()
    Path("results/tiny.json").write_text('{"checksum": "0", "curve": []}')
    assert main(["estimate", "tiny", "--only", "evaluate@tiny", "--seconds", "seconds.json"]) == 0
    assert "warning: no score to expect: " in capsys.readouterr().err
    assert list(files.read_json(Path("seconds.json"))) == ["evaluate@tiny"]


@pytest.mark.parametrize(
    "words, error",
    [
        (["--budget", "soon"], "the budget is 'soon'"),
        (["--only", "evolve@other"], "evolve@other is no stage that tiny needs: expected some of collect@tiny, "),
        (["--only", "evolve@tiny", "--budget", "1s"], "1 s is too short: the first rescoring of the search, after "),
    ],
)
def test_estimate_refuses(project, capsys, words, error):
    assert main(["estimate", "tiny", *words]) == 2
    assert f"error: {error}" in capsys.readouterr().err


def test_what_hangs_while_it_is_measured_is_ended(monkeypatch):
    monkeypatch.setattr(rates, "HANGING", 0.1)
    with pytest.raises(UserError, match="sleep gave no answer in 0 min: a step hangs"):
        rates._apart(time.sleep, 60)
