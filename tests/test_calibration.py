"""The random policy in the dream, beside what it did in the world; M's ends beside the true ones."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from tests import dream_model
from wm import worlds
from wm.cli import main
from wm.core import episodes
from wm.core.errors import UserError
from wm.models.controller import save_controller
from wm.models.mdnrnn import save_mdnrnn
from wm.play import agent as agents
from wm.views import calibration
from wm.worlds.take_cover.world import TakeCover

ROOT = Path(__file__).parent.parent
LENGTHS = [8, 21, 30] * 10


ENTRY = "experiment: take_cover_smoke, world: take_cover, code: wm/worlds/take_cover, after: zero, actor: zero, seed: 0"
DRIVEN = ENTRY.replace("after: zero, actor: zero", "after: take_cover-1, actor: take_cover-1")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """runs/walk: a model made by hand, and episodes that end where it says, but for those of 8 steps: these are too
    short for M to see the end coming."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("models:", f"models:\n  walk: {{{ENTRY}}}", 1))
    folder = dream_model.write_model(tmp_path / "runs" / "walk")
    columns = episodes.latent_columns(dream_model.Z, 1)
    shard = episodes.Shard(columns, level=0)
    for number, steps in enumerate(LENGTHS):
        mu = np.zeros((steps, dream_model.Z), np.float16)
        mu[-1, 0] = 0.0 if steps == 8 else 1.95  # the drift takes it over the edge, at 2
        if steps == 30:
            mu[4, 0] = 1.95  # an end that was none
        end = np.arange(steps) == steps - 1
        numbers = {"act": np.zeros((steps, 1), np.float32), "rew": np.ones(steps, np.float32), "end": end}
        episode = {"mu": mu, "logvar": np.full_like(mu, -20), "out": numbers["act"], **numbers}
        shard.add(episode, score=float(steps), **({"actor": "me"} if number % 10 == 0 else {}))
    for stage in ("collect", "encode"):
        (folder / stage).mkdir()
    entry = episodes.store_shard(folder / "encode", 0, *shard.finish())
    episodes.write_manifest(folder / "encode", "take_cover", columns, [entry])
    (folder / "collect" / "manifest.json").write_bytes((folder / "encode" / "manifest.json").read_bytes())
    return folder


def test_only_episodes_of_the_random_policy_count(model):
    lives = calibration.world(model / "collect")
    mine = [steps for number, steps in enumerate(LENGTHS) if number % 10]
    assert lives.lengths.tolist() == lives.scores.tolist() == mine


def test_a_cold_dream_ends_when_the_drift_says(model, monkeypatch):
    even_tempered = functools.partialmethod(TakeCover.explorer, hold=10, lean=0.0)  # others push against the drift
    monkeypatch.setattr(TakeCover, "explorer", even_tempered)
    memory = calibration.load_mdnrnn(model / "train_mdn")
    for weight in memory.done.parameters():
        weight.mul_(100.0)  # an end is sure where the mean goes beyond 2, and out of the question before
    save_mdnrnn(memory, "take_cover", model / "train_mdn")
    lives = calibration.dream(model, 1e-6, 400)
    assert (lives.scores == lives.lengths).all() and len(lives.lengths) == 400
    assert 22 < lives.lengths.mean() < 34  # 2 at a drift of 0.1 takes 20 steps; pushes are held, which takes longer


def test_ends_that_m_sees_and_ends_that_it_makes_up(model):
    held_out = [LENGTHS[number] for number in range(9, 30, 10)]
    assert held_out == [8, 21, 30]
    memory, data = calibration.load_mdnrnn(model / "train_mdn"), episodes.EpisodeSet(model / "encode")
    said = calibration.ends(memory, data, model / "ends.png")
    assert said.startswith("M sees 2 of 3 ends") and f"in {1000 / (sum(held_out) - 3):.2f} of 1,000 steps" in said
    assert (model / "ends.png").stat().st_size > 5000 and "ln done_weight = 2.303" in said


def test_a_dream_without_a_reward_is_cut_as_collect_cuts(model, monkeypatch):
    step = calibration.Dreams.step
    monkeypatch.setattr(calibration.Dreams, "step", lambda dreams, acts: (np.zeros(len(acts)), *step(dreams, acts)[1:]))
    assert calibration.dream(model, 1.0, 50, stall=7).lengths.max() == 7


def test_the_command_prints_a_line_a_temperature(model, capsys):
    assert main(["results", "calibration", "walk", "--tau", "0.5", "1.15", "--episodes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" in ")[0].strip() for line in lines[1:3]] == ["tau 0.5", "tau 1.15"]
    assert lines[0].startswith("walk: the random policy in the world: score 20 ±") and "of 3 ends" in lines[4]
    assert "is nearest: the random policy lives" in lines[3] and lines[5].endswith("diagram: walk_ends.png")
    assert Path("walk_ends.png").is_file()


def test_the_agent_that_collected_is_put_into_the_dream_as_well(model, capsys):
    """It looks at V's pictures of the dream, through its own V and M; this one does nothing, whatever it sees."""
    agent = Path("runs", "take_cover-1", "evolve")
    agent.mkdir(parents=True)
    agents.save(model / "train_vae", model / "train_mdn", agent)
    memory = calibration.load_mdnrnn(agent)
    spec = agents.controller_spec(worlds.get("take_cover"), memory, ["z", "h"])
    save_controller(np.zeros(spec.layout.size, np.float32), spec.layout, "take_cover", spec.inputs, agent, sampled=True)
    digest = agents.AgentFiles.read(agent).digest
    data = episodes.EpisodeSet(model / "collect")
    shards = [
        {**shard, "episodes": [e | ({"actor": digest} if "actor" in e else {}) for e in shard["episodes"]]}
        for shard in data.shards
    ]
    episodes.write_manifest(model / "collect", "take_cover", data.columns, shards)
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace(f"walk: {{{ENTRY}", f"walk: {{{DRIVEN}"))
    assert main(["results", "calibration", "walk", "--tau", "1.0", "--episodes", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    mine = [steps for number, steps in enumerate(LENGTHS) if number % 10 == 0]
    assert f"the agent that collected in the world: score {np.mean(mine):.0f} ±" in lines[1]
    assert lines[3].startswith("tau 1     in M's dream (the agent that collected): score")
    lived = float(re.search(r"score (\d+) ±", lines[3])[1])
    assert abs(lived - standing_still(model, 40)) < 12 and "tau 1 is nearest: the agent that collected" in lines[4]


def standing_still(model: Path, count: int) -> float:
    """Mean life of `count` dreams in which nothing is done."""
    dreams = calibration.Dreams(model, 1.0, count, "features", None, None, None)
    for slot in range(count):
        dreams.begin(slot, slot)
    lived, alive = np.zeros(count), np.ones(count, bool)
    while alive.any():
        lived += alive
        _, end, trunc = dreams.step(np.zeros((count, 1), np.float32))
        alive &= ~(end | trunc)
    return lived.mean()


def test_what_cannot_be_compared_is_said_in_a_sentence(model, capsys):
    for words, said in (
        (["nobody"], "'nobody' is not in `models`"),
        (["smoke"], "run `dvc repro train_mdn@smoke`"),
        (["walk", "--tau", "0"], "--tau is 0"),
        (["walk", "--episodes", "0"], "--episodes is 0"),
    ):
        assert main(["results", "calibration", *words]) == 2
        assert said in capsys.readouterr().err
    manifest = episodes.EpisodeSet(model / "collect")
    shards = [{**shard, "episodes": [{**e, "actor": "me"} for e in shard["episodes"]]} for shard in manifest.shards]
    episodes.write_manifest(model / "collect", "take_cover", manifest.columns, shards)
    with pytest.raises(UserError, match="driven by an agent"):
        calibration.world(model / "collect")
