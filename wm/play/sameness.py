"""Is the same seed the same episode, and is an environment gone when it is closed? Asked before a world is played.

All that this repository promises of a run rests on it: that it can go on after a kill, and be made again to the bit.
"""

from __future__ import annotations

import threading

import gymnasium
import numpy as np
import psutil

from wm.core import watchdog
from wm.core.errors import UserError
from wm.worlds.base import FRAME_SHAPE, World

STEPS = 64
"""Of the episode that is played twice, at most."""
PATIENCE = 3.0
"""Seconds that threads and processes have to end after `close`."""


def check(world: World, seed: int) -> None:
    """Plays the beginning of an episode in two environments, with the same random actions, and closes them.

    Args:
        seed: of the episode and of the actions.
    Raises:
        UserError: a frame, a reward or an end differs; a thread or a process goes on after `close`.
    """
    threads, processes = set(threading.enumerate()), _children()
    first, second = world.checked(), world.checked()
    try:
        _compare(world, first, second, seed)
    finally:
        first.close()
        second.close()
    _check_gone(world.spec.name, threads, processes)


def _compare(world: World, first: gymnasium.Env, second: gymnasium.Env, seed: int) -> None:
    policy = world.explorer(np.random.Generator(np.random.Philox(key=[seed, 0xE7])))
    second.reset(seed=seed + 1)  # what was played before must not matter
    seen, other = first.reset(seed=seed)[0], second.reset(seed=seed)[0]
    _same(world, seed, 0, ("frame", seen, other))
    for step in range(1, min(STEPS, world.spec.max_steps) + 1):
        act = policy(seen if seen is not None else np.zeros(FRAME_SHAPE, np.uint8))
        (seen, *told, _), (other, *other_told, _) = first.step(act), second.step(act)
        parts = zip(("reward", "end", "truncation"), told, other_told, strict=True)
        _same(world, seed, step, ("frame", seen, other), *parts)
        if told[1] or told[2]:
            return


def _same(world: World, seed: int, step: int, *parts: tuple) -> None:
    for name, one, other in parts:
        if not np.array_equal(one, other):
            raise UserError(
                f"the world {world.spec.name} gave two {name}s at step {step} of the episode with seed {seed}, played "
                "twice with the same actions: take every random number of its environment from the generator that "
                "`reset(seed=…)` makes (`self.np_random`)"
            )


def _children() -> set[int]:
    """Processes below this one, without those that Python itself keeps."""
    kept = ("resource_tracker", "forkserver")
    found = set()
    for one in psutil.Process().children(recursive=True):
        try:
            if one.status() != psutil.STATUS_ZOMBIE and not any(word in " ".join(one.cmdline()) for word in kept):
                found.add(one.pid)
        except psutil.Error:
            continue
    return found


def _check_gone(name: str, threads: set[threading.Thread], processes: set[int]) -> None:
    for thread in set(threading.enumerate()) - threads:
        if not thread.daemon:
            thread.join(PATIENCE)
        if thread.is_alive() and not thread.daemon:
            watchdog.LEFT_BEHIND.append(thread)
            raise UserError(f"the world {name} keeps the thread {thread.name!r} after `close`: end it there")
    if left := _children() - processes:
        _, alive = psutil.wait_procs([psutil.Process(pid) for pid in left if psutil.pid_exists(pid)], PATIENCE)
        if still := [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
            words = " ".join(still[0].cmdline())[:80]
            for one in still:
                one.kill()
            raise UserError(f"the world {name} keeps the process {still[0].pid} ({words}) after `close`: end it there")
