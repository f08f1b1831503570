"""The report: one file with everything inside, whatever is missing."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import STAGES, make_project

from wm.cli import main
from wm.core import files
from wm.views import charts, paper, report, report_pictures

ADDRESSES = {"src", "href", "poster", "srcset", "data", "action", "xlink:href"}


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    """A project in which every stage of `tiny` has run."""
    folder = make_project(tmp_path_factory.mktemp("line"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WM_TRACKING", "off")
        patch.chdir(folder)
        assert [main([stage, "tiny"]) for stage in STAGES] == [0] * 6
    return folder


@pytest.fixture
def copy(line, tmp_path, monkeypatch) -> Path:
    """A copy of `line` that a test may spoil; the current folder."""
    monkeypatch.setenv("WM_TRACKING", "off")
    monkeypatch.chdir(shutil.copytree(line, tmp_path / "copy"))
    return tmp_path / "copy"


def page() -> Page:
    assert main(["report", "tiny"]) == 0
    return Page(Path("tiny.html").read_text())


def test_nothing_on_the_page_asks_for_anything_outside_it(copy):
    found = page()
    assert not found.open  # every element is closed
    addresses = [value for _, attributes in found.tags for key, value in attributes.items() if key in ADDRESSES]
    assert len(addresses) > 6 and all(address.startswith("data:") for address in addresses)
    html = Path("tiny.html").read_text()
    without_data = re.sub(r"data:[a-z]+/[a-z0-9]+;base64,[A-Za-z0-9+/=]+", "", html)
    assert not re.findall(r"https?:|//[a-z]|url\(|@import", without_data)


def test_pictures_and_films_are_those_of_the_stages(copy):
    found = page()
    inside = {base64.b64decode(image["src"].split(",")[1]) for image in found.all("img")}
    made = (
        "train_vae/figures/reconstructions.png",
        "train_vae/figures/traversal.png",
        "train_mdn/figures/dream_strip.png",
        "collect/figures/checks.png",
        "encode/figures/checks.png",
    )
    assert inside == {Path("runs/tiny", path).read_bytes() for path in made}
    assert all(image["alt"] for image in found.all("img"))
    films = [base64.b64decode(film["src"].split(",")[1]) for film in found.all("video")]
    assert films == [
        Path(f"runs/tiny/evaluate/videos/{which}.mp4").read_bytes() for which in ("best", "median", "worst")
    ]
    assert all(film["poster"].startswith("data:image/jpeg;base64,") for film in found.all("video"))
    assert all(svg["aria-label"] and svg["role"] == "img" for svg in found.all("svg")) and len(found.all("svg")) == 6


def test_the_page_says_the_score_the_numbers_and_how_to_make_it_again(copy):
    found = page()
    score = files.read_json(Path("runs/tiny/evaluate/scores.json"))
    assert f"{score['mean']:.0f}± {score['std']:.0f}" in found.text
    assert f"{score['ci95_low']:.0f} to {score['ci95_high']:.0f}" in " ".join(found.text.split())
    assert "dvc repro evaluate@tiny" in found.text and "rescore_episodes" in found.text
    assert "Beside the paper" not in found.text  # which has no such world


@pytest.mark.parametrize("gone", STAGES)
def test_a_missing_stage_is_a_sentence(copy, gone):
    shutil.rmtree(Path("runs/tiny", gone))
    found = page()
    assert f"dvc repro {gone}@tiny" in found.text and "not made yet" in found.text
    assert len(found.all("video")) == (0 if gone == "evaluate" else 3)
    assert len(found.all("img")) == {"collect": 4, "train_vae": 3, "encode": 4, "train_mdn": 4}.get(gone, 5)
    assert ("unused" in found.text) == (gone != "encode"), "what the checks found"
    if gone == "evaluate":
        assert "Not scored yet" in found.text


def test_a_search_in_a_dream_shows_how_far_the_dream_is_to_be_trusted(copy):
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("evolve: {", "evolve: {dream: true, gauge_controllers: 4, ", 1))
    assert main(["evolve", "tiny"]) == 0
    picture = base64.b64encode(Path("runs/tiny/evolve/figures/gauge.png").read_bytes()).decode()
    assert [image["alt"] for image in page().all("img") if image["src"].endswith(picture)] == [
        "Scores in the world over scores in the dream, a point a controller, with their rank correlation"
    ]


def test_a_large_film_is_a_frame_and_a_sentence(copy, monkeypatch):
    monkeypatch.setattr(report_pictures, "BIGGEST_FILM", 100)
    found = page()
    assert not found.all("video") and len(found.all("img")) == 3 + 5
    assert "The film is in runs/tiny/evaluate/videos/best.mp4" in found.text


def test_the_page_of_its_dream_may_be_inside(copy, capsys):
    dream = '<!doctype html><p class="x">a & b</p><script type="application/octet-stream" id="agent">YQ==</script>'
    Path("dream.html").write_text(dream)
    assert main(["report", "tiny", "--dream", "dream.html"]) == 0
    (frame,) = Page(Path("tiny.html").read_text()).all("iframe")
    assert frame["srcdoc"] == dream and frame["title"] == "A dream of tiny"
    Path("dream.html").write_text("<p>something else")
    for other in ("dream.html", "nowhere.html"):
        assert main(["report", "tiny", "--dream", other]) == 2
        assert f"{other} is no page that `wm agent demo` wrote" in capsys.readouterr().err
    assert not Page(report.html("tiny")).all("iframe")


def test_names_and_folders_that_are_not_there_are_one_sentence(copy, capsys):
    assert main(["report", "nobody"]) == 2
    assert "'nobody' is not in `agents`" in capsys.readouterr().err
    assert main(["report", "tiny", "--out", "nowhere/page.html"]) == 2
    assert "nowhere is no folder" in capsys.readouterr().err
    assert main(["report", "tiny", "--out", "runs"]) == 2
    assert "runs is a folder: name a file with --out" in capsys.readouterr().err


def test_text_from_files_is_escaped(copy):
    made = Path("runs/tiny/evolve/summary.json")
    files.write_json(made, {"<script>alert(1)</script>": 1.0})
    page()
    assert "<script>alert(1)" not in Path("tiny.html").read_text()


def test_a_score_that_only_git_has_is_on_the_page(copy):
    """A clone without the outputs: dvc.lock says that there is a score, metrics/ which."""
    score = files.read_json(Path("metrics/tiny.json"))["score"]
    evolve, out = ({"path": f"runs/tiny/{stage}", "md5": "0" * 32} for stage in STAGES[4:])
    files.write_json(Path("dvc.lock"), {"stages": {"evaluate@tiny": {"deps": [evolve], "outs": [out]}}})  # JSON is YAML
    shutil.rmtree("runs/tiny")
    found = page()
    assert f"{score['mean']:.0f}± {score['std']:.0f}" in found.text and "Not scored yet" not in found.text
    assert "whose own scores are not here" in found.text


def test_only_dreamed_searches_are_called_so(tmp_path):
    """Rounds in the world, in the dream and in the world again."""
    world = [{"step": 1, "mean": 1.0, "best": 2.0, "worst": 0.0, "rescored": 1.5}]
    dream = [world[0] | {"mean": 5.0, "rescored_dream": 6.0}]
    steps = []
    for number, lines in enumerate((world, dream, world)):
        (folder := tmp_path / str(number)).mkdir()
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        steps.append(SimpleNamespace(step=SimpleNamespace(folder=folder)))
    svg = report._evolution(steps, solved=900.0)
    assert svg.count('class="dot a"') == 2 and svg.count('class="dot d"') == 1
    assert svg.count("s mean in the world</span>") == 2 and svg.count("population&#x27;s mean in the dream</span>") == 1
    alone = report._evolution(steps[:1], solved=900.0)
    assert "in the dream" not in alone and "in the world" not in alone


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({}, "C is a single linear layer on V's z and M's output h. CMA-ES"),
        ({"inputs": ["z"], "hidden": 40}, "C has a hidden layer of 40 units on V's z. CMA-ES"),
        ({"final_episodes": 64}, "At the end the best few and the average of the means meet on 64 others."),
    ],
)
def test_the_page_says_what_c_is_and_how_it_was_chosen(numbers, words):
    step = SimpleNamespace(stage="evolve", numbers={"population": 8, "rescore_every": 2, **numbers})
    said = report._search("tiny", [SimpleNamespace(step=step)])
    assert words in said and ("At the end" in said) == ("final_episodes" in numbers)


def test_the_table_has_the_paper_and_this_agent_in_order(copy):
    scores = {"mean": 853.7, "std": 61.3}
    rows = report._table("car_racing", scores)["rows"]
    assert [row["mean"] for row in rows] == sorted((row["mean"] for row in rows), reverse=True)
    methods = [row["method"] for row in rows]
    assert methods.index("World Models") < methods.index("this agent") < methods.index("V alone")
    assert {row["from"] for row in rows} > {"paper", "here", "quoted in the paper", "Tang et al. 2020"}
    assert max(row["low"] + row["span"] for row in rows) == pytest.approx(100)
    assert paper.SCORES["take_cover"][0].mean == 1092
    assert "this agent" not in {row["method"] for row in report._table("car_racing", {})["rows"]}


# ---------------------------------------------------------------- charts


def numbers(svg: str, pattern: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, svg)]


def test_a_curve_goes_from_corner_to_corner_and_higher_is_higher():
    svg = charts.lines("t", "a", [charts.Line("l", [[(0, 0.0), (50, 3.0), (100, 10.0)]], "a")], xlabel="step")
    (path,) = re.findall(r'class="line a" d="M([^"]+)"', svg)
    xs, ys = zip(*((float(n) for n in pair.split(",")) for pair in path.split("L")), strict=True)
    assert xs[0] < xs[1] < xs[2] and ys[0] > ys[1] > ys[2]
    assert (xs[1] - xs[0]) == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert (ys[0] - ys[1]) / (ys[0] - ys[2]) == pytest.approx(0.3, abs=0.01)


def test_rounds_follow_one_another_and_are_not_joined():
    parts = [[(1, 5.0), (4, 6.0)], [(5, 1.0), (8, 2.0)]]
    svg = charts.lines(
        "t", "a", [charts.Line("l", parts, "b")], xlabel="x", rounds=[(0, 4, "round 1"), (4, 8, "round 2")]
    )
    assert len(re.findall('class="line b"', svg)) == 2 and "round 1" in svg and svg.count("rule round") == 1


def test_labels_of_short_rounds_are_their_numbers():
    line = charts.Line("l", [[(0, 5.0), (100, 6.0)]], "a")
    rounds = [(0, 50, "round 1"), (50, 90, "round 2"), (90, 100, "round 3")]
    short = charts.lines("t", "a", [line], xlabel="x", rounds=rounds)
    assert "round 1" not in short and all(f">{number}</text>" in short for number in (1, 2, 3))
    assert "round 2" in charts.lines("t", "a", [line], xlabel="x", rounds=rounds[:2])


def test_a_histogram_counts_every_score():
    values = np.random.default_rng(0).normal(850, 60, 100)
    svg = charts.histogram("t", "a", values, interval=(840, 860), reference=("solved", 900))
    heights = numbers(svg, r'class="bar"[^>]*height="([0-9.]+)"')
    counts, _ = np.histogram(values, bins=20)
    counts = counts[counts > 0]
    np.testing.assert_allclose(np.array(heights) / max(heights), counts / counts.max(), atol=0.01)


@pytest.mark.parametrize("low, high", [(0, 1), (-3, 900), (0.001, 0.0012), (17, 17.5), (0, 1e6)])
def test_ticks_are_few_round_and_inside(low, high):
    first, last, ticks = charts._ticks(low, high, log=False)
    assert first <= low and high <= last and 2 <= len(ticks) <= 7
    assert all(first <= tick <= last for tick in ticks)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
