"""CMA-ES: ask for candidates, tell their fitness (Hansen 2016; paper, section 2.3 and A.4).

Maximises. The state is not pickled: with the same seed and the same fitness values, replaying ask and tell gives the
identical optimiser, so a checkpoint is the list of fitness values. P population, N parameters.
"""

from __future__ import annotations

import warnings

import numpy as np
from pydantic import Field

from wm.core import seeds
from wm.core.config import Config


class CMAConfig(Config):
    """The search."""

    population: int = Field(64, ge=2, description="P, candidates a generation (paper: 64)")
    sigma0: float = Field(0.1, gt=0, description="initial step size (released code: 0.1)")
    diagonal: bool = Field(
        True, description="separable CMA-ES: a diagonal covariance, which adapts faster in many dimensions"
    )


class CMAES:
    """Ask and tell.

        cmaes = CMAES(CMAConfig(population=16, sigma0=0.3), np.zeros(20), seed=0)
        for _ in range(150):
            candidates = cmaes.ask()
            cmaes.tell(-(candidates**2).sum(1))
        print(cmaes.mean)

    Args:
        config: see `CMAConfig`.
        start: x0 [N], the first mean.
        seed: the experiment's seed.
        key: where in the experiment, e.g. (round,): another key draws other candidates.
    """

    def __init__(self, config: CMAConfig, start: np.ndarray, seed: int, *key: int):
        import cma  # here, since it takes most of a second, and every command and worker imports this file

        rng = seeds.generator(seed, seeds.Purpose.CMA, *key)
        options = {
            "popsize": config.population,
            "CMA_diagonal": config.diagonal,
            "verbose": -9,
            "verb_log": 0,
            "seed": np.nan,
            "randn": lambda *size: rng.standard_normal(size),
            # The caller owns the loop: none of the optimiser's own reasons to stop may end a search of noisy scores.
            "maxiter": np.inf,
            "tolfun": 0,
            "tolfunhist": 0,
            "tolx": 0,
            "tolstagnation": np.inf,
            "tolflatfitness": np.inf,
            "tolupsigma": np.inf,
            "tolconditioncov": np.inf,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._es = cma.CMAEvolutionStrategy(np.asarray(start, np.float64), config.sigma0, options)
        self._told: list[np.ndarray] = []
        self._means: list[np.ndarray] = []

    def ask(self) -> np.ndarray:
        """The next candidates, [P, N] float32: what is evaluated, the optimiser's own rounded."""
        self._asked = self._es.ask()
        return np.array(self._asked, np.float32)

    def tell(self, fitness: np.ndarray) -> int:
        """Fitness [P] of the last candidates, higher is better; not finite ranks worst. Returns how many were so."""
        fitness = np.array(fitness, np.float64)
        self._told.append(fitness)
        bad = ~np.isfinite(fitness)
        finite = fitness[~bad]
        worst = finite.min() if len(finite) else 0.0
        ranked = np.where(bad, worst - 1.0 - abs(worst), fitness)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._es.tell(self._asked, list(-ranked))
        self._means.append(np.array(self._es.mean))
        return int(bad.sum())

    def replay(self, history: np.ndarray) -> None:
        """Brings a new optimiser to where `history` [generations, P], as the property gives it, was told."""
        for fitness in history:
            self.ask()
            self.tell(fitness)

    @property
    def history(self) -> np.ndarray:
        """The fitness of all generations so far, [generations, P] float64."""
        return np.array(self._told, np.float64).reshape(-1, self._es.popsize)

    @property
    def mean(self) -> np.ndarray:
        """The distribution's mean, [N] float32."""
        return np.array(self._es.mean, np.float32)

    @property
    def average(self) -> np.ndarray:
        """The mean's average over the last half of the generations, [N] float32: its random walk falls out of it."""
        return np.mean(self._means[len(self._means) // 2 :], axis=0).astype(np.float32)

    @property
    def sigma(self) -> float:
        """The overall step size."""
        return float(self._es.sigma)
