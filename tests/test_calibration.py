"""The random policy in the dream, beside what it did in the world; M's ends beside the true ones."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from tests import dream_model
from wm.cli import main
from wm.core import episodes
from wm.core.errors import UserError
from wm.views import calibration
from wm.worlds.take_cover.world import TakeCover

ROOT = Path(__file__).parent.parent
LENGTHS = [8, 21, 30] * 10


ENTRY = "experiment: take_cover_smoke, world: take_cover, code: wm/worlds/take_cover, after: zero, actor: zero, seed: 0"


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
    assert main(["calibrate", "walk", "--tau", "0.5", "1.15", "--episodes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" in ")[0].strip() for line in lines[1:3]] == ["tau 0.5", "tau 1.15"]
    assert lines[0].startswith("walk: the random policy in the world: score 20 ±") and "of 3 ends" in lines[3]


def test_what_cannot_be_compared_is_said_in_a_sentence(model, capsys):
    for words, said in (
        (["nobody"], "'nobody' is not in `models`"),
        (["smoke"], "run `dvc repro train_mdn@smoke`"),
        (["walk", "--tau", "0"], "--tau is 0"),
        (["walk", "--episodes", "0"], "--episodes is 0"),
    ):
        assert main(["calibrate", *words]) == 2
        assert said in capsys.readouterr().err
    manifest = episodes.EpisodeSet(model / "collect")
    shards = [{**shard, "episodes": [{**e, "actor": "me"} for e in shard["episodes"]]} for shard in manifest.shards]
    episodes.write_manifest(model / "collect", "take_cover", manifest.columns, shards)
    with pytest.raises(UserError, match="driven by an agent"):
        calibration.world(model / "collect")
