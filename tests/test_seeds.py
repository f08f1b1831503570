"""Where random numbers come from: no episode serves two purposes."""

from __future__ import annotations

from wm.core import seeds


def test_no_purpose_shares_an_episode_with_another():
    drawn = [
        set(seeds.episodes(seed, purpose, *key, count=500))
        for purpose in seeds.Purpose
        for seed in (0, 1)
        for key in ((), (1,))
    ]
    for purpose in range(len(seeds.Purpose)):
        mine = set().union(*drawn[4 * purpose : 4 * purpose + 4])
        others = set().union(*(part for index, part in enumerate(drawn) if index // 4 != purpose))
        assert not mine & others
    assert all(len(part) == 500 and max(part) < 2**31 for part in drawn)


def test_further_test_episodes_are_test_episodes_that_no_score_was_measured_on():
    further = seeds.further_test_episodes()
    assert len(set(further)) == 500 and all(number >> 28 == seeds.Purpose.TEST for number in further)
    first = seeds.episodes(0, seeds.Purpose.TEST, count=10_000)
    assert first[:100] == seeds.episodes(7, seeds.Purpose.TEST, count=100), "the published ones are the first of these"
    assert not set(further) & set(first)
