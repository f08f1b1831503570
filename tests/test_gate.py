"""Who is champion: the gate, and promotions and rollbacks by hand. A real MLflow on sqlite, agents made by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_agent
import tiny_world
from conftest import make_project

from wm import worlds
from wm.cli import main
from wm.core import seeds
from wm.models.controller import save_controller
from wm.models.mdnrnn import MDNRNN, MDNConfig, save_mdnrnn
from wm.models.vae import VAE, VAEConfig, save_vae
from wm.play import agent
from wm.records import provenance, tracking
from wm.release import onnx_models, page, registry
from wm.release.registry import before

MODEL = "tiny-agent"
PUSHES, STILL, NUDGES, STILL_TOO = "1", "2", "3", "4"
"""Versions: it falls off; it waits; it waits, a little better by luck; it waits, and has other weights."""
PUSH = {PUSHES: 20.0, STILL: 0.0, NUDGES: 0.1, STILL_TOO: 0.0}


def make_agent(push: float, folder: Path) -> None:
    """An agent that pushes the square with tanh(push), whatever it sees."""
    memory = MDNRNN(MDNConfig(hidden=4, mixtures=2), 4, 2, reads_restart=False)
    layout = agent.layout(worlds.get("tiny"), memory, ("z",))
    save_vae(VAE(VAEConfig(z_size=4)), "tiny", folder)
    save_mdnrnn(memory, "tiny", folder)
    params = np.zeros(layout.size)
    params[-2] = push
    save_controller(params, layout, "tiny", ("z",), folder, sampled=False)


def use(version: str) -> None:
    """The agent of that version is the one that has just been evaluated."""
    shutil.rmtree("runs/tiny/evolve", ignore_errors=True)
    shutil.copytree(Path("agents", version), "runs/tiny/evolve")


def evaluated(root: Path) -> None:
    """What MLflow hears of an evaluation of runs/tiny/evolve."""
    (root / "runs/tiny/evaluate").mkdir(parents=True, exist_ok=True)
    with tracking.stage_run(
        stage="evaluate",
        name="tiny",
        world="tiny",
        experiment="tiny",
        config={},
        inputs=[Path("runs/tiny/evolve")],
        output=Path("runs/tiny/evaluate"),
        root=root,
    ):
        pass


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A project whose registry has the four versions."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "WM_TRACKING", tracking.PARENT):
            patch.delenv(name, raising=False)
        patch.setattr(tracking, "PATIENCE", 60.0)  # a busy machine is no reason to fail
        patch.chdir(root)
        make_project(root)
        for version, push in PUSH.items():
            make_agent(push, root / "agents" / version)
            use(version)
            evaluated(root)
    return root


@pytest.fixture
def root(registered, monkeypatch):
    """The same without a champion and without a history."""
    for name in ("MLFLOW_TRACKING_URI", "WM_TRACKING", tracking.PARENT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(registered)
    client = tracking.connect(registered)
    assert {version.version for version in client.search_model_versions(f"name = '{MODEL}'")} >= {1, 2, 3, 4}
    client.set_registered_model_tag(MODEL, registry.HISTORY, "[]")
    client.delete_registered_model_alias(MODEL, registry.CHAMPION)
    return registered


def champion(root: Path) -> str | None:
    with registry.connected(root, MODEL) as versions:
        return versions.champion()


def version_tags(root: Path, version: str) -> dict[str, str]:
    return tracking.connect(root).get_model_version(MODEL, version).tags


def promote(version: str) -> int:
    return main(["agent", "promote", "tiny", "--version", version, "--reason", f"because of {version}"])


def gate(version: str) -> dict:
    use(version)
    assert main(["agent", "gate", "tiny"]) == 0
    return json.loads(Path(".wm/gate/tiny/decision.json").read_text())


def scores(push: float) -> np.ndarray:
    """What an agent gets on the gate's episodes, played by a plain loop."""
    env, found = worlds.get("tiny").make(), []
    for seed in seeds.episodes(0, seeds.Purpose.GATE, count=24):
        env.reset(seed=seed)
        found.append(0.0)
        over = False
        while not over:
            _, rew, end, trunc, _ = env.step(np.array([np.tanh(push), 0], np.float32))
            found[-1] += rew
            over = end or trunc
    return np.array(found)


def test_the_first_agent_is_champion_and_stays_it(root, capsys):
    assert gate(PUSHES)["decision"] == "promoted" and champion(root) == PUSHES
    assert capsys.readouterr().out == "gate tiny: promoted: version 1 is the first champion\n"
    again = gate(PUSHES)
    assert (again["decision"], again["why"]) == ("kept", "version 1 is the champion already")
    assert champion(root) == PUSHES and version_tags(root, PUSHES)["wm.gate.decision"] == "promoted"


def test_a_better_challenger_becomes_champion(root):
    promote(PUSHES)
    decision = gate(STILL)
    assert decision["decision"] == "promoted" and champion(root) == STILL
    ours, theirs = scores(PUSH[STILL]), scores(PUSH[PUSHES])
    assert decision["challenger_mean"] == pytest.approx(ours.mean())
    assert decision["champion_mean"] == pytest.approx(theirs.mean())
    assert decision["difference"] == pytest.approx((ours - theirs).mean())
    assert 0 < decision["ci95_low"] < decision["difference"] < decision["ci95_high"]

    client, tags = tracking.connect(root), version_tags(root, STILL)
    assert tags["wm.gate.decision"] == "promoted" and float(tags["wm.gate.difference"]) == decision["difference"]
    assert (tags["wm.gate.champion"], tags["wm.gate.episodes"]) == (PUSHES, "24")
    assert (tags["wm.champion.how"], tags["wm.champion.reason"]) == ("gate", decision["why"])
    version = client.get_model_version(MODEL, STILL)
    files = {file.path for file in client.list_artifacts(version.run_id, "gate")}
    assert files == {"gate/decision.json", "gate/differences.png"}
    assert version.description.count("**Gate** promoted: ") == 1 and "dvc repro evaluate@tiny" in version.description


@pytest.mark.skipif(not page.BUILT.is_file(), reason="the page is not built here: `wm agent demo` builds it")
def test_a_champions_run_has_the_page_of_its_dream(root, capsys):
    for package in onnx_models.PACKAGES:
        pytest.importorskip(package, reason="the page needs what exports need: pip install -e '.[export]'")
    tiny_agent.write_starts("tiny", 4, Path("runs/tiny/train_mdn"))
    try:
        assert gate(PUSHES)["decision"] == "promoted"
        assert "dream.html is on the run of version 1 of tiny-agent in MLflow" in capsys.readouterr().out
        client = tracking.connect(root)
        version = client.get_model_version(MODEL, PUSHES)
        assert [file.path for file in client.list_artifacts(version.run_id, "dream")] == ["dream/dream.html"]
        assert f"[dream.html](get-artifact?run_uuid={version.run_id}&path=dream/dream.html)" in version.description
        assert "**Gate** promoted" in version.description
        use(STILL)
        assert main(["agent", "demo", "tiny", "--mlflow", "--out", "still.html"]) == 0  # on request
        version = client.get_model_version(MODEL, STILL)
        assert [file.path for file in client.list_artifacts(version.run_id, "dream")] == ["dream/still.html"]
    finally:
        shutil.rmtree("runs/tiny/train_mdn")


@pytest.mark.parametrize("challenger", [PUSHES, STILL_TOO, NUDGES])
def test_a_worse_one_a_tie_and_luck_do_not(root, challenger):
    """NUDGES is better on average, by what may be chance."""
    promote(STILL)
    decision = gate(challenger)
    assert decision["decision"] == "kept" and champion(root) == STILL
    expected = (scores(PUSH[challenger]) - scores(PUSH[STILL])).mean()
    assert decision["difference"] == pytest.approx(expected) and decision["ci95_low"] <= 0
    assert {PUSHES: expected < 0, STILL_TOO: expected == 0, NUDGES: expected > 0}[challenger]
    assert version_tags(root, challenger)["wm.gate.decision"] == "kept"


def test_a_rollback_restores_and_the_gate_does_not_undo_it(root, capsys):
    promote(PUSHES)
    assert gate(STILL)["decision"] == "promoted"
    capsys.readouterr()
    assert main(["agent", "rollback", "tiny", "--reason", "it brakes in curves"]) == 0
    assert capsys.readouterr().out == "tiny-agent: version 1 is champion, before it was version 2\n"
    assert champion(root) == PUSHES
    tags = version_tags(root, PUSHES)
    assert (tags["wm.champion.how"], tags["wm.champion.reason"]) == ("rollback", "it brakes in curves")
    assert tags["wm.champion.by"] == provenance.user() and tags["wm.champion.date"].startswith("20")

    decision = gate(STILL)  # which is better, but a person has said no
    assert decision["decision"] == "kept" and "it brakes in curves" in decision["why"]
    assert champion(root) == PUSHES and "difference" not in decision
    assert promote(STILL) == 0 and champion(root) == STILL


def test_several_rollbacks_go_back_step_by_step(root, capsys):
    for version in (PUSHES, STILL, NUDGES, PUSHES):
        assert promote(version) == 0
    for version in (NUDGES, STILL, PUSHES):
        assert main(["agent", "rollback", "tiny", "--reason", "x"]) == 0 and champion(root) == version
    capsys.readouterr()
    assert main(["agent", "rollback", "tiny", "--reason", "x"]) == 2 and champion(root) == PUSHES
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "tiny-agent had no champion before version 1" in said
    with registry.connected(root, MODEL) as versions:
        moves = versions.history()
    assert [move["version"] for move in moves] == [PUSHES, STILL, NUDGES, PUSHES, NUDGES, STILL, PUSHES]
    assert [move["reason"] for move in moves[:2]] == ["because of 1", "because of 2"]


@pytest.mark.parametrize(
    "moves, present, expected",
    [
        ([], "1", None),
        ([("1", None), ("2", "1")], "2", "1"),
        ([("1", None), ("2", "1"), ("3", "2")], "3", "1"),  # version 2 was deleted
        ([("1", None), ("3", "1"), ("4", "3")], "3", "1"),  # MLflow went away before the alias moved
        ([("1", None), ("3", "1"), ("1", "3", "rollback")], "1", None),
        ([("1", "3", "rollback")], "1", None),  # the history's beginning was cut off
    ],
)
def test_what_was_champion_before(moves, present, expected):
    history = [{"version": to, "before": of, "how": how[0] if how else "gate"} for to, of, *how in moves]
    assert before(history, present, dict.fromkeys("134")) == expected


def test_mistakes_are_one_sentence(root, capsys):
    promote(STILL)
    shutil.rmtree("runs/tiny-2", ignore_errors=True)
    for words, sentence in (
        (["agent", "promote", "tiny", "--version", "9"], "tiny-agent has no version 9: expected one of "),
        (["agent", "promote", "tiny", "--version", "2"], "version 2 of tiny-agent is the champion already"),
        (
            ["agent", "promote", "tiny-2"],
            "tiny-agent has no version of tiny-2: `python -m wm evaluate tiny-2` registers one",
        ),
        (["agent", "promote", "nobody"], "'nobody' is not in `agents` of params.yaml"),
    ):
        capsys.readouterr()
        assert main([*words, "--reason", "x"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {sentence}") and said.count("\n") == 1
    assert main(["agent", "gate", "tiny-2"]) == 2
    assert "runs/tiny-2/evolve holds no agent: run `dvc repro evaluate@tiny-2`" in capsys.readouterr().err
    make_agent(1.0, Path("runs/tiny-2/evolve"))
    assert main(["agent", "gate", "tiny-2"]) == 2
    assert "no version of tiny-agent has the weights in runs/tiny-2/evolve" in capsys.readouterr().err
    assert champion(root) == STILL


def test_without_mlflow_nothing_is_decided_and_one_sentence_says_so(root, monkeypatch, capsys):
    use(STILL)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for words in (
        ["agent", "gate", "tiny"],
        ["agent", "promote", "tiny", "--reason", "x"],
        ["agent", "rollback", "tiny", "--reason", "x"],
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: MLflow at http://127.0.0.1:9 could not be asked (") and said.count("\n") == 1
    monkeypatch.setenv("WM_TRACKING", "off")
    assert main(["agent", "gate", "tiny"]) == 2 and "WM_TRACKING is off" in capsys.readouterr().err
    monkeypatch.undo()
    assert champion(root) is None


def test_an_evaluation_that_mlflow_missed_is_sent_before_the_gate_decides(root, monkeypatch):
    promote(PUSHES)
    shutil.rmtree("runs/tiny/evolve")
    make_agent(0.05, Path("runs/tiny/evolve"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    evaluated(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert list(Path(".wm/spool").glob("*/run.json"))
    assert main(["agent", "gate", "tiny"]) == 0
    assert not list(Path(".wm/spool").glob("*/run.json"))
    assert champion(root) == json.loads(Path(".wm/gate/tiny/decision.json").read_text())["challenger"] == "5"


def test_two_take_turns(root, monkeypatch):
    words = ["agent", "promote", "tiny", "--version", STILL, "--reason", "x"]
    program = [sys.executable, Path(tiny_world.__file__), *words]
    with registry.alone(root):
        other = subprocess.Popen(program, cwd=root, stdout=subprocess.PIPE, text=True, env=_path())
        assert other.stdout.readline() == "Waiting for another gate, promotion or rollback in this folder.\n"
        time.sleep(1)
        assert champion(root) is None and other.poll() is None
    assert other.communicate(timeout=120)[0].startswith("tiny-agent: version 2 is champion")
    assert champion(root) == STILL


def _path() -> dict[str, str]:
    tests = Path(tiny_world.__file__).parent
    return {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
