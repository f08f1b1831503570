"""The whole line on a tiny world: the same bits in any folder, after any kill; damage and failure in a sentence."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_world
import torch
from conftest import STAGES, make_project
from threadpoolctl import threadpool_info, threadpool_limits

from wm.cli import main
from wm.core import files, seeds, weights
from wm.core.episodes import EpisodeSet
from wm.core.journal import read
from wm.models import surprise
from wm.models.controller import load_controller
from wm.models.mdnrnn import load_mdnrnn, save_mdnrnn
from wm.models.surprise import Reference
from wm.models.vae import load_vae
from wm.play.agent import AgentFiles, controller_spec
from wm.search import loop
from wm.search.budget import ENDED, OutOfTime
from wm.search.cmaes import CMAES
from wm.search.contenders import Contenders
from wm.search.fitness import Scorer
from wm.search.imitation import average, newest
from wm.search.start import inherited
from wm.stages.evolve import BLAS_THREADS

ROOT = Path(__file__).parent.parent
PROGRAM = Path(tiny_world.__file__)
MADE = {
    "collect": {
        "manifest.json",
        "shard-00000.parquet",
        "shard-00001.parquet",
        "shard-00002.parquet",
        "figures/episodes.png",
        "checks.json",
        "figures/checks.png",
    },
    "train_vae": {
        "vae.json",
        "vae.safetensors",
        "metrics.jsonl",
        "figures/curves.png",
        "figures/reconstructions.png",
        "figures/traversal.png",
    },
    "encode": {
        "manifest.json",
        "shard-00000.parquet",
        "shard-00001.parquet",
        "shard-00002.parquet",
        "surprise_v.json",
        "surprise_v.safetensors",
        "checks.json",
        "figures/checks.png",
    },
    "train_mdn": {
        "mdnrnn.json",
        "mdnrnn.safetensors",
        "starts.json",
        "starts.safetensors",
        "surprise_m.json",
        "surprise_m.safetensors",
        "metrics.jsonl",
        "figures/curves.png",
        "figures/dream_strip.png",
        "videos/dream.mp4",
    },
    "evolve": {
        "controller.json",
        "controller.safetensors",
        "vae.json",
        "vae.safetensors",
        "mdnrnn.json",
        "mdnrnn.safetensors",
        "surprise_v.json",
        "surprise_v.safetensors",
        "surprise_m.json",
        "surprise_m.safetensors",
        "metrics.jsonl",
        "figures/curves.png",
    },
    "evaluate": {"scores.json", "figures/scores.png", "videos/best.mp4", "videos/median.mp4", "videos/worst.mp4"},
}


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def start(folder: Path, *words: str, **more) -> subprocess.Popen:
    """`python -m wm` in `folder`, with the tiny world, in a process group of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WM_TRACKING": "off", **more.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *words],
        cwd=folder,
        env=env,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    """A project in which every stage has run, in this process."""
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
    folder = shutil.copytree(line, tmp_path / "copy")
    monkeypatch.chdir(folder)
    return folder


def change(*changes: tuple[str, str]) -> None:
    text = Path("params.yaml").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    Path("params.yaml").write_text(text)


def test_every_stage_leaves_what_it_should_and_nothing_else(line):
    found = {stage: set(hashes(line / "runs" / "tiny" / stage)) for stage in STAGES}
    assert found == {stage: made | {"summary.json"} for stage, made in MADE.items()}
    assert sorted(path.name for path in (line / "runs" / "tiny").iterdir()) == sorted(STAGES)
    left = {path.name for path in (line / ".wm").rglob("*") if path.is_file()}
    assert {name for name in left if not name.endswith(".lock")} <= {"live.jsonl"}, "the scratch folder was not cleared"
    for stage in STAGES:
        assert all(
            np.isfinite(value) for value in files.read_json(line / "runs" / "tiny" / stage / "summary.json").values()
        )


def test_the_same_bits_elsewhere_with_workers(line, tmp_path):
    """Another folder, umask, TMPDIR, time zone and hash seed, and workers instead of one process."""
    folder, scratch = make_project(tmp_path / "a much longer path" / "b"), tmp_path / "scratch"
    scratch.mkdir()
    process = start(
        folder,
        *" -- ".join(f"{stage} tiny" for stage in STAGES).split(),
        umask=0o077,
        env={
            "WM_WORKERS": "2",
            "TMPDIR": str(scratch),
            "TZ": "Asia/Tokyo",
            "PYTHONHASHSEED": "7",
            "OMP_NUM_THREADS": "2",
        },
    )
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    closing = [text.split(":")[0] for text in said.splitlines() if not text.startswith("final selection: ")]
    assert closing == [f"{stage} tiny" for stage in STAGES]
    for part in ("runs", "metrics", "plots"):
        assert hashes(folder / part) == hashes(line / part)
    for path in (folder / "runs" / "tiny").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_no_output_holds_a_path_a_host_or_a_date(line):
    words = [str(line).encode(), str(ROOT).encode(), time.strftime("%Y-%m-").encode()]
    words += [platform.node().encode()] * (len(platform.node()) > 8)  # a short name turns up in any checksum
    for path in (line / "runs" / "tiny").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in words if word in content], path


@pytest.mark.parametrize(
    "stage, sign",
    [
        ("collect", "shards.jsonl"),
        ("train_vae", "checkpoints/latest"),
        ("train_mdn", "checkpoints/latest"),
        ("evolve", "checkpoints/latest"),
        ("evaluate", "checkpoints/latest"),
    ],
)
def test_killed_and_started_again_the_bits_are_the_same(line, copy, capsys, stage, sign):
    expected = hashes(copy / "runs" / "tiny" / stage)
    shutil.rmtree(copy / "runs" / "tiny" / stage)
    process = start(copy, stage, "tiny")
    try:
        while not list((copy / ".wm" / "work").glob(f"{stage}-tiny-*/{sign}")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL and not (copy / "runs" / "tiny" / stage).exists()
    capsys.readouterr()
    assert main([stage, "tiny"]) == 0
    assert ("going on from" in capsys.readouterr().out) == (stage != "collect")
    assert hashes(copy / "runs" / "tiny" / stage) == expected


def test_a_search_that_is_out_of_time_has_the_bits_of_a_shorter_one(copy, capsys, monkeypatch):
    change(("generations: 5", "generations: 2"))
    assert main(["evolve", "tiny"]) == 0
    expected = hashes(copy / "runs" / "tiny" / "evolve")
    for last in (2, 4):  # the second run goes on, and may go on until the next rescoring
        change(("generations: 2", "generations: 51"))
        monkeypatch.setenv("WM_DEADLINE", "0")
        capsys.readouterr()
        assert main(["evolve", "tiny"]) == OutOfTime.code
        assert f"the time is over after generation {last} of 51" in capsys.readouterr().err
        (ended,) = (copy / ".wm/work").glob(f"evolve-tiny-*/{ENDED}")
        assert (files.read_json(ended)["generation"], files.read_json(ended)["planned"]) == (last, 51)
        change(("generations: 51", "generations: 2"))
    assert main(["evolve", "tiny"]) == 0, "the checkpoint of generation 4 is no way to generation 2"
    assert hashes(copy / "runs" / "tiny" / "evolve") == expected
    change(("generations: 2", "generations: 51"))
    assert main(["evolve", "tiny"]) == OutOfTime.code
    change(("generations: 51", "generations: 2"))
    capsys.readouterr()
    assert main(["evolve", "tiny"]) == 0
    assert "going on from generation 2" in capsys.readouterr().out
    assert hashes(copy / "runs" / "tiny" / "evolve") == expected


@pytest.mark.parametrize("spare, last", [(-0.5, 2), (0, 4), (10.5, 4), (11, None)])
def test_a_search_that_goes_on_just_before_a_rescoring_expects_the_next_when_it_comes(
    copy, capsys, monkeypatch, spare, last
):
    """By this clock a generation takes 1 s, and a rescoring, two controllers with two episodes each, 10 s.

    What is to come after the second generation is two and a rescoring, after the fourth one and a rescoring.
    """
    now, interrupted = [0.0], []
    played, rescored = Scorer.fitness, Scorer.rescore

    def fitness(self, *words):
        now[0] += 1
        if now[0] == 2 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return played(self, *words)

    def rescore(self, *words):
        now[0] += 10
        return rescored(self, *words)

    monkeypatch.setattr(Scorer, "fitness", fitness)
    monkeypatch.setattr(Scorer, "rescore", rescore)
    monkeypatch.setattr(loop, "time", SimpleNamespace(time=lambda: now[0], perf_counter=lambda: now[0]))
    shutil.rmtree(copy / ".wm", ignore_errors=True)
    assert main(["evolve", "tiny"]) == 130
    now[0] = 0.0
    final = 10 * (Contenders.MOST + 1) * 3 / 4
    monkeypatch.setenv("WM_DEADLINE", str(1 + 10 + 2 * 1 + 10 + final + spare))
    assert main(["evolve", "tiny"]) == (OutOfTime.code if last else 0)
    assert (f"the time is over after generation {last} of 5" in capsys.readouterr().err) == bool(last)


def test_ctrl_c_is_one_sentence_and_leaves_no_worker(copy):
    """SIGINT goes to the whole group, workers too, as from a terminal."""
    change(("generations: 5", "generations: 5000"))
    process = start(copy, "evolve", "tiny", env={"WM_WORKERS": "2"})
    while not list((copy / ".wm" / "work").glob("evolve-tiny-*/checkpoints/latest")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = [text for text in errors.splitlines() if text and "generation [" not in text]
    assert lines == ["Stopped; the same command goes on from the last checkpoint."], errors
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_a_second_round_goes_on_from_the_first(copy, capsys):
    assert [main([stage, "tiny-2"]) for stage in STAGES[:5]] == [0] * 5
    said = capsys.readouterr().out
    first, second = EpisodeSet(copy / "runs/tiny/collect"), EpisodeSet(copy / "runs/tiny-2/collect")
    assert second.shards[:3] == first.shards and len(second) == 24
    second.verify()
    assert not {e["seed"] for e in first.episodes} & {e["seed"] for e in second.episodes[12:]}
    before, after = (
        weights.load(copy / f"runs/{name}/train_vae", "vae")[1]["mu.weight"] for name in ("tiny", "tiny-2")
    )
    assert 0 < float((after - before).abs().max()) < 0.1, "V did not start from the first round's"
    assert EpisodeSet(copy / "runs/tiny-2/encode").steps == second.steps
    lines = read(copy / "runs/tiny-2/evolve/metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5], "0: the look at what it starts from"
    actor = AgentFiles.read(copy / "runs/tiny/evolve").digest
    for data in (second, EpisodeSet(copy / "runs/tiny-2/encode")):
        for number, episode in enumerate(data.episodes):
            drove = "actor" in episode
            assert not drove or episode["actor"] == actor
            assert np.isfinite(data.read(number, ["out"])["out"]).all() == drove
        assert 0 < sum("actor" in episode for episode in data.episodes) <= 12
    assert "C starts as what imitates the earlier agent best" in said
    about = files.read_json(copy / "runs/tiny-2/evolve/controller.json")
    start = float(re.search(r"that it starts from scores (-?[\d.]+)", said).group(1))
    assert about["round"] == 1 and lines[-1]["kept"] >= start - 0.05, "worse than what it started from"
    assert round(lines[0]["rescored"], 1) == start

    from bench import imitation

    scores = imitation.measure("tiny-2", episodes=2)
    assert [len(each) for each in scores.values()] == [2] * 3
    imitated = scores["imitated, new V and M"].mean()
    assert imitated == pytest.approx(start, abs=0.051), "not the controller that the search starts from"


def test_rounds_share_no_tracks_and_no_candidates(copy, monkeypatch):
    """A later round's controller knows the tracks of the earlier ones."""
    drawn: dict[str, list] = {"tiny": [], "tiny-2": []}
    real, name = seeds.episodes, "tiny"
    monkeypatch.setattr(
        seeds, "episodes", lambda *key, count: drawn[name].append(real(*key, count=count)) or drawn[name][-1]
    )
    candidates = {}
    told = CMAES.tell
    monkeypatch.setattr(
        CMAES,
        "tell",
        lambda self, f: candidates.setdefault(name, self._asked[0] - self._es.mean) is None or told(self, f),
    )
    for folder in (copy / "runs/tiny/evolve", copy / ".wm"):
        shutil.rmtree(folder, ignore_errors=True)
    assert main(["evolve", "tiny"]) == 0
    name = "tiny-2"
    assert [main([stage, "tiny-2"]) for stage in STAGES[:5]] == [0] * 5
    first, second = ({number for part in parts for number in part} for parts in drawn.values())
    assert len(first) == 15 and not first & second
    assert not np.allclose(candidates["tiny"], candidates["tiny-2"])


def test_a_carried_shard_that_was_being_copied_is_copied_again(copy, monkeypatch):
    real = shutil.copyfile

    def killed(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", killed)
    assert main(["collect", "tiny-2"]) == 130
    monkeypatch.setattr(shutil, "copyfile", real)
    assert main(["collect", "tiny-2"]) == 0
    EpisodeSet(copy / "runs/tiny-2/collect").verify()
    assert not list((copy / "runs/tiny-2/collect").glob("*.tmp"))


@pytest.mark.parametrize(
    "kind, folder, stages",
    [
        ("vae", "train_vae", ["encode", "train_mdn", "evolve"]),
        ("mdnrnn", "train_mdn", ["evolve"]),
        ("vae", "evolve", ["evaluate"]),
        ("controller", "evolve", ["evaluate"]),
    ],
)
def test_a_flipped_byte_in_a_model_is_named_before_any_work(copy, capsys, kind, folder, stages):
    path = copy / "runs" / "tiny" / folder / f"{kind}.safetensors"
    data = bytearray(path.read_bytes())
    data[-30] ^= 16
    path.write_bytes(data)
    for stage in stages:
        before = hashes(copy / "runs")
        assert main([stage, "tiny"]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: runs/tiny/{folder}/{kind}.safetensors is damaged") and said.count("\n") == 1
        assert hashes(copy / "runs") == before
        assert not list((copy / ".wm" / "work").glob(f"{stage}-*/checkpoints/*"))


def test_a_gpu_is_asked_for_the_same_bits_every_time(copy, capsys, monkeypatch):
    """Before the stage starts; without a GPU the answer is a sentence."""
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("train_vae: {", "train_vae: {device: cuda, ", 1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["train_vae", "tiny"]) == 2
    assert "this PyTorch finds no CUDA device: set it to cpu" in capsys.readouterr().err
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # put back afterwards, which `delenv` of nothing would not do
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    seen = []

    def stage(*args, workspace, **kwargs):
        seen.extend([torch.are_deterministic_algorithms_enabled(), os.environ["CUBLAS_WORKSPACE_CONFIG"]])
        seen.append(torch.utils.deterministic.fill_uninitialized_memory)
        raise KeyboardInterrupt

    monkeypatch.setattr("wm.stages.train_vae.train_vae", stage)
    try:
        assert main(["train_vae", "tiny"]) == 130
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [True, ":4096:8", False]


def test_models_that_give_no_number_stop_the_search_in_a_sentence(copy, capsys):
    broken = load_mdnrnn(Path("runs/tiny/train_mdn"))
    with torch.no_grad():
        broken.lstm.bias.fill_(float("nan"))
    save_mdnrnn(broken, "tiny", Path("runs/tiny/train_mdn"))
    assert main(["evolve", "tiny"]) == 2
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error")]
    assert len(said) == 1 and "no candidate of generation 1 has a finite score" in said[0]


def test_ablations_and_dreams_are_one_number_away(copy, capsys):
    """A C that reads z alone, with a hidden layer, evolved in the dream of an M that was never trained."""
    change(
        ("steps: 30,", "steps: 0,"),
        ("population: 4,", "population: 4, inputs: [z], hidden: 3, dream: true,"),
        ("after: zero, tau: 1.0", "after: zero, tau: 1.15"),
    )
    assert main(["train_mdn", "tiny"]) == main(["evolve", "tiny"]) == 0
    about = files.read_json(Path("runs/tiny/evolve/controller.json"))
    assert (about["inputs"], about["layout"]["hidden"], about["dream"], about["tau"]) == (["z"], 3, True, 1.15)
    assert about["shapes"] == {"params": [3 * (4 + 1) + 2 * (3 + 1)]}
    starts = Path("runs/tiny/train_mdn/starts.safetensors")
    starts.write_bytes(starts.read_bytes()[:-1] + b"\x01")
    capsys.readouterr()
    assert main(["evolve", "tiny"]) == 1
    assert "starts.safetensors is damaged" in capsys.readouterr().err


def test_an_untrained_memory_is_one_number_away(copy):
    change(("evolve: {", "evolve: {untrained: true, "))
    assert main(["evolve", "tiny"]) == 0
    trained, used = (weights.load(Path("runs/tiny") / stage, "mdnrnn")[1] for stage in ("train_mdn", "evolve"))
    assert all(used[name].shape == tensor.shape for name, tensor in trained.items())
    assert not torch.equal(used["lstm.weight_h"], trained["lstm.weight_h"])
    assert not list(Path("runs/tiny/evolve").glob("surprise_m*")), "what surprises another M"
    vae = [hashes(Path("runs/tiny") / stage)["vae.safetensors"] for stage in ("train_vae", "evolve")]
    assert vae[0] == vae[1]


def test_controllers_of_a_dream_are_rescored_in_the_world_too_and_the_dream_may_choose_alone(copy, capsys):
    change(
        ("evolve: {", "evolve: {dream: true, select: dream, gauge_least: -1, "),
        ("final_episodes: 3", "final_episodes: 0"),
    )
    assert main(["evolve", "tiny"]) == 0
    lines = [each for each in read(copy / "runs/tiny/evolve/metrics.jsonl") if "kept" in each]
    best = max(each["rescored_dream"] for each in lines)
    about = files.read_json(copy / "runs/tiny/evolve/controller.json")
    assert about["selection_score"] == best and about["dream"] and about["tau"] == 1.0
    assert about["ends"] == "expected", "the default"
    mine, of_m = (files.read_record(copy / "runs/tiny" / stage / "mdnrnn.json") for stage in ("evolve", "train_mdn"))
    assert mine["end_shift"] == of_m["end_shift"], "what train_mdn measured goes with M"
    assert about["source"] == "mean", "a generation's best candidate is the best at its model's mistakes"
    assert all(each["dream_reality_gap"] == each["rescored_dream"] - each["rescored"] for each in lines)
    summary = files.read_json(copy / "runs/tiny/evolve/summary.json")
    assert np.isfinite(summary["virtual_score"]) and summary["virtual_std"] >= 0


DREAMING = (("evolve: {", "evolve: {dream: true, select: dream, "), ("final_episodes: 3", "final_episodes: 0"))


def test_under_the_gauge_a_dream_chooses_nothing_and_that_is_said(copy, capsys):
    change(*DREAMING, ("dream: true,", "dream: true, gauge_controllers: 5, gauge_least: 1,"))
    assert main(["evolve", "tiny"]) == 0
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and "the world chooses what is kept, instead of the dream" in said
    gauged = files.read_record(copy / "runs/tiny/evolve/gauge.json")
    assert len(gauged["dream"]) == len(gauged["world"]) == 5 and not gauged["trusted"]
    assert files.read_json(copy / "runs/tiny/evolve/summary.json")["gauge"] == gauged["correlation"]
    assert (copy / "runs/tiny/evolve/figures/gauge.png").exists()
    lines = [each for each in read(copy / "runs/tiny/evolve/metrics.jsonl") if "kept" in each]
    best = max(max(each["rescored"], each["rescored_best"]) for each in lines)
    assert files.read_json(copy / "runs/tiny/evolve/controller.json")["selection_score"] == best


def test_a_dreaming_search_that_was_killed_ends_with_the_gauge_that_an_undisturbed_one_has(copy, capsys):
    change(*DREAMING)
    assert main(["evolve", "tiny"]) == 0
    expected = hashes(copy / "runs/tiny/evolve")
    shutil.rmtree(copy / "runs/tiny/evolve")
    shutil.rmtree(copy / ".wm", ignore_errors=True)
    for sign in ("checkpoints/latest", "out/gauge.json"):
        process = start(copy, "evolve", "tiny")
        try:
            while not list((copy / ".wm/work").glob(f"evolve-tiny-*/{sign}")):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.002)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    capsys.readouterr()
    assert main(["evolve", "tiny"]) == 0
    assert "going on from generation" in capsys.readouterr().out
    assert hashes(copy / "runs/tiny/evolve") == expected


def test_references_of_surprise_are_of_whole_held_out_episodes_and_go_with_the_agent(line):
    runs = line / "runs/tiny"
    frames, latents = EpisodeSet(runs / "collect"), EpisodeSet(runs / "encode")
    v, m = (Reference.load(runs / "evolve", kind) for kind in weights.SURPRISE_KINDS)
    (index,) = frames.held_out
    length = frames.episodes[index]["length"]
    assert v.episode.tolist() == [index] * length and m.episode.tolist() == [index] * (length - 1)
    obs, episode = frames.read(index)["obs"], latents.read(index)
    assert np.array_equal(v.values, surprise.to_v(load_vae(runs / "train_vae"), obs, 16)[0])
    assert np.array_equal(m.values, surprise.to_m(load_mdnrnn(runs / "train_mdn"), episode["mu"], episode["act"]))


def test_scores_are_of_test_episodes_and_the_interval_holds_the_mean(line):
    scores = files.read_json(line / "runs/tiny/evaluate/scores.json")
    assert scores["seeds"] == seeds.episodes(999, seeds.Purpose.TEST, count=3), "they depend on the experiment's seed"
    assert scores["drawing"] == tiny_world.SPEC.drawings[-1]
    assert scores["mean"] == np.mean(scores["scores"]) and scores["std"] == np.std(scores["scores"])
    assert scores["min"] <= scores["ci95_low"] <= scores["mean"] <= scores["ci95_high"] <= scores["max"]
    metrics = files.read_json(line / "metrics/tiny.json")["score"]
    assert metrics["mean"] == round(scores["mean"], 4) and metrics["episodes"] == 3


def test_the_kept_controller_is_the_best_of_those_that_selection_episodes_saw_best(line):
    """The best few of all looks, and the average of the means, on episodes that no look was made on."""
    lines = [each for each in read(line / "runs/tiny/evolve/metrics.jsonl") if "kept" in each]
    assert [each["step"] for each in lines] == [2, 4, 5]
    seen = {("mean", each["step"]): each["rescored"] for each in lines}
    seen |= {("best", each["step"]): each["rescored_best"] for each in lines}
    assert lines[-1]["kept"] == max(seen.values())
    about = files.read_json(line / "runs/tiny/evolve/controller.json")
    won = (about["source"], about["generation"])
    few = sorted(seen, key=seen.__getitem__, reverse=True)[:3]
    assert won in [*few, ("average", 5)] or seen[won] == seen[few[-1]]
    assert about["selection_score"] not in seen.values(), "of the last look, on episodes of its own"


def test_without_a_last_look_the_best_look_is_kept(copy):
    change(("final_episodes: 3", "final_episodes: 0"))
    assert main(["evolve", "tiny"]) == 0
    lines = [each for each in read(copy / "runs/tiny/evolve/metrics.jsonl") if "kept" in each]
    best = max(max(each["rescored"], each["rescored_best"]) for each in lines)
    about = files.read_json(copy / "runs/tiny/evolve/controller.json")
    assert about["selection_score"] == best == lines[-1]["kept"]
    won = next(each for each in lines if best in (each["rescored"], each["rescored_best"]))
    assert about["generation"] == won["step"]


def test_an_episode_that_went_worst_is_played_again(copy, monkeypatch):
    generations: list[tuple[list[int], np.ndarray]] = []
    real = Scorer.fitness

    def fitness(self, params, numbers):
        scores, lengths = real(self, params, numbers)
        generations.append((numbers, scores))
        return scores, lengths

    monkeypatch.setattr(Scorer, "fitness", fitness)
    change(("generations: 5", "generations: 6"))
    assert main(["evolve", "tiny"]) == 0
    last: dict[int, float] = {}
    for numbers, scores in generations:
        assert numbers[0] == min(last, key=last.get) if last else len(set(numbers)) == 2
        assert numbers[1] not in last
        last |= dict(zip(numbers, scores.mean(0), strict=True))
    assert len(generations) == 6 and len(set(last.values())) > 3


def test_a_final_selection_in_which_nobody_has_a_score_publishes_nothing(copy, monkeypatch, capsys):
    real = Scorer.final
    monkeypatch.setattr(Scorer, "final", lambda *words: np.full_like(real(*words), np.nan))
    shutil.rmtree(copy / "runs/tiny/evolve")
    assert main(["evolve", "tiny"]) == 2
    assert "no controller has a finite score" in capsys.readouterr().err
    assert not (copy / "runs/tiny/evolve").exists()


@pytest.mark.parametrize("centre", ["true", "false"])
def test_candidates_scatter_about_the_start_where_c_reads_its_average_or_nothing(copy, monkeypatch, centre):
    change(("centre: true", f"centre: {centre}"))
    asked, played = [], []
    ask, fitness = CMAES.ask, Scorer.fitness
    monkeypatch.setattr(CMAES, "ask", lambda self: asked.append(ask(self)) or asked[-1])
    monkeypatch.setattr(Scorer, "fitness", lambda self, *words: played.append((self, *words)) or fitness(self, *words))
    shutil.rmtree(copy / ".wm", ignore_errors=True)
    assert main(["evolve", "tiny"]) == 0
    scorer, candidates, _ = played[0]
    offset = average(copy / "runs/tiny/encode", load_mdnrnn(copy / "runs/tiny/train_mdn"), ("z", "h"))
    assert np.abs(offset).max() > 0.05
    moved = scorer.world.spec.layout.shift(candidates, offset if centre == "true" else np.zeros_like(offset))
    assert np.allclose(moved, asked[0], atol=1e-5)


def test_a_dream_that_decides_alone_plays_the_final_selection_in_the_dream(copy, monkeypatch):
    change(("evolve: {", "evolve: {dream: true, select: dream, gauge_least: -1, "))
    found = []
    real = Scorer.final
    monkeypatch.setattr(Scorer, "final", lambda self, *words: found.append((self, words)) or real(self, *words))
    assert main(["evolve", "tiny"]) == 0
    scorer, (params, numbers, where) = found[0]
    assert where == "dream"
    best = float(scorer.dream.scores(params, numbers)[0].mean(1).max())
    assert files.read_json(copy / "runs/tiny/evolve/controller.json")["selection_score"] == best
    assert files.read_json(copy / "runs/tiny/evolve/summary.json")["final_episodes"] == 0, "of the world"


def test_a_centred_search_needs_a_bias(copy, monkeypatch, capsys):
    monkeypatch.setattr(tiny_world.Tiny, "spec", replace(tiny_world.SPEC, controller_bias=False))
    shutil.rmtree(copy / "runs/tiny/evolve")
    assert main(["evolve", "tiny"]) == 2
    assert "evolve.centre moves a bias, and the controller of tiny has none" in capsys.readouterr().err
    assert not (copy / "runs/tiny/evolve").exists()


def test_a_search_along_directions_moves_an_output_by_what_cma_es_asked(copy, monkeypatch):
    change(("centre: true", "directions: 3, diagonal: false"))
    asked, played = [], []
    ask, fitness = CMAES.ask, Scorer.fitness
    monkeypatch.setattr(CMAES, "ask", lambda self: asked.append(ask(self)) or asked[-1])
    monkeypatch.setattr(Scorer, "fitness", lambda self, *words: played.append(words[0]) or fitness(self, *words))
    shutil.rmtree(copy / ".wm", ignore_errors=True)
    assert main(["evolve", "tiny"]) == 0
    assert asked[0].shape == (4, 2 * (3 + 1))
    memory = load_mdnrnn(copy / "runs/tiny/train_mdn")
    seen = np.concatenate(list(newest(copy / "runs/tiny/encode", memory, ("z", "h"))))
    weights = played[0][:, :-2].reshape(4, 2, -1)  # from zeros, so all of it is the step
    spread = (weights @ (seen - seen.mean(0)).T).std(2)  # [P, A]
    assert np.allclose(spread, np.linalg.norm(asked[0].reshape(4, 2, 4)[:, :, :3], axis=2), rtol=1e-3)


def test_a_search_along_directions_that_was_stopped_goes_on_to_the_same_bits(copy, monkeypatch, capsys):
    """A full covariance is replayed from the fitness of the generations, as a diagonal one is."""
    change(("centre: true", "directions: 3, diagonal: false"))
    assert main(["evolve", "tiny"]) == 0
    expected = hashes(copy / "runs/tiny/evolve")
    shutil.rmtree(copy / "runs/tiny/evolve")
    shutil.rmtree(copy / ".wm", ignore_errors=True)
    monkeypatch.setenv("WM_DEADLINE", "0")
    assert main(["evolve", "tiny"]) == OutOfTime.code and not (copy / "runs/tiny/evolve").exists()
    monkeypatch.delenv("WM_DEADLINE")
    capsys.readouterr()
    assert main(["evolve", "tiny"]) == 0
    assert "going on from generation 2" in capsys.readouterr().out
    assert hashes(copy / "runs/tiny/evolve") == expected


def test_more_directions_than_the_controller_reads_numbers_publish_nothing(copy, capsys):
    change(("centre: true", "directions: 99"))
    shutil.rmtree(copy / "runs/tiny/evolve")
    assert main(["evolve", "tiny"]) == 2
    assert "but C reads 12 numbers" in capsys.readouterr().err
    assert not (copy / "runs/tiny/evolve").exists()


@pytest.mark.parametrize(
    "inputs, said, same",
    [
        ("[z, h, c]", "C reads c as well, which starts without weight", True),
        ("[z, c]", "the search starts from zeros", False),
    ],
)
def test_the_search_goes_on_where_c_reads_more_and_starts_anew_where_it_reads_something_else(
    copy, capsys, inputs, said, same
):
    before, _, about = load_controller(copy / "runs/tiny/evolve")
    assert about["inputs"] == ["z", "h"] and before.any()
    memory = load_mdnrnn(copy / "runs/tiny/evolve")
    wider = controller_spec(tiny_world.Tiny(), memory, inputs.strip("[]").split(", "))
    agent = copy / "runs/tiny/evolve"
    start = inherited(agent, agent, copy / "runs/tiny/encode", memory, wider)
    assert said in capsys.readouterr().out and start.round_index == about["round"] + 1
    assert start.params.size == wider.layout.size
    assert np.isclose(np.abs(start.params).sum(), np.abs(before).sum()) if same else not start.params.any()


def test_the_optimisers_linear_algebra_has_the_same_number_of_threads_anywhere(copy, monkeypatch):
    seen = []
    ask = CMAES.ask
    monkeypatch.setattr(CMAES, "ask", lambda self: seen.append(blas_threads()) or ask(self))
    shutil.rmtree(copy / ".wm", ignore_errors=True)
    with threadpool_limits(1, "blas"):
        assert blas_threads() == {1}
        assert main(["evolve", "tiny"]) == 0
    assert seen and all(threads == {BLAS_THREADS} for threads in seen)


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
