"""The gauge of a dream: rank correlation, who is disturbed and by how much, on which episodes."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_world
import torch
from scipy.stats import spearmanr

from tests.dream_model import write_model
from wm.core import files, seeds
from wm.dream.engine import Dream, DreamRules, load_starts
from wm.models.controller import Layout
from wm.models.mdnrnn import load_mdnrnn
from wm.play import agent as agents
from wm.play.cluster import Cluster
from wm.search import gauge
from wm.search.config import EvolveConfig
from wm.search.fitness import WorldPlayer
from wm.search.gauge import Gauge
from wm.search.space import Space

TINY = tiny_world.Tiny()


@pytest.mark.parametrize("values", [50, 5, 2])
def test_the_correlation_is_scipys_ties_too(values):
    rng = np.random.default_rng(values)
    dream, noise = rng.integers(0, values, 16).astype(float), rng.integers(0, values, 16)
    found = Gauge(dream, dream + noise, 0.4)
    assert found.correlation == pytest.approx(spearmanr(dream, dream + noise).statistic, abs=1e-6)
    assert found.trusted == (found.correlation >= 0.4)


def test_scores_that_tell_nothing_apart_are_no_reason_for_trust_and_what_is_not_finite_comes_last():
    assert Gauge(np.ones(4), np.arange(4.0), 0.1).correlation == 0.0
    assert Gauge(np.full(4, np.nan), np.arange(4.0), 0.1).correlation == 0.0
    failed = Gauge(np.array([np.nan, 1.0, 2.0, 3.0]), np.array([0.0, 5.0, 6.0, 7.0]), 0.1)
    assert failed.correlation == 1.0 and failed.record()["dream"] == [None, 1.0, 2.0, 3.0]


def test_what_is_written_is_whole(tmp_path):
    found = Gauge(np.array([np.nan, 1.0, 3.0, 2.0]), np.array([0.0, 7.0, 6.0, 7.0]), 0.5)
    (tmp_path / "figures").mkdir()
    found.write(tmp_path)
    assert files.read_record(tmp_path / gauge.FILE) == found.record()
    assert found.record()["dream"] == [None, 1.0, 3.0, 2.0]
    assert (tmp_path / "figures/gauge.png").stat().st_size > 1000


def test_disturbances_are_spread_about_the_start_less_and_more_than_the_searchs_own():
    layout = Layout(inputs=400, actions=2)
    start = np.random.default_rng(0).normal(0, 1, layout.size).astype(np.float32)
    space = Space.of_weights(start, layout, np.zeros(layout.inputs))
    found = gauge.disturbed(space, space.start, 0.1, 8, np.random.default_rng(1)) - start
    assert found.shape == (8, layout.size) and len({row.tobytes() for row in found}) == 8
    np.testing.assert_allclose(found.std(1), 0.1 * np.array([0.25, 0.5, 1, 2] * 2), rtol=0.1)


def test_its_episodes_are_no_others():
    purpose, count = seeds.Purpose.SELECTION, 200
    mine = set(gauge.episodes(3, 1, count))
    for other in ((purpose, 1), (purpose, 1, 1), (purpose, 0, 2), (seeds.Purpose.TRAINING, 1, 2)):
        assert not mine & set(seeds.episodes(3, *other, count=count))
    assert len(mine) == count and mine == set(gauge.episodes(3, 1, count))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_dream_with_the_worlds_order_is_told_from_one_that_is_upside_down(tmp_path, sign):
    """What pushes harder to the right is sooner past the mark in the world; in the dream it pays less, or more."""
    model = write_model(tmp_path, "tiny")
    memory = load_mdnrnn(model / "train_mdn")
    with torch.no_grad():
        memory.reward.weight.mul_(-float(sign))
        memory.done.bias.fill_(-1e3)  # it never ends
    agents.save(model / "train_vae", model / "train_mdn", model)
    spec = agents.controller_spec(TINY, memory, ["z"])
    params = np.zeros((8, spec.layout.size), np.float32)
    params[:, -2] = np.linspace(0.05, 0.4, 8)
    config = EvolveConfig(generations=1, episodes_per_job=8, slots=4)
    with Cluster(1) as cluster:
        player = WorldPlayer(config, "tiny", spec, True, cluster, agents.AgentFiles.read(model))
        dream = Dream(memory, load_starts(model / "train_mdn"), TINY, spec, DreamRules(1.0, 20))
        found = gauge.measure(player, dream, params, [5, 6, 7, 8], 0.43)
    assert found.correlation * sign > 0.8 and found.trusted == (sign > 0)
