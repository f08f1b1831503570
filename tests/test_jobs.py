"""Jobs: who drives is the job's to say, and a worker unpacks the agent that it needs."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_world
import torch

from wm.models.controller import save_controller
from wm.models.mdnrnn import MDNRNN, MDNConfig, save_mdnrnn
from wm.models.vae import VAE, VAEConfig, save_vae
from wm.play import agent as agents
from wm.play import jobs
from wm.play.agent import AgentFiles, controller_spec
from wm.play.cluster import Cluster, ClusterConfig
from wm.search.fitness import WorldPlayer

PAIRS = [(0, 100 + number) for number in range(5)]
ASKED = {"world": "tiny", "slots": 3, "keep_acts": True}


@pytest.fixture
def folder(tmp_path):
    """A whole agent."""
    torch.manual_seed(0)
    memory = MDNRNN(MDNConfig(hidden=8, mixtures=2), 4, 2, False).eval()
    save_vae(VAE(VAEConfig(z_size=4)).eval(), "tiny", tmp_path)
    save_mdnrnn(memory, "tiny", tmp_path)
    spec = controller_spec(tiny_world.Tiny(), memory, None)
    params = np.random.default_rng(1).standard_normal(spec.layout.size).astype(np.float32)
    save_controller(params, spec.layout, "tiny", spec.inputs, tmp_path, sampled=True)
    return tmp_path


def controllers(folder) -> jobs.Controllers:
    agent, params, about = agents.load(folder)
    spec = controller_spec(agent.world, agent.mdnrnn, about["inputs"])
    return jobs.Controllers(np.stack([np.zeros_like(params), params]), spec, about["sampled"])


def test_an_agents_own_controller_and_the_same_one_in_a_job_drive_alike(folder):
    """Also one after the other in one process, which keeps what it unpacked last."""
    files = AgentFiles.read(folder)
    own = jobs.play(jobs.Job(pairs=PAIRS, **ASKED), files)
    given = jobs.Job(pairs=[(1, seed) for _, seed in PAIRS], controllers=controllers(folder), **ASKED)
    brought = jobs.play(given, files)
    assert own.scores.tolist() == brought.scores.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(own.acts, brought.acts, strict=True))
    still = jobs.play(jobs.Job(pairs=PAIRS, controllers=controllers(folder), **ASKED), files)
    assert not any(np.any(act) for act in still.acts) and own.acts[0].any()


def test_what_is_recorded_names_the_agent_that_drove_and_a_random_policy_has_no_name(folder):
    files = AgentFiles.read(folder)
    _, driven = jobs.record(jobs.Job(world="tiny", pairs=PAIRS, slots=2), files)
    assert [line["actor"] for line in driven] == [files.digest] * 5
    _, explored = jobs.record(jobs.Job(world="tiny", pairs=PAIRS, slots=2, random=True), None)
    assert len(explored) == 5 and not any("actor" in line for line in explored)
    assert {line["seed"] for line in explored} == {line["seed"] for line in driven}


def test_parts_are_in_order_and_whole():
    parts = list(jobs.parts(PAIRS, 2))
    assert [len(part) for part in parts] == [2, 2, 1] and [pair for part in parts for pair in part] == PAIRS


@pytest.mark.parametrize("episodes_per_job", [1, 4, 100])
def test_the_scores_of_a_player_are_those_of_each_controller_on_each_episode(folder, episodes_per_job):
    """However the jobs are cut; but for last bits, which may depend on the rows of a batch."""
    given, files, numbers = controllers(folder), AgentFiles.read(folder), [7, 8, 9]
    with Cluster(1) as cluster:
        config = ClusterConfig(episodes_per_job=episodes_per_job, slots=3)
        player = WorldPlayer(config, "tiny", given.spec, given.sampled, cluster, files)
        scores, lengths = player.scores(given.params, numbers)
        early = player.scores(given.params, numbers, stall=2)[1]
    for p, e in np.ndindex(2, 3):
        alone = jobs.play(jobs.Job(pairs=[(p, numbers[e])], controllers=given, **ASKED), files)
        assert scores[p, e] == pytest.approx(alone.scores[0], abs=1e-3) and lengths[p, e] == alone.lengths[0]
    assert (early <= lengths).all() and (early < lengths).any()
