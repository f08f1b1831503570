"""The best few controllers of a search, and the episodes that it comes back to; both survive a checkpoint."""

from __future__ import annotations

import numpy as np

from wm.core.checkpoints import Checkpoints
from wm.search.contenders import Contender, Contenders, PlayedEpisodes


def contender(score: float, generation: int = 1) -> Contender:
    return Contender(np.full(4, score, np.float32), score, generation, "mean")


def test_the_best_few_stay_best_first_and_of_equals_the_earlier():
    few = Contenders([contender(-np.inf, 0)])
    for generation, score in enumerate([3.0, np.nan, 5.0, 1.0, 5.0, 4.0], 1):
        few.add(contender(score, generation))
    assert [(one.score, one.generation) for one in few.found] == [(5.0, 3), (5.0, 5), (4.0, 6)]
    assert few.best.generation == 3


def test_what_has_no_score_stays_only_until_something_has():
    few = Contenders([contender(-np.inf, 0)])
    few.add(contender(np.nan))
    assert few.best.score == -np.inf
    few.add(contender(-50.0))
    assert [one.score for one in few.found] == [-50.0]


def test_the_hardest_episodes_are_those_that_went_worst_when_they_last_were_played():
    played = PlayedEpisodes()
    assert played.hardest(2) == []
    played.note([11, 12, 13], np.array([[1.0, 9.0, 5.0], [3.0, np.nan, 7.0]]))
    assert played.hardest(2) == [11, 13]
    played.note([11, 14], np.array([[20.0, np.nan], [20.0, np.inf]]))
    assert played.hardest(4) == [13, 12, 11], "14 has no finite score"


def test_both_are_themselves_after_a_checkpoint(tmp_path):
    few, played = Contenders([contender(-np.inf, 0)]), PlayedEpisodes()
    played.note([2**30, 5], np.array([[0.1, 0.1]]))
    for _ in range(2):
        controllers, words = few.state()
        Checkpoints(tmp_path).save(1, {"few": controllers} | played.state(), {"few": words})
        tensors, state = Checkpoints(tmp_path).load()
        again, back = Contenders.restored(tensors["few"], state["few"]), PlayedEpisodes()
        back.restore(tensors)
        assert back.hardest(2) == played.hardest(2) == [2**30, 5]
        assert [vars(one) | {"params": one.params.tolist()} for one in again.found] == [
            vars(one) | {"params": one.params.tolist()} for one in few.found
        ]
        few.add(contender(1.5))
