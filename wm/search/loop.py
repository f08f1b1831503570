"""The loop of a search: ask CMA-ES, play, tell; score again; in the end, choose (paper, section 2.3).

What is kept is not the best of a noisy population: the distribution's mean, and the generation's best candidate, are
scored again on selection episodes that no candidate was ever trained on. The best of those is kept, or the best few
and the average of the means are played off on further episodes at the end (`final_episodes`). Where the dream chooses,
only means are kept: the best candidate of a generation is the one that found most of the model's mistakes.

Shapes: P candidates, N parameters of a controller, E episodes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm.core import journal, seeds
from wm.core.checkpoints import Tensors
from wm.core.errors import UserError
from wm.core.workspace import Workspace
from wm.search import budget, rescoring
from wm.search.cmaes import CMAES
from wm.search.config import EvolveConfig
from wm.search.contenders import Contender, Contenders, PlayedEpisodes
from wm.search.fitness import Scorer
from wm.search.space import Space
from wm.search.start import Start

FINAL = 1
"""Where in a round the seeds of the final selection are."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended.

    Attributes:
        kept: the controller, with the score by which it was chosen.
        summary: the numbers of the whole search.
    """

    kept: Contender
    summary: dict[str, float]


class Search:
    """One search: `begin`, each of the `remaining` generations in turn, `finish`.

    All that a generation needs of the earlier ones is in `state`, which goes into a checkpoint after each.

    Args:
        config: see `EvolveConfig`.
        seed: the experiment's.
        start: the controller that it starts from.
        space: among which controllers it moves.
        scorer: plays them.
        workspace: where the journal and the checkpoints are.
        models: the folders of V and M, which an error names.
    """

    def __init__(
        self,
        config: EvolveConfig,
        seed: int,
        start: Start,
        space: Space,
        scorer: Scorer,
        workspace: Workspace,
        models: tuple[Path, Path],
    ):
        self.config, self.seed, self.start, self.space, self.scorer = config, seed, start, space, scorer
        self.workspace, self.models = workspace, models
        self.cmaes = CMAES(config, space.start, seed, start.round_index)
        self.played = PlayedEpisodes()
        self.contenders = Contenders([Contender(start.params, -np.inf, 0, "start")])
        self.seconds_per_generation: list[float] = []  # of this process, without the rescoring
        self.rescoring_seconds = 0.0  # of the last one

    @property
    def done(self) -> int:
        """Generations so far."""
        return len(self.cmaes.history)

    @property
    def remaining(self) -> Iterator[int]:
        """The generations that are still to come, from 0."""
        return iter(range(self.done, self.config.generations))

    def begin(self) -> None:
        """Goes on from the last checkpoint; a new search scores what it inherits, which has to be beaten."""
        resumed = self._resume()
        self._progress = journal.bar(
            self.config.generations, self.workspace.title, "generation", initial=len(self.cmaes.history)
        )
        if not resumed and self.start.params.any():
            self._score_start()

    def generation(self, n: int) -> None:
        """Generation n, from 0: its candidates are played, the journal has its line and a checkpoint its state.

        Raises:
            UserError: no candidate has a finite score.
            OutOfTime: what is to come until the next rescoring, and the final selection, would end after WM_DEADLINE.
        """
        began = time.perf_counter()
        candidates = self.space.controllers(self.cmaes.ask())  # [P, N]
        numbers = self._episodes(n)
        scores, lengths = self.scorer.fitness(candidates, numbers)  # [P, E]
        self.played.note(numbers, scores)
        fitness = scores.mean(1)
        line = self._tell(n, fitness) | {"steps": int(lengths.sum())}
        self.seconds_per_generation.append(time.perf_counter() - began)
        if (n + 1) % self.config.rescore_every == 0 or n + 1 == self.config.generations:
            line |= self.rescore(n, candidates[int(np.nanargmax(fitness))])
        seconds = time.perf_counter() - began
        timings = {"steps_per_second": int(lengths.sum()) / seconds, "seconds": seconds}
        self.workspace.journal.log(n + 1, line, timings)
        self._progress.set_postfix(mean=f"{line['mean']:.1f}", kept=f"{self.contenders.best.score:.1f}", refresh=False)
        self._progress.update()
        self._save(n + 1)
        self._check_time(n + 1)

    def rescore(self, n: int, best: np.ndarray) -> dict[str, float]:
        """Scores the distribution's mean after generation n, and its best candidate [N], on the selection episodes.

        Returns:
            what the journal says of it.
        """
        began = time.perf_counter()
        controllers = np.concatenate([self.space.controllers(self.cmaes.mean[None]), best[None]])
        scores = self.scorer.rescore(controllers)
        for source, params, each in zip(("mean", "best"), controllers, self.scorer.decisive(scores), strict=True):
            if source == "mean" or not self.config.dream_decides:
                self.contenders.add(Contender(params, float(each.mean()), n + 1, source))
        line = rescoring.of_mean_and_best(scores, rescoring.best_in_world(self._journal()))
        self.rescoring_seconds = time.perf_counter() - began
        return line | {"kept": self.contenders.best.score}

    def finish(self) -> Outcome:
        """Chooses what is kept.

        Raises:
            UserError: no contender has a finite score.
        """
        self._progress.close()
        self._say_if_flat()
        kept, final = self.contenders.best, 0
        if self.config.final_episodes:
            average = self.space.controllers(self.cmaes.average[None])[0]
            field = [*self.contenders.found, Contender(average, -np.inf, self.config.generations, "average")]
            numbers = self._seeds(seeds.Purpose.SELECTION, FINAL, count=self.config.final_episodes)
            kept = rescoring.select(field, self.scorer.final(np.stack([one.params for one in field]), numbers))
            final = 0 if self.config.dream_decides else len(field) * len(numbers)
        if not math.isfinite(kept.score):
            raise UserError(
                "no controller has a finite score on the selection episodes: look at the models in "
                f"{self.models[0]} and {self.models[1]}"
            )
        return Outcome(kept, self._summary(kept, final))

    def _say_if_flat(self) -> None:
        """Says it where no candidate of any generation was better than another."""
        fitness = self.cmaes.history  # [generations, P]
        if np.isfinite(fitness).all() and (fitness == fitness[:, :1]).all():
            print(
                f"there is nothing to select: in each of {len(fitness)} generations all {fitness.shape[1]} candidates "
                f"have the same score (at last {fitness[-1, 0]:.6g}), so that what is kept is as good as where the "
                "search started; let the world's rewards differ with what is done, or try more and longer episodes"
            )

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """For a checkpoint: tensors and JSON."""
        tensors, state = self.contenders.state()
        return {"history": self.cmaes.history} | tensors | self.played.state(), state

    def restore(self, tensors: Tensors, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self.cmaes.replay(tensors["history"])
        self.played.restore(tensors)
        self.contenders = Contenders.restored(tensors, state)

    def _episodes(self, n: int) -> list[int]:
        """Seeds of generation n: those that went worst so far, as many as `hard_episodes`, and new ones."""
        hard = self.played.hardest(self.config.hard_episodes)
        fresh = self._seeds(seeds.Purpose.TRAINING, n, count=self.config.episodes)
        return hard + fresh[: self.config.episodes - len(hard)]

    def _seeds(self, purpose: seeds.Purpose, *key: int, count: int) -> list[int]:
        return seeds.episodes(self.seed, purpose, self.start.round_index, *key, count=count)

    def _tell(self, n: int, fitness: np.ndarray) -> dict[str, float]:
        """CMA-ES learns the fitness [P] of generation n; what the journal says of it."""
        if not np.isfinite(fitness).any():
            raise UserError(
                f"no candidate of generation {n + 1} has a finite score, so there is nothing to choose "
                f"from: look at the models in {self.models[0]} and {self.models[1]}, or lower sigma0"
            )
        failed = self.cmaes.tell(fitness)
        return {
            "best": np.nanmax(fitness),
            "mean": np.nanmean(fitness),
            "worst": np.nanmin(fitness),
            "nan": failed,
            "sigma": self.cmaes.sigma,
        }

    def _score_start(self) -> None:
        began = time.perf_counter()
        scores = self.scorer.rescore(self.start.params[None])
        score = float(self.scorer.decisive(scores)[0].mean())
        self.contenders.add(Contender(self.start.params, score, 0, "start"))
        means = " and ".join(f"{each[0].mean():.1f} in the {where}" for where, each in scores.items())
        print(f"the controller that it starts from scores {means} on the selection episodes")
        seconds = {"seconds": time.perf_counter() - began}
        self.workspace.journal.log(0, {**rescoring.of_mean(scores), "nan": 0, "steps": 0}, seconds)
        self._save(0)

    def _summary(self, kept: Contender, final_episodes: int) -> dict[str, float]:
        config, lines = self.config, self._journal()
        alarms = {"gap_alarms": int(sum(line.get("gap_alarm", 0) for line in lines))}
        return {
            "selection_score": kept.score,
            "generation": kept.generation,
            "round": self.start.round_index,
            "generations": config.generations,
            "episodes": config.generations * config.population * config.episodes,
            "steps": int(sum(line["steps"] for line in lines)),
            "nan": int(sum(line["nan"] for line in lines)),
            "final_episodes": final_episodes,
            **(alarms if config.dream else {}),
        }

    def _journal(self) -> list[dict[str, Any]]:
        path = self.workspace.journal.path
        return journal.read(path) if path.exists() else []

    def _save(self, done: int) -> None:
        self.workspace.checkpoints.save(done, *self.state())

    def _resume(self) -> bool:
        """Whether there was a checkpoint to go on from; one of a longer search may have gone too far."""
        found = self.workspace.checkpoints.load()
        if found is None or found[1]["step"] > self.config.generations:
            self.workspace.checkpoints.clear()
            self.workspace.journal.rewind(-1)  # the start's line, step 0, is written again
            return False
        self.restore(*found)
        done = found[1]["step"]
        self.workspace.journal.rewind(done)
        print(f"going on from generation {done}")
        return True

    def _check_time(self, done: int) -> None:
        """Ends the search after a rescoring, if the next one and the final selection would come too late."""
        config = self.config
        if done % config.rescore_every or done == config.generations:
            return
        generations = min(config.rescore_every, config.generations - done)
        pace = float(np.mean(self.seconds_per_generation[-config.rescore_every :]))
        final = self.rescoring_seconds * rescoring.final_episodes(config) / (2 * config.rescore_episodes)
        if time.time() + pace * generations + self.rescoring_seconds + final > budget.deadline():
            raise budget.OutOfTime(done, config.generations, self.contenders.best.score)
