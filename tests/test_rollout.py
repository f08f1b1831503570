"""Rollouts and where they run: a score depends on the job alone, and no worker outlives its stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny_world
import torch

from wm import worlds
from wm.core.errors import DamagedData, UserError
from wm.models.mdnrnn import MDNRNN, MDNConfig
from wm.models.vae import VAE, VAEConfig
from wm.play import agent as agents
from wm.play import cluster as clusters
from wm.play import rollout
from wm.play.cluster import Cluster

TINY, STILL = tiny_world.Tiny(), np.zeros(2, np.float32)


class Still:
    """Drives nothing anywhere."""

    def begin(self, slot, pair):
        pass

    def act(self, obs, slots):
        self.out = np.zeros((len(slots), 2), np.float32)
        return self.out


def test_a_world_with_other_options_is_not_played_in_the_environments_of_the_one_before():
    """As a worker does that outlives a stage: the next one may give the same name another limit or frame skip."""
    lengths = []
    for limit in (5, 7):
        worlds.register("pole again", worlds.BY_ID, {"name": "pole again", "gym": "CartPole-v1", "max_steps": limit})
        world = worlds.get("pole again")
        lengths.append(rollout.play(world, rollout.ExplorerDriver(world, 2), pairs(4), 2).lengths.tolist())
    assert lengths == [[5] * 4, [7] * 4]


def explorer(slots: int) -> rollout.ExplorerDriver:
    return rollout.ExplorerDriver(TINY, slots)


def driver(count: int = 3, slots: int = 4, world: str = "tiny", **more) -> rollout.AgentDriver:
    """An agent with `count` controllers; the same one on every call."""
    torch.manual_seed(0)
    world = worlds.get(world)
    vae = VAE(VAEConfig(z_size=4)).eval()
    memory = MDNRNN(MDNConfig(hidden=8, mixtures=2), 4, world.spec.action_size, False).eval()
    layout = agents.layout(world, memory, ("z", "h"))
    agent = agents.Agent(vae=vae, mdnrnn=memory, world=world, layout=layout, inputs=("z", "h"))
    params = 4 * np.random.default_rng(0).standard_normal((count, layout.size)).astype(np.float32)
    return rollout.AgentDriver(agent, params, slots, True, **more)


def pairs(count: int, controllers: int = 1) -> list[rollout.Pair]:
    return [(index % controllers, 100 + index) for index in range(count)]


def job(numbers: list[int], shared=None) -> tuple[bytes, list[dict]]:
    """Episodes of the tiny world under an agent and, where there are few, of the real CarRacing."""
    played = rollout.play(worlds.get("tiny"), driver(), [(n % 3, n) for n in numbers], 4, keep_acts=True)
    data, about = rollout.record(
        worlds.get("car_racing"),
        rollout.ExplorerDriver(worlds.get("car_racing"), 2),
        [(0, n) for n in numbers[:3]],
        2,
        stall=8,
    )
    return played.scores.tobytes() + b"".join(act.tobytes() for act in played.acts) + data, about


def deadly_job(work: tuple[Path | None, list[int]], shared=None):
    """`job`, whose worker is killed the first time, half-way, where there is a marker to leave."""
    marker, numbers = work
    if marker and not marker.exists():
        marker.touch()
        job(numbers[:2])
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), shared, job(numbers)


def fatal_job(work, shared=None):
    os.kill(os.getpid(), signal.SIGKILL)


def slow_start(work: int, shared=None) -> int:
    time.sleep(0.3 if work == 0 else 0.0)
    return work


def fail(work, shared=None):
    raise DamagedData("shard-3 is damaged")


@pytest.fixture(scope="module")
def cluster():
    with Cluster(2) as made:
        yield made


def test_scores_are_those_of_the_same_actions_in_a_fresh_environment():
    played = rollout.play(TINY, driver(), pairs(11, 3), 4, keep_acts=True)
    for index, (_, seed) in enumerate(pairs(11, 3)):
        env = TINY.make()
        env.reset(seed=seed)
        steps = [env.step(act) for act in played.acts[index]]
        assert sum(step[1] for step in steps) == played.scores[index] and len(steps) == played.lengths[index]
        assert [step[2] or step[3] for step in steps] == [False] * (len(steps) - 1) + [True]
    assert len(set(played.lengths)) > 2, "all episodes have one length: nothing was refilled at odd moments"


@pytest.mark.parametrize("slots", [1, 3, 20])
def test_explored_episodes_do_not_depend_on_the_slots_nor_on_the_order(slots):
    one = rollout.play(TINY, explorer(4), pairs(9), 4, keep_acts=True)
    other = rollout.play(TINY, explorer(slots), pairs(9)[::-1], slots, keep_acts=True)
    assert np.array_equal(one.scores, other.scores[::-1]) and np.array_equal(one.lengths, other.lengths[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(one.acts, other.acts[::-1], strict=True))


@pytest.mark.parametrize("slots", [1, 7])
def test_an_agent_remembers_nothing_of_the_slots_last_episode(slots):
    """As alone, but for the last bits: a product's may change with the number of rows."""
    together = rollout.play(TINY, driver(slots=slots, noise=0.2), pairs(8, 3), slots, keep_acts=True)
    for index, pair in enumerate(pairs(8, 3)):
        alone = rollout.play(TINY, driver(slots=1, noise=0.2), [pair], 1, keep_acts=True)
        assert np.allclose(alone.acts[0], together.acts[index], atol=1e-4)


def test_the_batch_stays_full_to_the_end():
    played = rollout.play(TINY, explorer(5), pairs(60), 5)
    assert played.slots == 5 and played.lengths.sum() / (played.slots * played.batch_steps) > 0.9
    few = rollout.play(TINY, explorer(9), pairs(3), 9)
    assert few.slots == 3, "more environments than episodes"


def test_a_controller_that_is_not_a_number_scores_nan_and_spoils_no_other():
    broken, whole = driver(), driver()
    broken.params[1] = np.nan
    one, other = (rollout.play(TINY, each, pairs(9, 3), 4, keep_acts=True) for each in (broken, whole))
    assert np.isnan(one.scores).tolist() == [False, True, False] * 3
    assert one.lengths[1::3].tolist() == [0, 0, 0]
    for index in (0, 2, 3, 5, 6, 8):
        assert np.allclose(one.acts[index], other.acts[index], atol=1e-4)


def idle(rews: list[float]) -> int:
    """Steps without a positive reward at the end."""
    return next((count for count, rew in enumerate(reversed(rews)) if rew > 0), len(rews))


@pytest.mark.parametrize("stall, limit", [(5, 0), (0, 7), (6, 9)])
def test_stalled_and_long_episodes_end_early_and_no_others_do(stall, limit):
    full = rollout.play(TINY, Still(), pairs(20), 4)
    cut = rollout.play(TINY, Still(), pairs(20), 4, stall=stall, limit=limit)
    for index, (_, seed) in enumerate(pairs(20)):
        env, rews = TINY.make(), []
        env.reset(seed=seed)
        while (
            len(rews) < full.lengths[index]
            and not (stall and idle(rews) >= stall)
            and not (limit and len(rews) >= limit)
        ):
            rews.append(env.step(STILL)[1])
        assert (cut.lengths[index], cut.scores[index]) == (len(rews), sum(rews))
    assert (cut.lengths < full.lengths).any()


def test_what_is_recorded_is_what_was_seen_and_done(tmp_path):
    from wm.core import episodes

    data, about = rollout.record(TINY, explorer(3), pairs(5), 3)
    episodes.write_manifest(
        tmp_path, "tiny", episodes.frame_columns(2), [episodes.store_shard(tmp_path, 0, data, about)]
    )
    assert sorted(line["seed"] for line in about) == [seed for _, seed in pairs(5)]
    for index, line in enumerate(about):
        found, env = episodes.EpisodeSet(tmp_path).read(index), TINY.make()
        obs, ends = env.reset(seed=line["seed"])[0], []
        for step in range(line["length"]):
            assert np.array_equal(found["obs"][step], obs), "the frame is the one before the action"
            obs, rew, end, _, _ = env.step(found["act"][step])
            ends.append(end)
            assert found["rew"][step] == np.float32(rew)
        assert found["end"].tolist() == ends and line["score"] == pytest.approx(found["rew"].sum(), abs=1e-4)


def test_noise_moves_actions_within_their_bounds_and_repeats_itself():
    calm, wild, again = (
        rollout.play(TINY, driver(noise=noise), pairs(4), 4, keep_acts=True) for noise in (0.0, 0.5, 0.5)
    )
    assert all(np.array_equal(a, b) for a, b in zip(wild.acts, again.acts, strict=True))
    assert not np.array_equal(calm.acts[0][:1], wild.acts[0][:1])
    assert max(np.abs(act).max() for act in wild.acts) <= 1.0


def test_environments_that_have_been_used_give_the_same_episodes():
    world = worlds.get("car_racing")

    def play(numbers):
        return rollout.play(
            world, rollout.ExplorerDriver(world, 2), [(0, n) for n in numbers], 2, stall=8, keep_acts=True
        )

    before = play([1, 2])
    play([3, 4])
    after = play([1, 2])
    assert before.scores.tolist() == after.scores.tolist() and before.lengths.tolist() == after.lengths.tolist()
    rollout.close_environments()


def test_results_come_in_order(cluster):
    assert list(cluster.map(slow_start, range(6))) == list(range(6))


JOBS = [list(range(1, 8)), [8, 9], [10], [11, 12, 13, 14, 15]]


def test_workers_give_the_bits_of_this_process_though_they_are_killed(cluster, tmp_path):
    """Both workers die once, each in the middle of a job; what all jobs share outlives them."""
    with Cluster(1) as here:
        expected = list(here.map(job, JOBS))
    assert list(cluster.map(job, JOBS)) == expected
    works = [(tmp_path / f"killed-{index}" if index < 2 else None, numbers) for index, numbers in enumerate(JOBS)]
    done = list(cluster.map(deadly_job, works, "shared"))
    assert [result for _, _, result in done] == expected
    assert {shared for _, shared, _ in done} == {"shared"} and os.getpid() not in {pid for pid, _, _ in done}
    assert len(list(tmp_path.glob("killed-*"))) == 2


def test_an_error_in_a_job_arrives_as_it_is(cluster):
    with pytest.raises(DamagedData, match="shard-3 is damaged"):
        list(cluster.map(fail, [1]))


@pytest.mark.filterwarnings("error")
def test_a_job_that_kills_every_worker_is_a_sentence(cluster, monkeypatch):
    """Nor is anything said of ports that another cluster on this machine uses."""
    assert list(cluster.map(slow_start, [1])) == [1]
    monkeypatch.setattr(clusters, "MOST_FAILURES", 1)
    with Cluster(2) as made, pytest.raises(UserError, match="workers in a row died on one job"):
        list(made.map(fatal_job, [1]))


def test_a_scheduler_that_does_not_answer_is_a_sentence(monkeypatch):
    monkeypatch.setattr(clusters, "PATIENCE", "0.5s")
    with (
        Cluster(2, "tcp://127.0.0.1:9") as made,
        pytest.raises(UserError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"),
    ):
        list(made.map(slow_start, [1]))


PARENT = """\
import os, sys, time
from wm.play.cluster import Cluster
def pid(work, shared):
    time.sleep(0.5)
    return os.getpid()
if __name__ == "__main__":
    with Cluster(2) as cluster:
        print(*set(cluster.map(pid, range(8))), flush=True)
        if "close" not in sys.argv:
            list(cluster.map(pid, range(10_000)))
    print("closed", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["close", "kill"])
def test_no_worker_is_left(tmp_path, how):
    """Neither after `close`, nor ten seconds after the stage was killed in the middle of its jobs."""
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), how],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert workers
        family = psutil.Process(parent.pid).children(recursive=True)
        if how == "kill":
            assert {process.pid for process in family} >= set(workers)
            parent.kill()
        else:
            assert parent.stdout.readline() == "closed\n"
            family = [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)]
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
