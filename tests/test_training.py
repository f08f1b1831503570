"""The training loop, on the real tasks of V and M: resumed or not, the same bits; bad losses change nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from wm.core import episodes, verdicts
from wm.core.checkpoints import Checkpoints
from wm.core.episodes import EpisodeSet, Shard, frame_columns, latent_columns
from wm.core.errors import UserError
from wm.core.journal import Journal, read
from wm.core.seeds import Purpose, generator
from wm.core.workspace import Workspace
from wm.models.mdnrnn import MDNRNN, MDNConfig
from wm.models.vae import VAE, VAEConfig, save_vae
from wm.stages import training
from wm.stages.train_mdn import MDNTask, Streams, TrainMDNConfig
from wm.stages.train_vae import TrainVAEConfig, VAETask, train_vae
from wm.stages.training import TrainConfig, fit, learning_rate

LENGTHS = [9, 4, 12, 7, 3, 10, 8, 5, 11, 6, 9, 4]
EVERY = dict(report_every=3, held_out_every=4, threads=1)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> EpisodeSet:
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    shard = Shard(frame_columns(2))
    for length in LENGTHS:
        obs = np.repeat(rng.integers(0, 256, (length, 4, 4, 3), np.uint8), 16, 1).repeat(16, 2)
        act = np.zeros((length, 2))
        shard.add({"obs": obs, "act": act, "out": act, "rew": np.zeros(length), "end": np.zeros(length)})
    episodes.write_manifest(folder, "tiny", shard.columns, [episodes.store_shard(folder, 0, *shard.finish())])
    verdicts.write([], folder)
    return EpisodeSet(folder)


def write_latents(folder, bad: int = -1) -> EpisodeSet:
    """Latents that count: the episode's number, the step; the reward of `bad` is not a number."""
    shard = Shard(latent_columns(2, 1))
    for number, length in enumerate(LENGTHS):
        mu = np.stack([np.full(length, number), np.arange(length)], 1)
        shard.add(
            {
                "mu": mu,
                "logvar": np.full((length, 2), -9.0),
                "act": np.ones((length, 1)) * number,
                "out": np.full((length, 1), np.nan),
                "rew": np.full(length, np.nan if number == bad else 1.0),
                "end": np.arange(length) == length - 1,
            }
        )
    episodes.write_manifest(folder, "tiny", shard.columns, [episodes.store_shard(folder, 0, *shard.finish())])
    return EpisodeSet(folder)


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> EpisodeSet:
    return write_latents(tmp_path_factory.mktemp("latents"))


def vae_task(data: EpisodeSet, steps: int = 9, **more) -> VAETask:
    config = TrainVAEConfig(steps=steps, batch=5, pool_episodes=2, model=VAEConfig(z_size=2), **{**EVERY, **more})
    torch.manual_seed(0)
    return VAETask(VAE(config.model).train(), data, config, seed=1)


def mdn_task(data: EpisodeSet, steps: int = 9, **more) -> MDNTask:
    config = TrainMDNConfig(steps=steps, batch=3, length=7, model=MDNConfig(hidden=6, mixtures=2), **{**EVERY, **more})
    torch.manual_seed(0)
    return MDNTask(MDNRNN(config.model, 2, 1, False).train(), data, config, seed=1)


def run(task, folder) -> tuple[dict[str, bytes], bytes]:
    """The weights' bytes and the learning curve's."""
    fit(task, task.config, Checkpoints(folder / "checkpoints"), Journal(folder / "metrics.jsonl"), "test")
    return weights(task), (folder / "metrics.jsonl").read_bytes()


def weights(task) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in task.model.state_dict().items()}


def stop_at(task, step: int):
    """The task, whose process is killed before its batch number `step`."""
    count, original = iter(range(1, 10**9)), task.step

    def killed():
        if next(count) == step:
            raise KeyboardInterrupt
        return original()

    task.step = killed
    return task


def test_latents_that_there_is_no_room_for_are_read_again(tmp_path, latents):
    tasks = [mdn_task(latents) for _ in range(3)]
    tasks[1].streams.room, tasks[2].streams.room = 0, 1000
    results = [run(task, tmp_path / str(number)) for number, task in enumerate(tasks)]
    kept = [len(task.streams.kept) for task in tasks]
    assert kept[1] == 0 < kept[2] < kept[0] == len(latents.training)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("make, data", [(vae_task, "frames"), (mdn_task, "latents")])
def test_resumed_is_the_same_to_the_bit(tmp_path, request, monkeypatch, make, data):
    """Killed three times: after a checkpoint with half of a report's sums, between two reports, right after one."""
    data = request.getfixturevalue(data)
    monkeypatch.setattr(training, "CHECKPOINTS", 5)  # after every second of nine steps
    expected = run(make(data), tmp_path / "whole")
    for step in (3, 4, 3):  # of this process: killed before step 3; going on after 2, before 6; after 4, before 7
        with pytest.raises(KeyboardInterrupt):
            run(stop_at(make(data), step), tmp_path / "killed")
    assert Checkpoints(tmp_path / "killed" / "checkpoints").load()[1]["step"] == 6
    assert run(make(data), tmp_path / "killed") == expected


@pytest.mark.parametrize("make, data", [(vae_task, "frames"), (mdn_task, "latents")])
def test_how_often_a_checkpoint_is_written_decides_no_bit(tmp_path, request, monkeypatch, make, data):
    data, saved, save = request.getfixturevalue(data), [], Checkpoints.save

    def remember(self, step, *words):
        saved.append(step)
        save(self, step, *words)

    monkeypatch.setattr(Checkpoints, "save", remember)
    found = []
    for parts, seconds, expected in ((1, 1e9, [9]), (3, 1e9, [3, 6, 9]), (1, -1.0, [*range(1, 10)])):
        monkeypatch.setattr(training, "CHECKPOINTS", parts)
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
        found.append(run(make(data), tmp_path / str(len(found))))
        assert saved == expected
        saved.clear()
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("make, data", [(vae_task, "frames"), (mdn_task, "latents")])
def test_the_same_seed_gives_the_same_model_and_another_gives_another(tmp_path, request, make, data):
    data = request.getfixturevalue(data)
    first, second = run(make(data, 3), tmp_path / "a"), run(make(data, 3), tmp_path / "b")
    assert first == second
    other = make(data, 3)
    type(other).__init__(other, other.model, data, other.config, 2)
    assert run(other, tmp_path / "c")[1] != first[1]


def test_reports_and_looks_at_held_out_episodes_fall_where_the_config_says(tmp_path, latents):
    run(mdn_task(latents, 9), tmp_path)
    lines = read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 4, 6, 8, 9]
    assert [line["step"] for line in lines if "held_out/nll" in line] == [4, 8, 9]
    assert all({"train/loss", "train/nll", "learning_rate"} <= set(line) for line in lines)


def test_looking_at_held_out_episodes_does_not_change_training(tmp_path, latents):
    often, never = mdn_task(latents, 6, held_out_every=1), mdn_task(latents, 6, held_out_every=1000)
    assert run(often, tmp_path / "a")[0] == run(never, tmp_path / "b")[0]
    assert often.held_out() == often.held_out()


def test_m_learns_a_sequence_that_counts(tmp_path, latents):
    task = mdn_task(latents, 300, learning_rate=2e-2, report_every=20, held_out_every=300)
    run(task, tmp_path)
    curve = [line["train/nll"] for line in read(tmp_path / "metrics.jsonl")]
    assert curve[-1] < curve[0] - 1.0


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_batch(tmp_path):
    data = write_latents(tmp_path, bad=4)
    task = mdn_task(data, 10)
    seen, original = [], task.step

    def remember():
        seen.append(weights(task))
        return original()

    task.step = remember
    with pytest.raises(
        UserError, match=r"the loss became nan at step \d+, on windows of episodes \[.*\b4\b.*\]"
    ) as error:
        run(task, tmp_path)
    assert weights(task) == seen[-1]
    step = int(str(error.value).split("at step ")[1].split(",")[0])
    assert step == len(seen)
    assert 1 < step and Checkpoints(tmp_path / "checkpoints").load()[1]["step"] == step - 1


def test_a_learning_rate_that_explodes_is_a_sentence(tmp_path, frames):
    with pytest.raises(
        UserError, match=r"the loss became (nan|inf) at step 2, on a batch of frames of episodes \[\d+, \d+\]"
    ):
        run(vae_task(frames, learning_rate=1e12), tmp_path)


def test_the_learning_rate_falls_as_a_cosine():
    config = TrainConfig(steps=101, learning_rate=1e-3, learning_rate_end=1e-5)
    rates = [learning_rate(config, step) for step in range(1, 102)]
    assert rates[0] == 1e-3 and rates[-1] == pytest.approx(1e-5) and rates[50] == pytest.approx((1e-3 + 1e-5) / 2)
    assert all(after < before for before, after in itertools.pairwise(rates))
    assert learning_rate(TrainConfig(steps=1, learning_rate=1e-6), 1) == 1e-6


def test_gradients_are_clipped_by_value(tmp_path, latents):
    task = mdn_task(latents, 1, clip=1e-4)
    run(task, tmp_path)
    assert max(float(p.grad.abs().max()) for p in task.model.parameters() if p.grad is not None) <= 1e-4 * (1 + 1e-6)


def test_every_frame_of_training_is_drawn_before_any_is_drawn_again(frames):
    """A pool's frames go by once; the held-out episode never does."""
    task, drawn = vae_task(frames), []
    for _ in range(40):
        task.step()
        drawn.append(tuple(task.pool))
    passes = list(dict.fromkeys(drawn))
    assert {index for pool in drawn for index in pool} == set(frames.training)
    seen = [index for pool in passes for index in pool]
    assert len(set(seen[: len(frames.training)])) == len(frames.training)


def test_windows_laid_end_to_end_are_whole_episodes(latents):
    streams = Streams(latents, latents.training, batch=3, length=7, rng=generator(0, Purpose.TRAIN_MDN))
    windows = [streams.next() for _ in range(12)]
    joined = {name: torch.cat([getattr(w, name)[:, :7] for w in windows], 1).numpy() for name in windows[0]._fields}
    assert (joined["logvar"] == -9.0).all()
    following = torch.cat([w.mu[:, 1:] for w in windows], 1).numpy()
    begun = []
    for stream in range(3):
        starts = np.flatnonzero(joined["restart"][stream])
        assert starts[0] == 0
        for first, after in itertools.pairwise(starts):
            mu, number = joined["mu"][stream, first:after], int(joined["mu"][stream, first, 0])
            begun.append(number)
            assert (mu[:, 0] == number).all() and mu[:, 1].tolist() == list(range(LENGTHS[number]))
            assert joined["end"][stream, first:after].tolist() == [0.0] * (LENGTHS[number] - 1) + [1.0]
            assert joined["has_next"][stream, first:after].tolist() == [1.0] * (LENGTHS[number] - 1) + [0.0]
            assert np.array_equal(following[stream, first : after - 1], mu[1:])
            assert (joined["act"][stream, first:after, 0] == number).all()
    assert set(begun) <= set(latents.training) and len(set(begun)) > 8


def test_a_round_that_continues_a_model_of_another_shape_is_refused(tmp_path, frames):
    save_vae(VAE(VAEConfig(z_size=3)), "tiny", tmp_path / "earlier")
    config = TrainVAEConfig(steps=1, batch=5, model=VAEConfig(z_size=2))
    with pytest.raises(UserError, match=r"train_vae.model.z_size is 2, and 3 in .*earlier"):
        with Workspace("train_vae", "x", "0" * 16, tmp_path) as workspace:
            train_vae(config, "tiny", 0, frames.folder, tmp_path / "earlier", workspace)
