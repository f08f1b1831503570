"""Measures TakeCover: the random policies' scores, the speed, and what a finer resolution would change.

    python bench/take_cover.py [--episodes 100] [--drawings]

`--drawings` compares the resolutions instead of the policies.
"""

from __future__ import annotations

import argparse
import time

import gymnasium
import numpy as np
import psutil

from wm import worlds
from wm.worlds.take_cover.world import TakeCoverEnv

PAPER = {1: "202 ± 79 measured before, 210 ± 108 in the paper", 10: "285 ± 147 measured before"}


def play(env: gymnasium.Env, seed: int, hold: int) -> tuple[float, list[np.ndarray]]:
    """Score and frames of one episode of the random policy; a function of seed and hold alone."""
    policy = worlds.get("take_cover").explorer(np.random.default_rng([seed, hold]), hold=hold, lean=0.0)
    obs, _ = env.reset(seed=seed)
    frames, score, over = [obs], 0.0, False
    while not over:
        obs, rew, end, trunc, _ = env.step(policy(obs))
        frames.append(obs)
        score, over = score + rew, end or trunc
    return score, frames


def clock() -> float:
    """CPU seconds of this process and its engines: they take turns, so an idle machine needs as long."""
    engines = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(times.user + times.system for times in engines)


def compare_policies(episodes: int) -> None:
    """Prints mean ± std of the score, with a new action each tic and with held actions."""
    env = worlds.get("take_cover").make()
    env.reset(seed=0)
    for hold, known in PAPER.items():
        start = clock()
        scores = np.array([play(env, seed, hold)[0] for seed in range(episodes)])
        speed = scores.sum() / (clock() - start)
        print(
            f"hold 1-{hold}: {scores.mean():.0f} ± {scores.std():.0f} over {episodes} episodes, "
            f"standard error {scores.std() / episodes**0.5:.0f}, {scores.min():.0f} to {scores.max():.0f}; "
            f"{speed:.0f} tics a CPU second ({known})"
        )
    env.close()


def compare_drawings(episodes: int) -> None:
    """Prints each resolution's speed, and how its frames differ from the finest's on the same episodes."""
    runs = {}
    for name in ("640x480", "320x240", "160x120"):
        env = TakeCoverEnv(name)
        env.reset(seed=0)
        start = clock()
        played = [play(env, seed, 10) for seed in range(episodes)]
        speed = sum(score for score, _ in played) / (clock() - start)
        frames = np.concatenate([frames for _, frames in played]).astype(np.int16)
        runs[name] = [score for score, _ in played], frames
        fine_scores, fine = runs["640x480"]
        assert runs[name][0] == fine_scores, "the resolution changed the game"
        gap = np.abs(frames - fine)
        motion = np.abs(np.diff(frames, axis=0)).mean()
        rms = np.square(gap.astype(float)).mean() ** 0.5
        print(
            f"{name}: {speed:.0f} tics a CPU second; differs from 640x480 by {gap.mean():.2f} of 255, "
            f"RMS {rms:.1f}; from the frame before by {motion:.2f}"
        )
        env.close()


def main() -> None:
    """Parses the command line and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100, help="how many")
    parser.add_argument("--drawings", action="store_true", help="compare resolutions")
    args = parser.parse_args()
    if args.drawings:
        compare_drawings(max(1, args.episodes // 10))
    else:
        compare_policies(args.episodes)


if __name__ == "__main__":
    main()
