"""The dream: its fused step against a plain reading of the paper, and what its scores may not depend on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wm.core import weights
from wm.core.errors import DamagedData
from wm.dream import engine
from wm.dream.engine import Dream, DreamNoise, DreamRules
from wm.dream.step import LEAST_SURVIVAL, DreamBatch
from wm.models.controller import ControllerSpec, Layout
from wm.models.mdnrnn import MDNRNN, MDNConfig, draw, expectation

Z, H, STEPS = 6, 20, 40
INPUTS = {"z": Z, "h": H, "c": H}


class Squashing:
    """All that the engine asks of a world."""

    spec = SimpleNamespace(symlog_rewards=False)

    def squash(self, out: np.ndarray) -> np.ndarray:
        return np.tanh(out, dtype=np.float32)


class OnTensors(Squashing):
    """Such a world may dream on a GPU."""

    def squash(self, out):
        return out.tanh() if isinstance(out, torch.Tensor) else super().squash(out)


def make(
    seed: int = 0,
    *,
    inputs=("z", "h"),
    actions: int = 2,
    bias: bool = True,
    hidden: int = 0,
    restart: bool = False,
    reward: str = "head",
    done_bias: float = -0.8,
    mixtures: int = 5,
    tau: float = 1.1,
    max_steps: int = STEPS,
    threads: int = 1,
    ends: str = "threshold",
    reads: str = "sample",
) -> tuple[Dream, MDNRNN]:
    torch.manual_seed(seed)
    mdnrnn = MDNRNN(MDNConfig(hidden=H, mixtures=mixtures, reward_head=reward == "head"), Z, actions, restart)
    torch.nn.init.normal_(mdnrnn.mixture.weight, 0, 0.7)
    torch.nn.init.normal_(mdnrnn.done.weight, 0, 1.0)
    torch.nn.init.constant_(mdnrnn.done.bias, done_bias)
    mdnrnn.eval().requires_grad_(False)
    layout = Layout(inputs=sum(INPUTS[name] for name in inputs), actions=actions, bias=bias, hidden=hidden)
    starts = torch.randn(9, Z), torch.randn(9, Z) - 2
    rules = DreamRules(tau, max_steps, reward, ends, reads)
    mdnrnn.end_shift = 1.7
    return Dream(mdnrnn, starts, Squashing(), ControllerSpec(inputs, layout), rules, threads=threads), mdnrnn


def candidates(dream: Dream, count: int, scale: float = 0.5) -> np.ndarray:
    return np.random.default_rng(3).normal(0, scale, (count, dream.spec.layout.size)).astype(np.float32)


def plain(dream: Dream, mdnrnn: MDNRNN, params: np.ndarray, seed: int) -> tuple[float, int]:
    """One episode of one candidate, line by line as the paper's pseudo-code."""
    noise = DreamNoise(seed, Z)
    z, (h, c), score, survival = noise.start(dream.mu, dream.logvar)[None], mdnrnn.initial_state(1), 0.0, 1.0
    rules, seen = dream.rules, noise.mean(dream.mu)[None]
    for step in range(dream.rules.max_steps):
        states = {"z": z if rules.reads == "sample" else seen, "h": h, "c": c}
        features = torch.cat([states[name] for name in dream.spec.inputs], dim=1).numpy()
        act = torch.from_numpy(dream.world.squash(dream.spec.layout.apply(params[None], features)))
        h, c = mdnrnn.step(z, act, (h, c), torch.tensor([float(step == 0)]))
        mixture, reward, done = mdnrnn.heads(h)
        uniform, eps = torch.from_numpy(noise.block(step // engine.NOISE_STEPS)[step % engine.NOISE_STEPS])
        z, seen = draw(mixture, rules.tau, uniform[None], eps[None]), expectation(mixture, rules.tau)
        score += (1.0 if dream.reward == "survival" else float(reward)) * survival
        p = float(torch.sigmoid(done - mdnrnn.end_shift))
        survival *= 1 - p if rules.ends == "expected" else 1.0
        luck = noise.ends(step // engine.NOISE_STEPS)[step % engine.NOISE_STEPS]
        if {"threshold": done > 0, "drawn": luck < p, "expected": survival < LEAST_SURVIVAL}[rules.ends]:
            break
    return score, step + 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"inputs": ("z", "c", "h"), "actions": 1, "bias": False, "restart": True, "reward": "survival"},
        {"inputs": ("z",), "hidden": 7, "mixtures": 1},
        {"inputs": ("h", "z"), "tau": 0.1, "max_steps": 70, "done_bias": -0.3},
        {"ends": "drawn"},
        {"ends": "expected", "max_steps": 90, "done_bias": -0.3},
        {"reads": "mean"},
        {"reads": "mean", "ends": "drawn", "inputs": ("z", "c", "h"), "restart": True, "reward": "survival"},
        {"reads": "mean", "ends": "expected", "inputs": ("z",), "hidden": 7, "max_steps": 90, "done_bias": -0.3},
        {"reads": "mean", "inputs": ("c", "z"), "mixtures": 1, "tau": 0.5},
    ],
    ids=[
        *("car_racing", "take_cover", "hidden_layer", "cold"),
        *("drawn", "expected", "mean", "mean_drawn", "mean_expected", "mean_cold"),
    ],
)
def test_fused_step_agrees_with_the_plain_one(options):
    dream, mdnrnn = make(**options)
    params, seeds = candidates(dream, 5), [11, 12, 13]
    scores, lengths = dream.scores(params, seeds)
    for p, e in np.ndindex(scores.shape):
        score, length = plain(dream, mdnrnn, params[p], seeds[e])
        assert length == lengths[p, e]
        assert scores[p, e] == pytest.approx(score, abs=1e-4)
    assert len(np.unique(lengths)) > 3


def test_scores_do_not_depend_on_threads_chunks_or_neighbours(monkeypatch):
    """Bit by bit: a candidate's episode is its own."""
    options = {"max_steps": 70, "done_bias": -1.5}
    dream, _ = make(**options)
    params, seeds = candidates(dream, 40), list(range(100, 112))
    expected = dream.scores(params, seeds)
    assert len(np.unique(expected[1])) > 10

    def same(scores, rows=slice(None), columns=slice(None)):
        for got, of_all in zip(scores, expected, strict=True):
            assert np.array_equal(got, of_all[rows, columns])

    same(make(threads=2, **options)[0].scores(params, seeds))
    same(dream.scores(params[7:9], seeds), slice(7, 9))
    same(dream.scores(params, seeds[3:4]), columns=slice(3, 4))
    for chunk in (32, 64, 160):
        monkeypatch.setattr(engine, "CHUNK", chunk)
        same(dream.scores(params, seeds))


def test_threads_of_the_caller_are_left_alone():
    before = torch.get_num_threads()
    make(threads=2)[0].scores(np.zeros((2, 54), np.float32), [1])
    assert torch.get_num_threads() == before


def test_same_seed_is_the_same_luck_for_all():
    """Equal candidates have equal episodes, and different seeds different ones."""
    dream, _ = make()
    params = np.tile(candidates(dream, 1), (3, 1))
    scores, lengths = dream.scores(params, [1, 2, 1, 3])
    assert np.ptp(scores, axis=0).max() == 0 and np.ptp(lengths, axis=0).max() == 0
    assert np.array_equal(scores[:, 0], scores[:, 2]) and len(np.unique(scores[0])) == 3


def test_noise_is_a_function_of_seed_and_step():
    first, again = DreamNoise(7, Z), DreamNoise(7, Z)
    again.block(0)
    assert np.array_equal(first.block(3), again.block(3)), "a block depends on those drawn before"
    assert not np.array_equal(first.block(3), first.block(2))
    assert not np.array_equal(first.block(0), DreamNoise(8, Z).block(0))
    uniform, normal = np.concatenate([DreamNoise(seed, Z).block(0) for seed in range(100)]).swapaxes(0, 1)
    assert 0 <= uniform.min() and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02


def steps_of(dream: Dream, monkeypatch, params, seeds) -> tuple[list[int], np.ndarray]:
    """Widths of the batches that were stepped, one an executed step, and the lengths."""
    widths, step = [], DreamBatch.step
    monkeypatch.setattr(DreamBatch, "step", lambda batch: (widths.append(batch.width), step(batch))[1])
    return widths, dream.scores(params, seeds)[1]


def test_stops_when_all_are_dead_and_shrinks_before(monkeypatch):
    dream, _ = make(max_steps=1000, done_bias=-1.5)
    widths, lengths = steps_of(dream, monkeypatch, candidates(dream, 24), range(8))
    assert lengths.max() <= len(widths) < lengths.max() + engine.CHECK_STEPS
    assert widths[0] == 192 and widths[-1] == 32 and widths == sorted(widths, reverse=True)


def test_lives_to_the_limit_where_nothing_ends():
    dream, _ = make(done_bias=-1e6, reward="survival", max_steps=37)
    scores, lengths = dream.scores(candidates(dream, 2), [1, 2])
    assert (lengths == 37).all() and (scores == 37).all()


def test_the_step_that_ends_counts():
    dream, _ = make(done_bias=1e6, reward="survival")
    scores, lengths = dream.scores(candidates(dream, 2), [1, 2])
    assert (lengths == 1).all() and (scores == 1).all()


def known(p: float, ends: str, max_steps: int = 2000) -> Dream:
    """Dreams with reward 1 a step whose end has probability p at every step."""
    dream, mdnrnn = make(ends=ends, reward="survival", max_steps=max_steps)
    mdnrnn.done.weight.zero_()
    mdnrnn.done.bias.fill_(np.log(p / (1 - p)) + mdnrnn.end_shift)
    return Dream(mdnrnn, (dream.mu, dream.logvar), dream.world, dream.spec, dream.rules)


def test_known_ends_give_the_geometric_life():
    """Its mean is 1/p, its deviation sqrt(1 - p)/p; where it is expected, without the tail that is dropped."""
    lengths = known(0.02, "drawn").scores(np.zeros((1, 54), np.float32), range(2000))[1][0]
    error = 0.02**-1 / 2000**0.5
    assert abs(lengths.mean() - 50) < 4 * error and abs(lengths.std() / (0.98**0.5 * 50) - 1) < 0.1
    scores, lengths = known(0.02, "expected").scores(np.zeros((2, 54), np.float32), [1, 2])
    steps = int(np.ceil(np.log(LEAST_SURVIVAL) / np.log(0.98)))
    assert (lengths == steps).all() and scores == pytest.approx((1 - 0.98**steps) / 0.02, rel=1e-4)
    for p, life in ((0.02, 300), (0.2, 1)):  # immortal below p = 1 / (1 + exp(shift)), doomed above
        assert (known(p, "threshold", 300).scores(np.zeros((1, 54), np.float32), [1])[1] == life).all()


def test_what_is_expected_is_the_mean_of_what_is_drawn():
    dream = make(ends="expected", done_bias=-1.5, max_steps=200)[0]
    params = candidates(dream, 1)
    expected, drawn = dream.scores(params, range(1500))[0], dream.ending("drawn").scores(params, range(1500))[0]
    assert abs((expected - drawn).mean()) < 4 * (expected - drawn).std() / 1500**0.5
    assert expected.std() < drawn.std()


def test_where_c_reads_the_mean_the_draw_of_z_is_no_noise_to_it():
    """With an M whose mixture is its bias, C's outputs stand still after the first step, whatever was drawn."""
    spread = {}
    for reads in ("sample", "mean"):
        dream, mdnrnn = make(inputs=("z",), reads=reads)
        mdnrnn.mixture.weight.zero_()
        dream = Dream(mdnrnn, (dream.mu, dream.logvar), dream.world, dream.spec, dream.rules)
        batch = DreamBatch(dream.weights, dream.spec, dream.world.squash, 32, 32)
        batch.begin(np.tile(candidates(dream, 1), (32, 1)), np.arange(32), *torch.zeros(2, 32, Z))
        luck = [DreamNoise(seed, Z) for seed in range(32)]
        batch.load_noise(np.stack([one.block(0) for one in luck], axis=-1))
        batch.run(2)
        spread[reads] = float(batch.control.out.std(1).max())
        assert batch.z.std(1).min() > 0.1, "M goes on from what was drawn"
    assert spread["mean"] < 1e-6 < 0.05 < spread["sample"]


def test_the_luck_of_ends_takes_no_number_from_the_rest():
    one = DreamNoise(7, Z)
    before = one.block(0)
    ends = np.concatenate([one.ends(index) for index in range(50)])
    assert np.array_equal(one.block(0), before) and not np.isin(ends, before).any()
    assert abs(ends.mean() - 0.5) < 0.03 and not np.array_equal(one.ends(0), DreamNoise(8, Z).ends(0))


def test_without_a_done_head_only_the_limit_ends():
    mdnrnn = MDNRNN(MDNConfig(hidden=H, reward_head=False, done_head=False), Z, 2, False)
    spec, rules = ControllerSpec(("z", "h"), Layout(inputs=Z + H, actions=2)), DreamRules(tau=1.0, max_steps=20)
    dream = Dream(mdnrnn, (torch.zeros(1, Z),) * 2, Squashing(), spec, rules)
    assert (dream.scores(candidates(dream, 2), [1])[1] == 20).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("reward", ["head", "survival"])
def test_a_controller_that_is_not_finite_scores_nan_alone(bad, reward):
    dream, _ = make(reward=reward)
    params = candidates(dream, 3)
    expected = dream.scores(params, [1, 2])
    params[1, 5] = bad
    scores, lengths = dream.scores(params, [1, 2])
    assert np.isnan(scores[1]).all() and (lengths[1] == 1).all()
    for got, before in zip((scores, lengths), expected, strict=True):
        assert np.array_equal(got[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("tau", [0.1, 1.0, 1.3])
def test_next_z_has_the_moments_of_the_mixture_at_tau(tau):
    """Of softmax(log_pi / tau) and sigma sqrt(tau) (paper, A.2), over many episodes' first step."""
    dream, mdnrnn = make(tau=tau)
    mdnrnn.mixture.weight.zero_()  # the mixture is its bias, whatever z was
    torch.nn.init.normal_(mdnrnn.mixture.bias, 0, 0.7)
    starts = dream.mu, dream.logvar
    dream = Dream(mdnrnn, starts, Squashing(), dream.spec, DreamRules(tau, max_steps=1))
    rows = 4096
    batch = DreamBatch(dream.weights, dream.spec, dream.world.squash, rows, rows)
    batch.begin(np.tile(candidates(dream, 1), (rows, 1)), np.arange(rows), *torch.zeros(2, rows, Z))
    batch.load_noise(np.stack([DreamNoise(seed, Z).block(0) for seed in range(rows)], axis=-1))
    batch.step()
    logit, mu, log_sigma = mdnrnn.mixture.bias.double().view(3, 5, Z)
    weight = torch.softmax(logit / tau, 0)
    mean = (weight * mu).sum(0)
    variance = (weight * (tau * (2 * log_sigma).exp() + mu.square())).sum(0) - mean.square()
    z = batch.z.double()
    assert ((z.mean(1) - mean).abs() < 5 * (variance / rows).sqrt()).all()
    assert ((z.var(1) / variance - 1).abs() < 0.25).all()


def test_a_cold_dream_is_calmer():
    def spread(tau):
        dream, _ = make(tau=tau, done_bias=-1e6)
        return dream.scores(candidates(dream, 1), range(200))[0].std()

    assert spread(0.01) < spread(1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": 0.0}, "tau"),
        ({"max_steps": 0}, "max_steps"),
        ({"reward": "fame"}, "fame"),
        ({"threads": 0}, "threads"),
        ({"ends": "never"}, "never"),
        ({"reads": "tea"}, "tea"),
        ({"inputs": ("z", "x")}, "'x'"),
    ],
)
def test_impossible_arguments_are_named(options, words):
    threads, inputs = options.pop("threads", 1), options.pop("inputs", ("z", "h"))
    spec = ControllerSpec(inputs, Layout(inputs=Z + H, actions=2))
    mdnrnn = MDNRNN(MDNConfig(hidden=H), Z, 2, False)
    with pytest.raises(ValueError, match=words):
        rules = DreamRules(**{"tau": 1.0, "max_steps": 5, **options})
        Dream(mdnrnn, (torch.zeros(1, Z),) * 2, Squashing(), spec, rules, threads=threads)


def test_controllers_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[P, 54\]"):
        make()[0].scores(np.zeros((2, 53), np.float32), [1])


def test_starts_are_checked(tmp_path):
    with pytest.raises(DamagedData, match="missing"):
        engine.load_starts(tmp_path)
    weights.save(tmp_path, weights.STARTS_KIND, {"mu": torch.zeros(3, 4)}, {"world": "car_racing"})
    with pytest.raises(DamagedData, match="must hold"):
        engine.load_starts(tmp_path)


def test_a_squash_that_reads_arrays_only_is_found_out():
    assert engine.takes_tensors(OnTensors(), 2) and not engine.takes_tensors(Squashing(), 2)


@pytest.mark.parametrize("hidden", [256, 512])
def test_a_row_has_the_same_bits_in_every_width(hidden, monkeypatch):
    """At the sizes of the paper, where matrix products take other paths than at the size of these tests."""
    torch.manual_seed(0)
    mdnrnn = MDNRNN(MDNConfig(hidden=hidden), 32, 3, False)
    starts = torch.randn(4, 32), torch.zeros(4, 32)
    spec = ControllerSpec(("z", "h"), Layout(inputs=32 + hidden, actions=3))
    dream = Dream(mdnrnn, starts, Squashing(), spec, DreamRules(tau=1.0, max_steps=6))
    params = candidates(dream, 16)
    scores = []
    for chunk in (256, 96, 32):
        monkeypatch.setattr(engine, "CHUNK", chunk)
        scores.append(dream.scores(params, range(16))[0])
    assert np.array_equal(scores[0], scores[1]) and np.array_equal(scores[0], scores[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_step_agrees_with_the_plain_one():
    dream, mdnrnn = make()
    starts, rules = (dream.mu, dream.logvar), DreamRules(tau=1.1, max_steps=STEPS)
    dreams = [
        Dream(mdnrnn.to(device), starts, OnTensors(), dream.spec, rules, device=device) for device in ("cpu", "cuda")
    ]
    params = candidates(dream, 40)
    (expected, lengths), (scores, captured) = (one.scores(params, range(16)) for one in dreams)
    assert (lengths == captured).mean() > 0.99
    assert np.abs(scores - expected)[lengths == captured].max() < 1e-3
