"""How much of what the machine can multiply goes into training V and M, and what their input pipelines cost.

    python -m bench.training [--json] [--threads 2] [--steps 12] [--length 999] [--processor-time]

The real training loop (`wm.stages.training.fit`) on a small data set of made-up episodes. Around every few steps the
rate of a large matrix product is measured with the same threads; a step's fraction is that of its own minute, and the
median counts. The step after a product is left out: the product's threads still spin on the cores for a while. FLOPs
are PyTorch's own count of a whole step. With `--processor-time` one thread is measured in seconds of its processor, so
that other programs on the machine count less.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wm.core import episodes
from wm.core.checkpoints import Checkpoints
from wm.core.journal import Journal
from wm.models.mdnrnn import MDNRNN, MDNConfig
from wm.models.vae import VAE, VAEConfig
from wm.stages.train_mdn import MDNTask, TrainMDNConfig
from wm.stages.train_vae import TrainVAEConfig, VAETask
from wm.stages.training import fit

PEAK_SIZE = 2048
EPISODES, LENGTH = 40, 1000
BATCH, POOL = 100, 16
WARM_UP, BLOCK = 2, 4
ACTIONS, Z = 3, 32


def measure(threads: int = 2, steps: int = 12, length: int = 999, processor_time: bool = False) -> dict[str, dict]:
    """Figures of {"vae", "mdnrnn"}: frames and steps a second, GFLOP of a step, GFLOP/s of it and of the product
    around it, the fraction of that reached, and the input pipeline's share of the time (reading included; of M also
    where the latents, once read, are in memory).

    Args:
        threads: of the processor.
        steps: measured, of each model.
        length: T, steps of a window of M.
        processor_time: count the seconds of this thread's processor instead of the clock's; one thread only.
    Raises:
        ValueError: processor time of more than one thread was asked for.
    """
    if processor_time and threads != 1:
        raise ValueError(f"processor time can be told of 1 thread, not of {threads}: add --threads 1")
    clock = time.thread_time if processor_time else time.perf_counter
    torch.set_num_threads(threads)
    common = {
        "steps": BLOCK * -(-steps // (BLOCK - 1)) + BLOCK + 1,  # one of each block is left out, and the first block
        "batch": BATCH,
        "held_out_every": 10**9,
        "report_every": 10**9,
        "threads": threads,
    }
    vae_config = TrainVAEConfig(**common, pool_episodes=POOL)
    mdn_config = TrainMDNConfig(**common, length=length)
    with tempfile.TemporaryDirectory() as folder:
        frames = _write(Path(folder) / "frames", episodes.frame_columns(ACTIONS))
        latents = _write(Path(folder) / "latents", episodes.latent_columns(Z, ACTIONS))
        torch.manual_seed(0)
        vae, mdnrnn = VAE(VAEConfig()), MDNRNN(MDNConfig(), Z, ACTIONS, False)
        # A pass over a pool of episodes is what reading them is spread over.
        vae_input = _input_seconds(VAETask(_VAEIdle(), frames, vae_config, 0), POOL * LENGTH // BATCH, clock)
        mdn_input = _input_seconds(_forgetful(MDNTask(_Idle(), latents, mdn_config, 0)), 3, clock)
        again = MDNTask(_Idle(), latents, mdn_config, 0)
        _input_seconds(again, 3, clock)  # all of it has been read
        mdn_again = _input_seconds(again, 3, clock)
        found = {
            "vae": _measure(VAETask(vae, frames, vae_config, 0), vae_config, BATCH, vae_input, clock),
            "mdnrnn": _measure(MDNTask(mdnrnn, latents, mdn_config, 0), mdn_config, BATCH * length, mdn_input, clock),
        }
        found["mdnrnn"]["input_share_kept"] = mdn_again * found["mdnrnn"]["steps_per_s"]
        return found


def _forgetful(task: MDNTask) -> MDNTask:
    """Reads every episode each time it comes, as where a data set is larger than what is kept in memory."""
    task.streams.room = 0
    return task


class _Idle(nn.Module):
    """A model that does nothing with its batch: what is left is the input pipeline."""

    def initial_state(self, batch: int) -> None:
        return None

    def loss(self, *_: object) -> tuple:
        return None, {}, None


class _VAEIdle(nn.Module):
    def loss(self, *_: object) -> tuple:
        return None, {}


class _Timed:
    """A task that looks at the clock between the training loop's steps, and at a matrix product's rate every few."""

    def __init__(self, task, clock: Callable[[], float]):
        self.task, self.model, self.clock, self.threads = task, task.model, clock, torch.get_num_threads()
        self.blocks: list[list[float]] = []  # seconds of the steps between two products
        self.peaks: list[float] = []
        self.flops = self.steps = 0
        self._left, self._right = torch.randn(2, PEAK_SIZE, PEAK_SIZE)
        self._product = torch.empty(PEAK_SIZE, PEAK_SIZE)
        self._began = 0.0
        self._counter: FlopCounterMode | None = None

    def step(self) -> tuple:
        place = (self.steps - 1) % BLOCK  # of the step that has just ended, behind a product
        if self.steps > WARM_UP and place:
            self.blocks[-1].append(self.clock() - self._began)
        if self._counter:
            self._counter.__exit__(None, None, None)
            torch.set_num_threads(self.threads)
            self.flops, self._counter = self._counter.get_total_flops(), None
        if self.steps % BLOCK == 0:
            self.peaks.append(self._peak())
            self.blocks.append([])
        if self.steps == 0:  # the first step is counted, and warms up
            self._counter = FlopCounterMode(display=False)
            torch.set_num_threads(1)  # it sees only what this thread does
            self._counter.__enter__()
        self.steps += 1
        self._began = self.clock()
        return self.task.step()

    def held_out(self) -> dict[str, float]:
        return {}

    def _peak(self) -> float:
        def rate() -> float:
            began = self.clock()
            torch.mm(self._left, self._right, out=self._product)
            return 2 * PEAK_SIZE**3 / (self.clock() - began)

        return max(rate() for _ in range(4))


def _measure(task, config, frames: int, input_seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    timed = _Timed(task, clock)
    with tempfile.TemporaryDirectory() as folder:
        fit(timed, config, Checkpoints(Path(folder) / "checkpoints"), Journal(Path(folder) / "metrics.jsonl"), "bench")
    # The product before a block of steps and the one after it bracket it.
    brackets = list(zip(timed.blocks, timed.peaks, timed.peaks[1:], strict=False))
    pairs = [(second, (before + after) / 2) for block, before, after in brackets for second in block]
    fractions = [timed.flops / second / peak for second, peak in pairs]
    peaks = [peak for _, peak in pairs]
    step = median(second for second, _ in pairs)
    return {
        "frames_per_s": frames / step,
        "steps_per_s": 1 / step,
        "gflop_per_step": timed.flops / 1e9,
        "gflop_per_s": timed.flops / step / 1e9,
        "peak_gflop_per_s": median(peaks) / 1e9,
        "fraction_of_peak": median(fractions),
        "best_fraction": max(fractions),
        "input_share": input_seconds / step,
    }


def _input_seconds(task, steps: int, clock: Callable[[], float]) -> float:
    """Seconds a step without a model, reading included."""
    began = clock()
    for _ in range(steps):
        task.step()
    return (clock() - began) / steps


def _write(folder: Path, columns: tuple[episodes.Column, ...]) -> episodes.EpisodeSet:
    """A data set of made-up episodes: frames of a few hundred colours with some grain, latents of noise."""
    rng, shards = np.random.default_rng(0), []
    for index in range(EPISODES // 8):
        shard = episodes.Shard(columns, level=3 if columns[0].name == "obs" else 0)  # as the stages write them
        for _ in range(8):
            episode = {column.name: _made_up(rng, column) for column in columns}
            episode["end"][-1] = True
            shard.add(episode)
        folder.mkdir(exist_ok=True)
        shards.append(episodes.store_shard(folder, index, *shard.finish()))
    episodes.write_manifest(folder, "car_racing", columns, shards)
    return episodes.EpisodeSet(folder)


def _made_up(rng: np.random.Generator, column: episodes.Column) -> np.ndarray:
    if column.name == "obs":
        coarse = rng.integers(0, 200, (LENGTH, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
        coarse[:, ::4, ::4] += rng.integers(0, 50, (LENGTH, 16, 16, 3), np.uint8)
        return coarse
    if column.name == "end":
        return np.zeros(LENGTH, bool)
    return rng.standard_normal((LENGTH, *column.shape)).astype(column.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12, help="measured, of each model")
    parser.add_argument("--length", type=int, default=999, help="steps of a window of M")
    parser.add_argument("--processor-time", action="store_true", help="with --threads 1, on a busy machine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found = measure(args.threads, args.steps, args.length, args.processor_time)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for model, figures in found.items():
        for name, value in figures.items():
            print(f"{model:7} {name:18} {value:12,.4g}")


if __name__ == "__main__":
    main()
