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
