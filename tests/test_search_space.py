"""Where CMA-ES searches: all weights, or a few directions."""

from __future__ import annotations

import numpy as np
import pytest

from wm.core.errors import UserError
from wm.models.controller import Layout
from wm.search.space import Space

D, A, K = 6, 3, 2
LAYOUT = Layout(inputs=D, actions=A)


@pytest.fixture
def episodes() -> list[np.ndarray]:
    """What C reads in 5 episodes, far from zero and along some directions more than along others."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((D, D)) * [5.0, 2.0, 1.0, 0.3, 0.1, 0.01]
    return [rng.standard_normal((200, D)) @ mixed.T + 7.0 for _ in range(5)]


@pytest.fixture
def start() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(LAYOUT.size).astype(np.float32)


def outputs(params: np.ndarray, read: np.ndarray) -> np.ndarray:
    return LAYOUT.apply(np.repeat(params[None], len(read), 0), read.astype(np.float32)).astype(np.float64)


def test_a_search_among_all_weights_starts_at_the_start_and_moves_raw_weights_where_nothing_is_offset(start):
    for offset in (np.zeros(D), np.arange(D) + 0.5):
        space = Space.of_weights(start, LAYOUT, offset)
        assert np.allclose(space.controllers(space.start[None])[0], start, atol=1e-6)
        step = np.zeros(LAYOUT.size)
        step[2] = 1.0
        moved = space.controllers((space.start + step)[None])[0] - start
        assert moved[2] == pytest.approx(1.0, abs=1e-5) and moved[-A] == pytest.approx(-offset[2], abs=1e-5)


def test_a_step_along_any_direction_moves_an_output_by_as_much(start, episodes):
    read = np.concatenate(episodes)
    space = Space.of_directions(start, LAYOUT, episodes, K)
    assert np.array_equal(space.start, np.zeros(A * (K + 1)))
    before = outputs(space.controllers(space.start[None])[0], read)
    assert np.allclose(before, outputs(start, read), atol=1e-3)
    for number in range(A * (K + 1)):
        step = np.zeros((1, A * (K + 1)))
        step[0, number] = 0.5
        change = outputs(space.controllers(step)[0], read) - before
        action, direction = divmod(number, K + 1)
        assert np.abs(np.delete(change, action, axis=1)).max() < 1e-3
        spread, shift = (0.5, 0.0) if direction < K else (0.0, 0.5)
        assert change[:, action].std() == pytest.approx(spread, abs=2e-3)
        assert change[:, action].mean() == pytest.approx(shift, abs=2e-3)


def test_the_directions_are_those_that_vary_most_and_point_one_way(start, episodes):
    read = np.concatenate(episodes)
    found = Space.of_directions(start, LAYOUT, episodes, K).directions  # [D, K]
    seen = (read - read.mean(0)) @ found
    assert np.allclose(np.cov(seen.T, bias=True), np.eye(K), atol=1e-6)
    rest = (read - read.mean(0)) - seen @ np.linalg.lstsq(seen, read - read.mean(0), rcond=None)[0]
    assert rest.var(0).sum() == pytest.approx(np.linalg.eigvalsh(np.cov(read.T, bias=True))[: D - K].sum(), rel=1e-6)
    assert (np.take_along_axis(found, np.abs(found).argmax(0)[None], 0) > 0).all()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda s, e: Space.of_directions(s, LAYOUT, e, D + 1), "evolve.directions is 7, but C reads 6 numbers"),
        (
            lambda s, e: Space.of_directions(s, Layout(inputs=D, actions=A, hidden=2), e, K),
            "evolve.directions is for a linear controller",
        ),
        (
            lambda s, e: Space.of_directions(s, Layout(inputs=D, actions=A, bias=False), e, K),
            "evolve.directions is for a linear controller",
        ),
    ],
)
def test_a_controller_that_it_is_not_for_is_refused_in_a_sentence(start, episodes, make, said):
    with pytest.raises(UserError, match=said):
        make(start, episodes)
