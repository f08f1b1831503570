"""Lineage and why: on the tiny world, recorded by the real DVC in a real git repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import STAGES, make_project
from ruamel.yaml import YAML

from wm.cli import main
from wm.core import files
from wm.records import dvcfiles, gitfiles, lineage, why

ROOT = Path(__file__).parent.parent


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def commit(message: str, *stages: str) -> str:
    """Lets DVC record the outputs of stages, and git the rest; the commit."""
    if stages:
        run(sys.executable, "-m", "dvc", "commit", "--force", *(f"{stage}@tiny" for stage in stages))
    run("git", "add", "--all")
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", message)
    return run("git", "rev-parse", "HEAD")


def replace(path: str, before: str, after: str) -> None:
    text = Path(path).read_text()
    assert before in text
    Path(path).write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, list[str]]:
    """A repository with two commits of the agent `tiny`: in the second, evolution is a generation longer."""
    folder = make_project(tmp_path_factory.mktemp("recorded"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "wm", folder / "wm", ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WM_TRACKING", "off")
        patch.chdir(folder)
        run("git", "init", "--quiet")
        assert [main([stage, "tiny"]) for stage in STAGES] == [0] * 6
        first = commit("first", *STAGES)
        replace("params.yaml", "generations: 5", "generations: 6")
        assert [main([stage, "tiny"]) for stage in STAGES[4:]] == [0] * 2
        second = commit("second", *STAGES[4:])
    return folder, [first, second]


@pytest.fixture
def commits(recorded, tmp_path, monkeypatch) -> list[str]:
    """Its commits; the current folder is a copy that a test may spoil."""
    monkeypatch.setenv("WM_TRACKING", "off")
    monkeypatch.chdir(shutil.copytree(recorded[0], tmp_path / "copy"))
    for remembered in (gitfiles.code_at, gitfiles._params_at, gitfiles._lock_commits, gitfiles._lock_at):
        remembered.cache_clear()
    return recorded[1]


def lock() -> dict:
    return YAML(typ="safe").load(Path("dvc.lock"))["stages"]


def test_hashes_are_those_of_dvc(commits):
    for stage, entry in lock().items():
        for item in entry["deps"] + entry["outs"]:
            if not (stage.startswith("evaluate") and item["path"].startswith("metrics")):
                assert dvcfiles.md5(item["path"]) == item["md5"]
            if item["path"].startswith("wm/"):
                assert gitfiles.code_md5(item["path"], commits[1]) == item["md5"]


def test_lineage_goes_from_the_first_episode_to_the_score(commits, capsys):
    assert main(["lineage", "tiny"]) == 0
    said = capsys.readouterr().out
    score = files.read_json(Path("runs/tiny/evaluate/scores.json"))
    assert said.startswith(f"tiny: {score['mean']:.1f} ± {score['std']:.1f} over 3 episodes")
    places = [said.index(f" {number} {stage}@tiny") for number, stage in enumerate(STAGES, 1)]
    assert places == sorted(places)
    for stage in STAGES:
        (out,) = (out for out in lock()[f"{stage}@tiny"]["outs"] if out["path"] == f"runs/tiny/{stage}")
        assert f"runs/tiny/{stage}".ljust(33) + out["md5"][:12] in said
    assert "generations 6" in said and "steps 12" in said and "z_size 4" in said
    # V was made by the first commit, the score by the second, which has everything
    assert said.index(commits[0][:12]) < said.index(commits[1][:12])
    assert said.endswith(f"Make it again:\n  git checkout {commits[1][:12]} && dvc repro evaluate@tiny\n")


def test_lineage_says_what_the_commit_lacks(commits, capsys):
    Path("runs/tiny/evolve/controller.json").write_text("{}\n")
    replace("dvc.lock", "generations: 6", "generations: 7")
    (before,) = (dep["md5"] for dep in lock()["evolve@tiny"]["deps"] if dep["path"] == "wm/search")
    replace("wm/search/cmaes.py", '"""', '"""Changed. ')
    replace("dvc.lock", before, dvcfiles.md5("wm/search"))
    made = lineage.trace("tiny")
    assert made.commit == commits[1]
    (changes, elsewhere) = made.doubts
    assert "wm/search/cmaes.py" in changes and "experiments.tiny.evolve.generations 7 (the commit has 6)" in changes
    assert elsewhere.startswith("changed since DVC recorded it: runs/tiny/evolve (")


def test_lineage_says_what_was_made_again_since(commits):
    (before,) = (dep["md5"] for dep in lock()["evolve@tiny"]["deps"] if dep["path"] == "runs/tiny/train_mdn")
    text, start = Path("dvc.lock").read_text(), Path("dvc.lock").read_text().index("  evolve@tiny:\n")
    Path("dvc.lock").write_text(text[:start] + text[start:].replace(before, f"{'0' * 32}.dir", 1))
    doubt = "it was made from what has been made again since: evolve@tiny read another runs/tiny/train_mdn"
    assert doubt in lineage.trace("tiny").doubts


def test_keep_records_what_dvc_and_git_do(commits):
    Path("later.txt").write_text("nothing that matters\n")
    assert commit("later") not in commits
    assert main(["agent", "keep", "tiny"]) == 0
    made = files.read_record(Path("pretrained/tiny/made.json"))
    assert made["commit"] == commits[1]
    assert [stage["commit"] for stage in made["stages"]] == [commits[0]] * 4 + [commits[1]] * 2
    for stage in made["stages"]:
        name = f"runs/tiny/{stage['address'].partition('@')[0]}"
        assert {"path": name, "md5": stage["output"]}.items() <= lock()[stage["address"]]["outs"][-1].items()
    assert made["stages"][4]["numbers"]["generations"] == 6 and made["experiment"]["evaluate"]["episodes"] == 3
    Path("runs/tiny/evolve/more.txt").write_text("")
    assert main(["agent", "keep", "tiny"]) == 2
    assert main(["agent", "keep", "tiny", "--commit", commits[0][:10]]) == 0
    made = files.read_record(Path("pretrained/tiny/made.json"))
    assert made["commit"] == commits[0] and made["stages"][4]["output"] == dvcfiles.md5("runs/tiny/evolve")


def test_lineage_of_a_model_ends_at_m_and_of_a_second_round_begins_with_the_first(commits):
    replace(
        "params.yaml",
        "  tiny: {experiment: tiny, world: tiny, code: tiny_world.py, model: tiny, after: zero, tau: 1.0, seed: 3}\n",
        "",
    )
    replace("params.yaml", "actor: tiny, seed", "actor: zero, seed")
    replace("params.yaml", "after: tiny, tau", "after: zero, tau")
    Path("dvc.lock").unlink()
    assert lineage.trace("tiny").target == "train_mdn@tiny"
    second = lineage.trace("tiny-2")
    names = [made.step.address for made in second.steps]
    assert set(names) == {*(f"{stage}@tiny" for stage in STAGES[:4]), *(f"{stage}@tiny-2" for stage in STAGES)}
    assert names.index("encode@tiny") < names.index("train_mdn@tiny") < names.index("train_mdn@tiny-2")
    assert second.doubts[0].startswith("not made yet: collect@tiny-2")


def test_why_names_the_first_stage_and_what_followed(commits, capsys):
    assert main(["why", "HEAD~1:tiny", "tiny"]) == 0
    said = capsys.readouterr().out.splitlines()
    (first,) = (number for number, line in enumerate(said) if line == "First difference: evolve@tiny")
    assert said[first + 1] == "  params  generations 5 -> 6"
    assert said[first + 2].startswith("  reads   the same data: ")
    assert said[first + 4] == "After it:" and said[first + 5].split()[0] == "evaluate@tiny"
    weights = {line.split()[0]: line for line in said[-3:]}
    assert weights["V"].endswith("the same") and weights["M"].endswith("the same")


def test_why_pairs_the_episodes_of_both_even_where_only_the_cache_has_them(commits, capsys):
    here = files.read_json(Path("runs/tiny/evaluate/scores.json"))
    run("git", "checkout", "--quiet", commits[0])
    run(sys.executable, "-m", "dvc", "checkout", "--force", "evaluate@tiny")
    before = files.read_json(Path("runs/tiny/evaluate/scores.json"))
    run("git", "checkout", "--quiet", "-")
    shutil.rmtree("runs/tiny")
    assert main(["why", f"{commits[0]}:tiny", f"{commits[1]}:tiny"]) == 0
    mean = np.subtract(here["scores"], before["scores"]).mean()
    assert f"B - A = {mean:+.1f}, " in (said := capsys.readouterr().out)
    assert "paired, the same 3 episodes" in said


def test_why_gives_the_command_that_shows_changed_code(commits, capsys):
    replace("wm/search/cmaes.py", '"""', '"""Changed. ')
    third = commit("third", "evolve", "evaluate")
    assert main(["why", f"{commits[1]}:tiny", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "First difference: evolve@tiny\n  code    wm/search/cmaes.py" in said
    assert f"(git diff {commits[1]} {third[:12]} -- wm/search/cmaes.py)" in said
    assert "  and yet wrote the same bytes" in said
    assert "the scores are the same" in said
    assert main(["why", "tiny", "tiny"]) == 0
    assert "Nothing differs" in capsys.readouterr().out


def test_where_git_alone_has_a_score_it_is_of_its_world_and_drawing(commits, capsys):
    """A fresh clone without a cache: metrics/ has the mean, and nothing of the episodes."""
    score = files.read_json(Path("metrics/tiny.json"))["score"]
    shutil.rmtree("runs/tiny")
    shutil.rmtree(".dvc/cache")
    assert main(["lineage", "tiny"]) == 0
    assert f"tiny: {score['mean']:.1f} ± {score['std']:.1f} over 3 episodes" in capsys.readouterr().out
    assert main(["why", "HEAD~1:tiny", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "not paired: the episodes' own scores are not here" in said and "weights" not in said
    replace("dvc.lock", "worlds.tiny:", "worlds.other:")
    assert main(["why", "HEAD:tiny", "tiny"]) == 2
    assert "A is scored on tiny and B on other: there is nothing to compare" in capsys.readouterr().err


def test_weights_that_are_not_here_are_not_called_others(commits, capsys):
    shutil.rmtree(".dvc/cache")
    assert main(["why", f"{commits[1]}:tiny", "tiny"]) == 0
    weights = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[-1] for line in weights] == ["unknown"] * 3 and "not here" in weights[0]


def test_a_file_that_is_not_whole_is_one_sentence(commits, capsys):
    scores = Path("runs/tiny/evaluate/scores.json")
    whole = scores.read_text()
    scores.write_text(whole[:40])
    assert main(["why", "HEAD:tiny", "tiny"]) == 1
    said = capsys.readouterr().err
    assert "scores.json is not whole JSON (" in said and "run `python -m flows.mend`" in said
    assert said.count("\n") == 1
    scores.write_text(whole)
    lock = Path("dvc.lock").read_text()
    for before, sentence in (
        ("<<<<<<< HEAD\n", "error: dvc.lock has the marks of a merge"),
        ("}\n", "error: dvc.lock is not valid YAML at line 1"),
    ):
        Path("dvc.lock").write_text(before + lock)
        assert main(["lineage", "tiny"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(sentence) and said.count("\n") == 1
    Path("dvc.lock").write_text(lock)
    Path("params.yaml").unlink()
    assert main(["lineage", "nobody"]) == 2
    assert (
        "there is no params.yaml here: run this in the top folder of a checkout of the repository"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "sides, sentence",
    [
        (("tiny", "tiny-2"), "tiny-2 has no score: run `dvc repro evaluate@tiny-2` first"),
        (("nobody", "tiny"), "'nobody' is not in `agents`"),
        (("nowhere:tiny", "tiny"), "'nowhere' is no commit"),
    ],
)
def test_a_mistake_is_one_sentence(commits, capsys, sides, sentence):
    assert main(["why", *sides]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_without_git_and_dvc_the_files_alone_say_it(project, capsys):
    assert [main([stage, "tiny"]) for stage in STAGES[:2]] == [0, 0]
    capsys.readouterr()
    assert main(["lineage", "tiny"]) == 0
    said = capsys.readouterr().out
    assert dvcfiles.md5("runs/tiny/train_vae")[:12] in said and "steps 12" in said
    assert "not run by DVC" in said and "not made yet: encode@tiny, train_mdn@tiny, evolve@tiny, evaluate@tiny" in said
    assert "no commit is known" in said


# ---------------------------------------------------------------- is a difference real?


def scored(values, seeds, **more):
    values = np.asarray(values, float)
    return {
        "seeds": list(seeds),
        "scores": values.tolist(),
        "mean": values.mean(),
        "std": values.std(),
        "episodes": len(values),
        **more,
    }


def test_pairs_show_what_means_hide():
    rng = np.random.default_rng(0)
    tracks = rng.normal(800, 100, 50)
    a, b = scored(tracks, range(50)), scored(tracks + 5 + rng.normal(0, 1, 50), range(50))
    said = why.difference(a, b)
    assert said.endswith("(paired, the same 50 episodes): B is better, significantly")
    assert why.difference(b, a).endswith("B is worse, significantly")
    means = {key: side for key, side in a.items() if key != "seeds"}
    assert "not paired" in (said := why.difference(means, b)) and "not significant" in said


def test_noise_is_not_significant_and_says_how_many_episodes_it_would_take():
    rng = np.random.default_rng(1)
    a = scored(rng.normal(800, 100, 40), range(40))
    b = scored(rng.normal(800, 100, 40), range(40))
    said = why.difference(a, b)
    deltas = np.subtract(b["scores"], a["scores"])
    needed = int(np.ceil((2.8 * deltas.std(ddof=1) / deltas.mean()) ** 2))
    assert "not significant" in said and f"{needed:,} episodes" in said and needed > 40


def test_only_common_episodes_are_paired_by_their_seeds():
    a = scored([1.0, 2.0, 3.0, 100.0], [5, 6, 7, 8])
    b = scored([13.0, 12.0, 11.0], [7, 6, 5])
    assert why.difference(a, b).startswith("B - A = +10.0, 95% interval +10.0 to +10.0 (paired, the same 3 episodes)")


def test_scores_of_two_drawings_are_not_compared():
    a, b = scored([1, 2], [1, 2], drawing="fast"), scored([1, 2], [1, 2], drawing="gymnasium")
    with pytest.raises(why.UserError, match="A is scored on fast and B on gymnasium"):
        why.difference(a, b)
