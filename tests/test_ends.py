"""The calibration of M's ends: what is measured, and that M's record keeps it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests import dream_model
from wm.core import episodes, files
from wm.models import ends
from wm.models.mdnrnn import MDNRNN, MDNConfig, load_mdnrnn, save_mdnrnn


def logits(count: int = 200_000) -> np.ndarray:
    return np.random.default_rng(0).normal(-2.0, 2.0, count)


@pytest.mark.parametrize("true", [0.4, math.log(10.0), 4.5])
def test_a_known_shift_is_recovered(true):
    said = logits()
    ended = np.random.default_rng(1).random(len(said)) < ends.probabilities(said, true)
    found = ends.shift(said, ended, 10.0)
    assert found == pytest.approx(true, abs=0.05)
    assert ends.probabilities(said, found).sum() == pytest.approx(ended.sum(), rel=1e-4)
    wrong, right = (ends.Reliability.of(ends.probabilities(said, by), ended).error for by in (true + 1.0, found))
    assert right < 0.005 < wrong


@pytest.mark.parametrize("count", [0, ends.FEWEST - 1, 1000])
def test_too_few_ends_or_nothing_else_measure_nothing(count):
    assert ends.shift(logits(1000), np.arange(1000) < count, 10.0) == pytest.approx(math.log(10))


def test_probabilities_do_not_overflow():
    assert ends.probabilities(np.array([-1e6, 0.0, 1e6]), 0.0).tolist() == [0.0, 0.5, 1.0]


@pytest.fixture
def data(tmp_path):
    """Episodes of several lengths, V's posterior of no width."""
    rng, columns = np.random.default_rng(3), episodes.latent_columns(dream_model.Z, 1)
    shard = episodes.Shard(columns, level=0)
    for steps in (5, 1, 9, 3):
        numbers = {"act": rng.normal(0, 1, (steps, 1)).astype(np.float32), "rew": np.ones(steps, np.float32)}
        numbers |= {"end": np.arange(steps) == steps - 1, "out": numbers["act"]}
        mu = rng.normal(0, 1, (steps, dream_model.Z)).astype(np.float16)
        shard.add({"mu": mu, "logvar": np.full_like(mu, -60), **numbers}, score=0.0)
    entry = episodes.store_shard(tmp_path, 0, *shard.finish())
    episodes.write_manifest(tmp_path, "take_cover", columns, [entry])
    return episodes.EpisodeSet(tmp_path)


def test_side_by_side_m_says_what_it_says_step_by_step(data):
    torch.manual_seed(0)
    memory = MDNRNN(MDNConfig(hidden=7), dream_model.Z, 1, True).eval()
    order = [2, 0, 3, 1]
    said, ended = ends.foreseen(memory, data, order, 0)
    expected = []
    for index in order:
        episode, state = data.read(index), memory.initial_state(1)
        for step, act in enumerate(episode["act"]):
            z = torch.from_numpy(episode["mu"][step].astype(np.float32))[None]
            state = memory.step(z, torch.tensor(act)[None], state, torch.tensor([float(step == 0)]))
            expected.append(memory.heads(state[0])[2].item())
    np.testing.assert_allclose(said, expected, atol=1e-5)
    assert ended.sum() == 4 and np.flatnonzero(ended).tolist() == [8, 13, 16, 17]


def test_the_record_of_m_keeps_the_shift_and_earlier_ones_have_the_weights(tmp_path):
    memory = MDNRNN(MDNConfig(hidden=7, done_weight=4.0), 3, 1, False)
    memory.end_shift = 2.25
    save_mdnrnn(memory, "take_cover", tmp_path)
    assert load_mdnrnn(tmp_path).end_shift == 2.25
    about = files.read_record(tmp_path / "mdnrnn.json")
    del about["end_shift"]
    files.write_record(tmp_path / "mdnrnn.json", about)
    assert load_mdnrnn(tmp_path).end_shift == pytest.approx(math.log(4.0))
