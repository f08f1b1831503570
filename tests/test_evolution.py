"""CMA-ES: it finds a known optimum, ranks failures worst, and is itself again after a replay."""

from __future__ import annotations

import numpy as np
import pytest

from wm.search.cmaes import CMAES, CMAConfig

OPTIMUM = np.linspace(-1, 1, 20)


def sphere(candidates: np.ndarray) -> np.ndarray:
    return -((candidates - OPTIMUM) ** 2).sum(1)


def search(diagonal: bool = True, seed: int = 0, population: int = 16, size: int = 20) -> CMAES:
    return CMAES(CMAConfig(population=population, sigma0=0.3, diagonal=diagonal), np.zeros(size), seed)


@pytest.mark.parametrize("diagonal", [True, False])
def test_it_finds_the_optimum_of_a_sphere(diagonal):
    es = search(diagonal)
    for _ in range(150):
        es.tell(sphere(es.ask()))
    assert np.abs(es.mean - OPTIMUM).max() < 1e-3 and es.sigma < 0.01


def test_it_learns_scales_that_differ_a_hundredfold():
    es, scale = search(), np.logspace(0, 2, 20)
    for _ in range(300):
        es.tell(-((scale * (es.ask() - OPTIMUM)) ** 2).sum(1))
    assert np.abs(scale * (es.mean - OPTIMUM)).max() < 1e-2


def test_candidates_are_float32_and_scatter_about_the_start_by_sigma0():
    candidates = search(population=2000).ask()
    assert candidates.shape == (2000, 20) and candidates.dtype == np.float32
    assert np.abs(candidates.std(0) / 0.3 - 1).max() < 0.1 and np.abs(candidates.mean(0)).max() < 0.05


def test_what_is_not_finite_ranks_worst_and_is_counted():
    """Failures among the candidates act exactly as a fitness below all others does."""
    failing, worst = search(), search()
    for _ in range(10):
        candidates = failing.ask()
        assert np.array_equal(worst.ask(), candidates)
        fitness = sphere(candidates)
        bad = fitness.copy()
        bad[[1, 5]], fitness[[1, 5]] = np.nan, fitness.min() - 100.0
        assert failing.tell(bad) == 2 and worst.tell(fitness) == 0
    assert np.array_equal(failing.mean, worst.mean) and failing.sigma == worst.sigma
    assert np.isnan(failing.history[:, [1, 5]]).all()


def test_infinite_fitness_is_no_triumph():
    es = search()
    es.ask()
    assert es.tell(np.r_[np.inf, -np.inf, np.arange(14.0)]) == 2
    assert np.isfinite(es.mean).all()


def test_a_generation_that_fails_whole_leaves_an_optimiser_that_works():
    es = search()
    es.ask()
    assert es.tell(np.full(16, np.nan)) == 16
    for _ in range(150):
        es.tell(sphere(es.ask()))
    assert np.abs(es.mean - OPTIMUM).max() < 1e-2


@pytest.mark.parametrize("diagonal", [True, False])
def test_replay_gives_the_identical_optimiser(diagonal):
    es = search(diagonal)
    for generation in range(40):
        fitness = sphere(es.ask())
        fitness[generation % 16] = np.nan
        es.tell(fitness)
    again = search(diagonal)
    again.replay(es.history)
    for _ in range(5):
        one, other = es.ask(), again.ask()
        assert np.array_equal(one, other) and np.array_equal(es._asked, again._asked)
        es.tell(sphere(one))
        again.tell(sphere(other))
    assert np.array_equal(es.mean, again.mean) and es.sigma == again.sigma
    assert np.array_equal(es.history, again.history, equal_nan=True)


def test_the_seed_decides_and_the_global_generator_does_not():
    np.random.seed(1)
    first = search(seed=5).ask()
    np.random.seed(2)
    before = np.random.get_state()[1].tolist()
    assert np.array_equal(search(seed=5).ask(), first)
    assert np.random.get_state()[1].tolist() == before, "it drew from the global generator"
    assert not np.array_equal(search(seed=6).ask(), first)


def test_a_new_optimiser_has_an_empty_history():
    assert search().history.shape == (0, 16)


@pytest.mark.parametrize("population", [2, 3, 5])
def test_small_populations_run(population):
    es = search(population=population)
    for _ in range(5):
        candidates = es.ask()
        assert candidates.shape == (population, 20)
        es.tell(sphere(candidates))


def test_flat_fitness_for_many_generations_is_no_end():
    es = search()
    for _ in range(60):
        es.ask()
        es.tell(np.zeros(16))
    assert np.isfinite(es.ask()).all() and np.isfinite(es.sigma)


def test_the_average_is_that_of_the_last_half_of_the_means():
    es, means = search(), []
    for _ in range(5):
        es.tell(sphere(es.ask()))
        means.append(es.mean.astype(np.float64))
    assert np.allclose(es.average, np.mean(means[2:], axis=0), atol=1e-6)
    again = search()
    again.replay(es.history)
    assert np.array_equal(again.average, es.average)
