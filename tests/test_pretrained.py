"""Agents that come with the repository: kept whole, played without a run, scored again to the same numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from conftest import STAGES, make_project

from wm import params, worlds
from wm.cli import main
from wm.core import files, weights
from wm.gym.dream import DreamEnv
from wm.models.vae import load_vae, save_vae
from wm.records import dvcfiles, earlier, history, lineage, provenance, store
from wm.release import browse, pretrained

AGENT = ("vae", "mdnrnn", "controller", "starts")


def git(*words: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *author, *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A repository whose agent has been scored; a second commit changes nothing that matters."""
    folder = make_project(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WM_TRACKING", "off")
        patch.chdir(folder)
        assert [main([stage, "tiny"]) for stage in STAGES] == [0] * 6
        git("init", "--quiet")
        git("add", "params.yaml")
        git("commit", "--quiet", "--message", "first")
        git("commit", "--quiet", "--message", "second", "--allow-empty")
    return folder


@pytest.fixture(scope="module")
def kept(made, tmp_path_factory) -> Path:
    """A project whose agent has been kept, and whose runs are gone."""
    folder = shutil.copytree(made, tmp_path_factory.mktemp("kept") / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WM_TRACKING", "off")
        patch.chdir(folder)
        assert main(["agent", "keep", "tiny", "--commit", "HEAD"]) == 0
        shutil.rmtree(folder / "runs" / "tiny")
    return folder


@pytest.fixture
def project(kept, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WM_TRACKING", "off")
    folder = shutil.copytree(kept, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def scored(made, tmp_path, monkeypatch) -> Path:
    """A project whose agent has been scored, not kept."""
    monkeypatch.setenv("WM_TRACKING", "off")
    folder = shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return folder


def record(**changes) -> None:
    """Changes the agent's made.json; None takes a key away."""
    path = Path("pretrained/tiny/made.json")
    content = {**files.read_record(path), **changes}
    files.write_record(path, {key: value for key, value in content.items() if value is not None})


def another_score() -> dict:
    """Changes the second recorded score; the record."""
    recorded = files.read_json(Path("pretrained/tiny/scores.json"))
    recorded["scores"][1] += 0.5
    files.write_json(Path("pretrained/tiny/scores.json"), recorded)
    return recorded


def test_its_score_is_the_recorded_one(project, capsys):
    assert main(["evaluate", "tiny", "--pretrained"]) == 0
    assert "over 3 episodes; every episode's score is the recorded one" in capsys.readouterr().out
    assert not (project / "runs" / "tiny").exists()


@pytest.mark.parametrize("form", ["today's", "before the processor and packages were recorded"])
def test_another_score_is_an_error_that_names_the_episode_and_what_differs(project, capsys, form):
    recorded, about = another_score(), files.read_record(Path("pretrained/tiny/made.json"))
    if form == "today's":
        record(processor="Abacus", packages={**about["packages"], "torch": "0.1", "gone": "2"})
        why = f"(recorded with processor Abacus, here {about['processor']}; gone 2, here none; torch 0.1, here "
        why += f"{about['packages']['torch']})"
    else:
        record(processor=None, packages=None)
        why = "(another type of processor, or other versions of the packages, may change the last bits)"
    assert main(["evaluate", "tiny", "--pretrained"]) == 2
    said = capsys.readouterr().err
    assert f"1 episodes differ, the first is seed {recorded['seeds'][1]} with" in said
    assert said.endswith(f" {why}\n")


def test_another_score_in_the_same_surroundings_points_at_the_code(project, capsys):
    another_score()
    assert main(["evaluate", "tiny", "--pretrained"]) == 2
    assert f"the recorded ones: `git diff {git('rev-parse', 'HEAD')[:12]} -- wm` shows" in capsys.readouterr().err


def test_scores_of_other_episodes_are_not_compared(project, capsys):
    made = files.read_record(Path("pretrained/tiny/made.json"))
    record(experiment={"evaluate": {**made["experiment"]["evaluate"], "episodes": 2}})
    assert main(["evaluate", "tiny", "--pretrained"]) == 2
    assert "has 3 scores, and its made.json says 2 episodes" in capsys.readouterr().err


def test_ones_own_world_can_be_browsed_and_a_damaged_agent_costs_a_warning(project, monkeypatch, capsys):
    monkeypatch.delenv("WM_TRACKING")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.address(project))
    monkeypatch.delitem(worlds._REGISTRY, "tiny")  # as in a process that has not read params.yaml
    shutil.copytree("pretrained/tiny", "pretrained/broken")
    Path("pretrained/broken/scores.json").write_text("{")
    assert browse.register(project) == ["tiny"]
    said = capsys.readouterr().err
    assert "warning: the agent in pretrained/broken is not registered: " in said and "git checkout" in said


def test_it_can_be_watched_and_dreamed_without_a_run(project, capsys):
    assert main(["watch", "tiny", "--pretrained", "--steps", "5", "--out", "w.mp4"]) == 0
    assert main(["play", "tiny", "--pretrained", "--steps", "5", "--out", "d.mp4"]) == 0
    assert Path("w.mp4").stat().st_size > 1000 and Path("d.mp4").stat().st_size > 1000


def test_what_made_it_is_beside_it(project):
    about = files.read_record(project / "pretrained/tiny/made.json")
    assert about["command"] == f"git checkout {git('rev-parse', 'HEAD')} && python -m flows.pipeline tiny"
    assert about["experiment"]["evaluate"]["episodes"] == 3 and about["tau"] == 1.0 and about["world"] == "tiny"
    assert [stage["address"] for stage in about["stages"]] == [f"{stage}@tiny" for stage in STAGES]
    assert about["stages"][4]["numbers"]["population"] == 4 and about["stages"][4]["summary"]["generations"] == 5
    assert about["packages"]["torch"].startswith("2.") and "vizdoom" not in about["packages"]
    assert about["processor"] and provenance.machine().startswith(f"{about['processor']}, {os.cpu_count()} cores")


def test_what_made_a_second_round_begins_with_the_first(scored):
    shutil.copytree("runs/tiny", "runs/tiny-2")
    assert main(["agent", "keep", "tiny-2", "--commit", "HEAD"]) == 0
    stages = files.read_record(Path("pretrained/tiny-2/made.json"))["stages"]
    addresses = [stage["address"] for stage in stages]
    assert set(addresses) == {f"{stage}@{name}" for name in ("tiny", "tiny-2") for stage in STAGES} - {"evaluate@tiny"}
    assert addresses.index("evolve@tiny") < addresses.index("collect@tiny-2") < addresses.index("evaluate@tiny-2")
    for stage in stages:
        kind, name = stage["address"].split("@")
        assert stage["output"] == dvcfiles.md5(f"runs/{name}/{kind}")
        assert stage["summary"] == files.read_json(Path(f"runs/{name}/{kind}/summary.json"))


def test_v_and_m_that_two_agents_share_lie_there_once(scored, capsys):
    shutil.copytree("runs/tiny", "runs/tiny-2")
    for name in ("tiny", "tiny-2"):
        assert main(["agent", "keep", name, "--commit", "HEAD"]) == 0
    own = {"controller.json", "controller.safetensors", "made.json", "scores.json"}
    assert set(os.listdir("pretrained/tiny-2")) == own and len(os.listdir("pretrained/tiny")) == len(own) + 10
    shutil.rmtree("runs/tiny-2")
    whole = pretrained.folder("tiny-2")
    for kind in (*AGENT, *weights.SURPRISE_KINDS):
        assert weights.load(whole, kind)[0] == weights.load(Path("pretrained/tiny"), kind)[0]
    assert main(["evaluate", "tiny-2", "--pretrained"]) == 0
    assert DreamEnv(model="pretrained/tiny-2").reset(seed=0)[0].any()

    vae = load_vae(Path("runs/tiny/evolve"))
    vae.encoder[0].bias.data += 1  # another V: the second agent would silently become another one
    save_vae(vae, "tiny", Path("runs/tiny/evolve"))
    capsys.readouterr()
    assert main(["agent", "keep", "tiny", "--commit", "HEAD"]) == 2
    assert "pretrained/tiny-2 has V and M of pretrained/tiny, and tiny has others now" in capsys.readouterr().err
    for end in ("json", "safetensors"):
        shutil.copy(f"runs/tiny/evolve/vae.{end}", "pretrained/tiny")
    assert main(["watch", "tiny-2", "--pretrained", "--steps", "3", "--out", "w.mp4"]) == 1
    assert capsys.readouterr().err == (
        "error: pretrained/tiny/vae.safetensors is not the one that pretrained/tiny-2 was scored with: "
        "`git checkout pretrained/tiny` brings it back\n"
    )


def test_the_commit_is_the_one_that_made_it_not_the_one_checked_out(scored, monkeypatch):
    first = git("rev-parse", "HEAD~1")
    run = {"commit": first, "dirty": False, "machine": "Abacus, Model 3, 2 cores"}
    monkeypatch.setattr(earlier, "run_of", lambda digest: run)
    assert main(["agent", "keep", "tiny"]) == 0
    about = files.read_record(Path("pretrained/tiny/made.json"))
    assert about["commit"] == first and {stage["commit"] for stage in about["stages"]} == {first}
    assert about["processor"] == "Abacus, Model 3"  # the run's, not this one


def test_an_unknown_or_doubtful_commit_is_refused_and_the_earlier_agent_stays(scored, capsys, monkeypatch):
    assert main(["agent", "keep", "tiny", "--commit", "HEAD~1"]) == 0
    before = {path.name: path.read_bytes() for path in Path("pretrained/tiny").iterdir()}
    run = {"commit": git("rev-parse", "HEAD"), "dirty": True, "machine": ""}
    for words, runs, sentence in (
        (["tiny"], None, "it is not certain which commit made tiny (no commit is known: "),
        (["tiny"], run, "(the working tree had changes, and nothing says which: collect@tiny, "),
        (["tiny", "--commit", "yesterday"], None, "--commit 'yesterday' is no commit that git knows here"),
        (["tiny", "--commit", ""], None, "--commit '' is no commit that git knows here"),
        (["tiny", "--commit=--all"], None, "--commit '--all' is no commit that git knows here"),
    ):
        monkeypatch.setattr(earlier, "run_of", lambda digest, answer=runs: answer)
        capsys.readouterr()
        assert main(["agent", "keep", *words]) == 2
        assert sentence in (said := capsys.readouterr().err) and said.count("\n") == 1
        assert {path.name: path.read_bytes() for path in Path("pretrained/tiny").iterdir()} == before


def test_what_is_not_whole_is_refused_and_the_earlier_agent_stays(scored, capsys):
    assert main(["agent", "keep", "tiny", "--commit", "HEAD"]) == 0
    before = {path.name: path.read_bytes() for path in Path("pretrained/tiny").iterdir()}
    starts, summary = Path("runs/tiny/train_mdn/starts.safetensors"), Path("runs/tiny/encode/summary.json")
    weights = starts.read_bytes()
    starts.write_bytes(weights[:-1] + b"\x01")
    assert main(["agent", "keep", "tiny", "--commit", "HEAD"]) == 1
    assert "starts.safetensors is damaged" in capsys.readouterr().err
    starts.write_bytes(weights)
    summary.unlink()
    assert main(["agent", "keep", "tiny", "--commit", "HEAD"]) == 1
    assert f"{summary} is missing" in capsys.readouterr().err
    assert [path.name for path in Path("pretrained").iterdir()] == ["tiny"]
    assert {path.name: path.read_bytes() for path in Path("pretrained/tiny").iterdir()} == before


def test_numbers_that_evaluate_no_longer_takes_are_a_sentence(scored, capsys, monkeypatch):
    monkeypatch.setattr(history.Step, "numbers", {"episodes": "many"})
    assert main(["agent", "keep", "tiny", "--commit", "HEAD"]) == 2
    assert "tiny was scored with numbers that `evaluate` does not take today" in capsys.readouterr().err


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_agent_whole(scored, monkeypatch):
    """Killed before its first change of a file, before its second, and so on: from a clean start, and after a kill."""
    commits, scores = [git("rev-parse", rev) for rev in ("HEAD~1", "HEAD")], Path("runs/tiny/evaluate/scores.json")
    plain, everything, left = files.read_json(scores), params.load(), None
    monkeypatch.setattr(lineage, "trace", cache(lineage.trace))

    def killable(change):
        def function(*args, **options):
            nonlocal left
            if left == 0:
                raise Killed
            left = None if left is None else left - 1
            return change(*args, **options)

        return function

    def keep(commit: str, moment: int | None) -> bool:
        """Whether it came to its end; killed before change `moment`."""
        nonlocal left
        left = None
        files.write_json(scores, {**plain, "commit": commit})
        left = moment
        try:
            pretrained.keep(everything, "tiny", commit)
        except Killed:
            return False
        finally:
            left = None
        return True

    def whole() -> str:
        """The commit of the agent that is there."""
        folder = pretrained.folder("tiny")
        for kind in AGENT:
            weights.load(folder, kind)
        commit = files.read_record(folder / "made.json")["commit"]
        assert files.read_json(folder / "scores.json")["commit"] == commit
        return commit

    for module, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (shutil, "copyfile")):
        monkeypatch.setattr(module, name, killable(getattr(module, name)))
    keep(commits[0], None)
    starts = [shutil.copytree("pretrained", "clean")]
    for start in starts:
        seen = []
        for moment in count():
            shutil.rmtree("pretrained")
            shutil.copytree(start, "pretrained")
            ended = keep(commits[1], moment)
            seen.append(whole())
            if start == "clean" and not Path("pretrained/tiny").exists():
                starts.append(shutil.copytree("pretrained", "between"))
            assert keep(commits[1], None) and whole() == commits[1]
            assert os.listdir("pretrained") == ["tiny"]
            if ended:
                break
        assert seen == sorted(seen, key=commits.index) and set(seen) == set(commits) and len(seen) > 12
    assert starts == ["clean", "between"]


def test_a_damaged_or_unknown_agent_is_a_sentence(project, capsys):
    assert main(["watch", "nobody", "--pretrained"]) == 2
    assert "no pretrained agent 'nobody' comes with this repository: there is tiny" in capsys.readouterr().err
    weights = project / "pretrained/tiny/controller.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert main(["evaluate", "tiny", "--pretrained"]) == 1
    said = capsys.readouterr().err
    assert "controller.safetensors is damaged" in said and said.endswith(
        "`git checkout pretrained/tiny` brings it back\n"
    )
    assert main(["watch", "tiny", "--pretrained", "--out", "a.mp4"]) == 1
    assert capsys.readouterr().err == said and not Path("a.mp4").exists()
    assert main(["agent", "keep", "tiny"]) == 2
    assert "tiny has no score yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [("--seed=-1", "0 or more"), ("--steps=0", "1 or more"), ("--tau=0", "more than 0"), ("--tau=-1", "more than 0")],
)
@pytest.mark.parametrize("command", ["watch", "play"])
def test_a_number_that_cannot_be_is_a_sentence(project, capsys, command, option, words):
    assert main([command, "tiny", "--pretrained", option]) == 2
    assert f"expected {words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("film.png", "expected a name that ends in .mp4 or .gif"),
        ("runs.gif", "is a folder: name a file"),
        ("params.yaml/film.gif", "whose folder cannot be made (File exists): name another"),
    ],
)
def test_a_file_that_cannot_be_written_is_said_before_the_episode(project, capsys, out, words):
    Path("runs.gif").mkdir()
    assert main(["watch", "tiny", "--pretrained", "--out", out]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_the_folder_of_a_film_is_made(project, kind):
    assert main(["watch", "tiny", "--pretrained", "--steps", "4", "--out", f"films/new/one.{kind}"]) == 0
    assert Path(f"films/new/one.{kind}").stat().st_size


def test_a_display_that_is_not_there_is_none(project, capsys, monkeypatch):
    """With a DISPLAY that leads nowhere pygame draws where nobody looks."""
    monkeypatch.setenv("DISPLAY", ":77")
    assert main(["watch", "tiny", "--pretrained", "--steps", "3"]) == 0
    assert "wrote watch.mp4" in capsys.readouterr().out and Path("watch.mp4").exists()
    assert main(["play", "tiny", "--pretrained", "--record", "mine"]) == 2
    assert "--record needs a display and no --out: a page or a film" in capsys.readouterr().err
