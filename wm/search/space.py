"""Which controllers CMA-ES moves among, and what a step of one is worth.

In raw weights (paper) a step's effect depends on what C happens to read: most of it is the same constant in all states,
and the rest goes along the few directions in which z and h vary most. `Space` can take the constant out, and can search
only along K principal directions of what C reads, with a step along each worth the same: A (K + 1) numbers instead of
A (D + 1), of which a generation's few episodes say that much more.

Shapes: P candidates, N parameters of a controller, D numbers that C reads, A actions, K directions, T steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wm.core.errors import UserError
from wm.models.controller import Layout


@dataclass(frozen=True)
class Space:
    """What CMA-ES moves, [P, n] float64, and the controllers that it stands for.

    Attributes:
        layout: of the controllers.
        start: where the search starts, [n].
        offset: what C reads on average, [D]: the weights move about it.
        about: with directions, the controller that zeros stand for, [N], as `Layout.shift` by offset gives it.
        directions: [D, K], or None: every weight moves.
    """

    layout: Layout
    start: np.ndarray
    offset: np.ndarray
    about: np.ndarray | None = None
    directions: np.ndarray | None = None

    @classmethod
    def of_weights(cls, start: np.ndarray, layout: Layout, offset: np.ndarray) -> Space:
        """All weights of a controller, from start [N], about offset [D] (zeros: the raw weights of the paper)."""
        return cls(layout, layout.shift(start[None], offset)[0], offset)

    @classmethod
    def of_directions(cls, start: np.ndarray, layout: Layout, episodes: Iterable[np.ndarray], count: int) -> Space:
        """What is added to start [N]: a weight for each action and principal direction, and a bias for each action.

        Args:
            episodes: what C reads, [T, D] each: it varies with variance 1 along each direction, so the spread that is
                added to an output over all steps is the norm of that action's K weights.
            count: K.
        Raises:
            UserError: a controller that is not linear with a bias, or more directions than C reads numbers.
        """
        if layout.hidden or not layout.bias:
            raise UserError("evolve.directions is for a linear controller with a bias: set it to 0")
        if count > layout.inputs:
            raise UserError(f"evolve.directions is {count}, but C reads {layout.inputs} numbers: at most as many")
        average, covariance = _moments(episodes)
        variances, directions = np.linalg.eigh(covariance)  # ascending
        variances, directions = variances[::-1][:count], directions[:, ::-1][:, :count]
        largest = directions[np.abs(directions).argmax(0), np.arange(count)]
        directions = directions * np.sign(largest) / np.sqrt(np.maximum(variances, 1e-6))
        about = layout.shift(start[None], average)[0]
        return cls(layout, np.zeros(layout.actions * (count + 1)), average, about, directions)

    def controllers(self, found: np.ndarray) -> np.ndarray:
        """What CMA-ES moves, [P, n], as controllers [P, N] float32."""
        moved = np.asarray(found, np.float64)
        if self.directions is not None:
            numbers = moved.reshape(len(moved), self.layout.actions, -1)  # [P, A, K + 1]
            weights = numbers[:, :, :-1] @ self.directions.T  # [P, A, D]
            moved = self.about + np.concatenate([weights.reshape(len(moved), -1), numbers[:, :, -1]], axis=1)
        return self.layout.shift(moved, -self.offset).astype(np.float32)


def _moments(episodes: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] over all steps."""
    steps, total, products = 0, 0.0, 0.0
    for read in episodes:
        steps, total, products = steps + len(read), total + read.sum(0), products + read.T @ read
    mean = total / steps
    return mean, products / steps - np.outer(mean, mean)
