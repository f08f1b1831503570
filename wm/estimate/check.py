"""`wm world check`: what can be known of a world before a run. What is wrong is one sentence that says what to change.

All that plays runs in a process of its own: an environment may crash it, or never come back.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from wm import worlds
from wm.core import seeds, watchdog
from wm.core.errors import UserError
from wm.estimate import baselines
from wm.pictures import mosaics
from wm.play import rollout, sameness
from wm.play.cluster import Cluster
from wm.worlds import contract
from wm.worlds.base import World, check_picture

PATIENCE = 180.0
"""Seconds without a word after which an environment counts as stuck."""
RESETS, RESET_SECONDS = 1000, 30.0
WARM_RESETS = 20
"""After which memory is looked at first: what is made once is no leak."""
LEAK = 50e3
"""Bytes that a reset may leave: 5 GB over a search of 100,000 episodes."""
SPEED_SECONDS = 4.0
SCORE_SECONDS = 45.0
"""About so long the random policy and constants are played, on fewer episodes where an episode is slow."""
EPISODES = 20
KEY = 5
"""Where the seeds of these episodes are, beside those of `collect`."""
SHOWN = 6
SIDE = 192
"""Height and width of a shown picture, in pixels."""

Say = Callable[[str], None]


def check(name: str, out: Path) -> Iterator[tuple[str, bool]]:
    """A line for everything that is looked at, and whether it is sound; writes a picture.

    Args:
        name: an entry of `worlds`; `params.load` was called.
        out: the picture, a PNG.
    """
    try:
        world = worlds.get(name)
    except (UserError, ValueError) as error:
        yield str(error), False
        return
    spec = world.spec
    yield f"{name}: actions of {spec.action_size} numbers, episodes of {spec.max_steps:,} steps at most", True
    if world.recordings:
        yield f"it is recordings in {world.recordings}: `wm data show` says what is in them", True
        return
    yield from _apart(_look, name, str(out))


def _look(name: str, out: str, say: Say) -> None:
    """Everything that plays; what is wrong ends it as a UserError."""
    world = worlds.get(name)
    for part in (contract.check_spec, contract.check_squash, lambda world: contract.check_explorer(world, 7)):
        try:
            part(world)
        except AssertionError as error:
            raise UserError(f"the world {name} breaks its contract: {error}") from None
    (seed,) = seeds.episodes(0, seeds.Purpose.EXPLORATION, 0, KEY, count=1)
    sameness.check(world, seed)
    say("the same seed is the same episode, and nothing is left when it is closed")
    say(_other_seeds(world, seed))
    pace, seen = _speed(world, seed)
    say(f"{1 / pace[1]:,.0f} steps a second in one process, {1000 * pace[0]:.0f} ms a reset")
    say(_pictures(world, seed, Path(out)))
    say(_changing(world, seen))
    say(_memory(world))
    rollout.close_environments()
    _scores(world, pace, say)


def _other_seeds(world: World, seed: int) -> str:
    env = world.checked()
    try:
        first, other = env.reset(seed=seed)[0], env.reset(seed=seed + 1)[0]
    finally:
        env.close()
    if np.array_equal(first, other):
        return "note: another seed begins with the same frame: if nothing else differs, all episodes are one"
    return "another seed is another episode"


def _speed(world: World, seed: int) -> tuple[tuple[float, float], np.ndarray]:
    """Seconds of a reset and of a step, and the frames [T, 64, 64, 3] of what was played, 600 at most."""
    (env,) = rollout.environments(world, None, 1)
    policy, began = world.explorer(np.random.default_rng(seed)), time.perf_counter()
    frames: list[Any] = []
    resets = steps = 0
    resetting = stepping = 0.0
    while time.perf_counter() - began < SPEED_SECONDS or not steps:
        at = time.perf_counter()
        frame, _ = env.reset(seed=seed + resets)
        resetting, resets, over = resetting + time.perf_counter() - at, resets + 1, False
        while not over and (time.perf_counter() - began < SPEED_SECONDS or not steps):
            act, at = policy(frame), time.perf_counter()
            frame, _, end, trunc, _ = env.step(act)
            stepping, steps, over = stepping + time.perf_counter() - at, steps + 1, end or trunc
            if len(frames) < 600:
                frames.append(frame)
    return (resetting / resets, stepping / steps), np.stack(frames)


def _changing(world: World, frames: np.ndarray) -> str:
    """The share of frames that differ from the one before."""
    if len(frames) < 2:
        return "too few frames were seen to say whether they change"
    share = float((frames[1:] != frames[:-1]).any((1, 2, 3)).mean())
    if not share:
        raise UserError(
            f"no frame of the world {world.spec.name} changed in {len(frames)} steps of the random policy: V has "
            "nothing to see: show what happens in its picture, or crop less of it"
        )
    return f"{100 * share:.0f}% of frames differ from the one before ({len(frames)} steps of the random policy)"


def _pictures(world: World, seed: int, out: Path) -> str:
    """What the environment shows above what V will see, from start to end of an episode's first part."""
    (env,) = rollout.environments(world, None, 1)
    policy = world.explorer(np.random.default_rng(seed))
    rows: tuple[list[Any], list[Any]] = [], []
    frame, _ = env.reset(seed=seed)
    every = max(1, min(world.spec.max_steps, 200) // SHOWN)
    for step in range(every * SHOWN):
        if step % every == 0:
            if (shown := env.render()) is None:
                shown = frame
            check_picture(shown, world.spec.name)
            rows[0].append(cv2.resize(shown, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            rows[1].append(cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST))
        frame, _, end, trunc, _ = env.step(policy(frame))
        if end or trunc:
            break
    title = f"{world.spec.name}: its picture (squeezed to a square), and below what V will see"
    out.parent.mkdir(parents=True, exist_ok=True)
    mosaics.contact_sheet(np.stack([*rows[0], *rows[1]]), out, columns=len(rows[0]), title=title)
    return f"what V will see, beside what the environment shows: {out}"


def _memory(world: World) -> str:
    """What resets leave behind."""
    (env,) = rollout.environments(world, None, 1)
    began, before = time.perf_counter(), 0.0
    count = 0
    while count < RESETS + WARM_RESETS and (time.perf_counter() - began < RESET_SECONDS or count <= WARM_RESETS + 1):
        if count == WARM_RESETS:
            before = _held()
        env.reset(seed=count)
        count += 1
    done, left = count - WARM_RESETS, _held() - before
    over = f"over {done:,} resets" + (f" (as many as {RESET_SECONDS:.0f} s let)" if done < RESETS else "")
    if left > 10e6 and left / done > LEAK:
        raise UserError(
            f"the world {world.spec.name} keeps {left / 1e6:.0f} MB {over}, {left / done / 1e3:.0f} kB each: let go in "
            "`reset` of what the episode before made"
        )
    return f"memory grows by {max(left, 0) / 1e6:.1f} MB {over}"


def _held() -> float:
    """Bytes of this process and those below it."""
    one = psutil.Process()
    return float(sum(part.memory_info().rss for part in (one, *one.children(recursive=True))))


def _scores(world: World, pace: tuple[float, float], say: Say) -> None:
    """The random policy's and the best constant action's score."""
    name = world.spec.name
    with Cluster(1) as cluster:
        numbers = seeds.episodes(0, seeds.Purpose.EXPLORATION, 0, KEY, count=EPISODES)
        few, lengths = baselines.random_scores(name, numbers[:3], cluster)
        each = pace[0] + float(lengths.mean()) * pace[1]
        episodes = int(np.clip(SCORE_SECONDS / 4 / each, 3, EPISODES))
        random, _ = baselines.random_scores(name, numbers[:episodes], cluster) if episodes > 3 else (few, lengths)
        say(f"scores of {episodes} episodes:{'':6}mean   95% interval")
        say(f"  {'the random policy':22}{baselines.mean_and_interval(random)}")
        constant = baselines.best_constant(name, int(np.clip(SCORE_SECONDS / 2 / each, 1, 150)), cluster)
        held = baselines.scores_of(name, constant.act[None], numbers[:episodes], cluster)[0]
    act = ", ".join(f"{number:g}" for number in np.round(constant.act, 2))
    say(
        f"  {'the best constant':22}{baselines.mean_and_interval(held)}\n"
        f"  the constant is [{act}], of {constant.tried} that were tried in {constant.episodes} episodes"
    )
    if np.ptp(np.concatenate([random, held])) == 0:
        say("note: all these scores are equal: a search may find nothing to select")


def _apart(look: Callable[..., None], *arguments: str) -> Iterator[tuple[str, bool]]:
    """What `look` says, from a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    listener, teller = context.Pipe(duplex=False)
    known = worlds.registered()
    process = context.Process(target=_run, args=(teller, watchdog.ticket(), known, look, arguments), daemon=False)
    process.start()
    teller.close()
    name = arguments[0]
    try:
        while True:
            if not listener.poll(PATIENCE):
                yield (
                    f"the world {name} said nothing for {PATIENCE:.0f} s: its environment does not come back from "
                    "reset or step, or is too slow to learn in",
                    False,
                )
                return
            word = listener.recv()
            if word is None:
                return
            yield word
            if not word[1]:
                return
    except EOFError:
        process.join(5)
        how = f"signal {-process.exitcode}" if (process.exitcode or 0) < 0 else f"exit code {process.exitcode}"
        yield f"the world {name} ended the process that it was played in ({how}): see what it said above", False
    finally:
        for one in _family(process):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
                one.kill()
        process.join(5)


def _family(process: Any) -> list[psutil.Process]:
    try:
        one = psutil.Process(process.pid)
        return [*one.children(recursive=True), one]
    except psutil.NoSuchProcess:
        return []


def _run(
    teller: Connection,
    parent: str,
    known: Mapping[str, tuple[str, Mapping[str, Any]]],
    look: Callable[..., None],
    arguments: tuple[str, ...],
) -> None:
    os.environ[watchdog.VARIABLE] = parent
    watchdog.start()
    for name, (entry_point, options) in known.items():
        worlds.register(name, entry_point, options)
    try:
        look(*arguments, lambda text: teller.send((text, True)))
        teller.send(None)
    except UserError as error:
        teller.send((str(error), False))
    teller.close()
    os._exit(0)  # past threads that an environment leaves
