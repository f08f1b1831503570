"""The loop of a search: ask CMA-ES, play, tell; score again; in the end, choose (paper, section 2.3).

What is kept is not the best of a noisy population: the distribution's mean, and the generation's best candidate, are
scored again on selection episodes that no candidate was ever trained on. The best of those is kept, or the best few
and the average of the means are played off on further episodes at the end (`final_episodes`). A search in the dream
has contenders of the dream and, where it can be played, of the world. Of the dream's only means are kept: the best
candidate of a generation is the one that found most of the model's mistakes.

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

    `chooser` says whose contenders are in front until then: "world" or "dream", by the configuration.

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
        self.chooser = "dream" if config.dream_decides else "world"
        self.contenders = {where: Contenders([Contender(start.params, -np.inf, 0, "start")]) for where in scorer.places}
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
        self._progress.set_postfix(mean=f"{line['mean']:.1f}", kept=f"{self.best.score:.1f}", refresh=False)
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
        for where, (mean, candidate) in scores.items():
            self._add(where, controllers[0], mean, n + 1, "mean")
            if where == "world":
                self._add(where, controllers[1], candidate, n + 1, "best")
        line = rescoring.of_mean_and_best(scores, rescoring.best_in_world(self._journal()))
        self.rescoring_seconds = time.perf_counter() - began
        return line | {"kept": self.best.score}

    @property
    def best(self) -> Contender:
        """What would be kept now."""
        return self.contenders[self.chooser].best

    def finish(self, trusted: bool = True) -> Outcome:
        """Chooses what is kept.

        Args:
            trusted: the dream may choose, where the configuration lets it; else the world does.
        Raises:
            UserError: no contender has a finite score.
        """
        self._progress.close()
        self._say_if_flat()
        self.chooser = self.chooser if trusted else "world"
        kept, final = self.best, 0
        if self.config.final_episodes:
            average = self.space.controllers(self.cmaes.average[None])[0]
            field = [
                *self.contenders[self.chooser].found,
                Contender(average, -np.inf, self.config.generations, "average"),
            ]
            numbers = self._seeds(seeds.Purpose.SELECTION, FINAL, count=self.config.final_episodes)
            params = np.stack([one.params for one in field])
            kept = rescoring.select(field, self.scorer.final(params, numbers, self.chooser))
            final = len(field) * len(numbers) if self.chooser == "world" else 0
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
        found = {where: contenders.state() for where, contenders in self.contenders.items()}
        tensors = {f"contenders_{where}": params for where, (params, _) in found.items()}
        words = {where: words for where, (_, words) in found.items()}
        state = {"contenders": words, "generations": self.config.generations}
        return {"history": self.cmaes.history} | tensors | self.played.state(), state

    def restore(self, tensors: Tensors, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self.cmaes.replay(tensors["history"])
        self.played.restore(tensors)
        for where, words in state["contenders"].items():
            self.contenders[where] = Contenders.restored(tensors[f"contenders_{where}"], words)

    def _add(self, where: str, params: np.ndarray, scores: np.ndarray, generation: int, source: str) -> None:
        """A controller [N] and its scores [E] in the world or the dream."""
        self.contenders[where].add(Contender(params, float(scores.mean()), generation, source))

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
        for where, (each,) in scores.items():
            self._add(where, self.start.params, each, 0, "start")
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
        """Whether there was a checkpoint to go on from, of this search or of one of another length."""
        found = self.workspace.checkpoints.load()
        if found is None or self._another(found[1]["step"], found[1]["generations"]):
            self.workspace.checkpoints.clear()
            self.workspace.journal.rewind(-1)  # the start's line, step 0, is written again
            return False
        self.restore(*found)
        done = found[1]["step"]
        self.workspace.journal.rewind(done)
        print(f"going on from generation {done}")
        return True

    def _another(self, done: int, generations: int) -> bool:
        """Whether a search of so many generations is not what this one would be after `done` of them: it has gone too
        far, or only one of the two is scored again there, since it ends."""
        mine, between = self.config.generations, done % self.config.rescore_every != 0
        return done > mine or (between and (done == generations) != (done == mine))

    def _check_time(self, done: int) -> None:
        """Ends the search after a rescoring, if the next one and the final selection would come too late."""
        config = self.config
        if done % config.rescore_every or done == config.generations:
            return
        generations = min(config.rescore_every, config.generations - done)
        pace = float(np.mean(self.seconds_per_generation[-config.rescore_every :]))
        final = self.rescoring_seconds * rescoring.final_episodes(config, trusted=False) / (2 * config.rescore_episodes)
        if time.time() + pace * generations + self.rescoring_seconds + final > budget.deadline():
            raise budget.OutOfTime(done, config.generations, self.best.score)
