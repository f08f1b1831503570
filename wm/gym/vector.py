"""The fast CarRacing and TakeCover, several at once: `gymnasium.make_vec("wm.gym:wm/CarRacing-v0", num_envs=8)`.

They are Gymnasium's own vector environments: in processes of their own where there are cores for them, else one after
the other. Both give the same episodes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from wm.play import cluster

NEXT_STEP = AutoresetMode.NEXT_STEP


def car_racing(num_envs: int = 1, autoreset_mode: AutoresetMode | str = NEXT_STEP, **options: Any) -> VectorEnv:
    """`wm/CarRacing-v0`, `num_envs` times.

    Args:
        autoreset_mode: when a place whose episode has ended is reset: Gymnasium's "NextStep", "SameStep" or "Disabled".
        options: as `wm.worlds.car_racing.world.FastCarRacing` takes them.
    """
    return _several("wm/CarRacing-v0", num_envs, autoreset_mode, options)


def car_racing_96(num_envs: int = 1, autoreset_mode: AutoresetMode | str = NEXT_STEP, **options: Any) -> VectorEnv:
    """`wm/CarRacing96-v3`, `num_envs` times; options as Gymnasium's `CarRacing-v3` takes them."""
    return _several("wm/CarRacing96-v3", num_envs, autoreset_mode, options)


def take_cover(num_envs: int = 1, autoreset_mode: AutoresetMode | str = NEXT_STEP, **options: Any) -> VectorEnv:
    """`wm/TakeCover-v0`, `num_envs` times."""
    return _several("wm/TakeCover-v0", num_envs, autoreset_mode, options)


def _several(name: str, num_envs: int, mode: AutoresetMode | str, options: dict[str, Any]) -> VectorEnv:
    makers, mode = [partial(gymnasium.make, f"wm.gym:{name}", **options)] * num_envs, AutoresetMode(mode)
    if num_envs == 1 or cluster.workers() == 1:
        return SyncVectorEnv(makers, autoreset_mode=mode)
    # A fork would have the locks of torch's threads, and not the threads.
    return AsyncVectorEnv(makers, context="forkserver", autoreset_mode=mode)
