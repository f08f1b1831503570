"""The interval behind every score and the champion's gate, against SciPy's bootstrap and the normal approximation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from wm.stages.evaluate import interval

SAMPLES = {
    "100 scores of a good agent": lambda rng: np.minimum(rng.normal(880, 60, 100), 930),
    "12 scores, one of them lost": lambda rng: np.append(rng.normal(900, 10, 11), 100.0),
    "30 skewed": lambda rng: rng.lognormal(5, 1, 30),
    "paired differences about zero": lambda rng: rng.normal(0.5, 40, 64),
    "1,000 scores": lambda rng: rng.normal(820, 90, 1000),
}
TOLERANCE = 0.15
"""Of a standard error of the mean. With 10,000 resamples an end varies by 0.03 of one, or more where tails are long."""


def ends(scores: np.ndarray) -> np.ndarray:
    found = interval(scores)
    assert list(found) == ["ci95_low", "ci95_high"]
    return np.array(list(found.values()))


@pytest.mark.parametrize("name", SAMPLES)
def test_it_is_the_percentile_bootstrap_of_scipy(name):
    scores = SAMPLES[name](np.random.default_rng(1))
    expected = stats.bootstrap(
        (scores,), np.mean, n_resamples=10_000, confidence_level=0.95, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    error = scores.std() / len(scores) ** 0.5
    assert np.abs(ends(scores) - expected).max() < TOLERANCE * error


def test_of_many_scores_it_is_the_normal_interval():
    scores = SAMPLES["1,000 scores"](np.random.default_rng(3))
    error = scores.std() / len(scores) ** 0.5
    assert np.abs(ends(scores) - stats.norm.interval(0.95, scores.mean(), error)).max() < TOLERANCE * error


def test_of_few_skewed_scores_it_is_not():
    """What tells the bootstrap from mean plus and minus 1.96 standard errors."""
    scores = SAMPLES["12 scores, one of them lost"](np.random.default_rng(1))
    low, high = ends(scores)
    assert high - scores.mean() < 0.8 * (scores.mean() - low)


def test_it_is_a_function_of_the_scores_alone():
    scores = SAMPLES["30 skewed"](np.random.default_rng(4))
    assert interval(scores) == interval(scores.copy())
    assert interval(np.full(7, 3.0)) == {"ci95_low": 3.0, "ci95_high": 3.0}
