"""Episodes inside M: candidates times episodes as one batch, one fused step (paper, sections 4 and A.2).

A dream starts from a stored first frame: z is drawn from V's posterior, the LSTM's state is zero. Each step C
acts on what it reads, M takes z and the action to the next state, and the next z is drawn from the mixture at
temperature tau.

What C reads of z (`READS`). "sample": the z that was drawn (paper). "mean": what the world shows a C that is given V's
mean, which is a dimension that V does not use standing still: the mixture's mean at tau (and at the first frame V's),
which is the expectation of the sample, so that C loses that noise and no more. M goes on from the drawn z in both.

When a dream ends (`ENDS`), with M's done logit l. "threshold": where l > 0 (the released code). A positive counted w =
`done_weight` times when M learned, so that is where p(end) > 1 / (1 + w), for sure, and never below: a policy that
stays below is immortal. "drawn": with probability p = sigmoid(l - `end_shift`), by a number of the episode's own; the
shift is ln w, which undoes the weight, or what `train_mdn` measured on held-out episodes (`wm.models.ends`).
"expected": never, but what a step pays is weighted by the probability of having lived until then, the product of
1 - p: the mean of "drawn" over these numbers, with much less spread; a row whose probability is below
`LEAST_SURVIVAL` is left. The last two depart from the paper.

What a row of the batch goes through is a function of (M, its controller, its episode's seed) alone: the noise
of a step belongs to the episode's seed, so all candidates of a generation have the same noise, and a CPU works
on chunks whose width is a multiple of `WIDTH`, each on one thread, so that neither threads nor neighbours
change a bit.

Everything is laid out feature by feature, [features, B]: each gate, each mixture component and each state is
then one contiguous slab, and the state is one matrix whose slices are the inputs of C, of the LSTM and of the
heads:

    rows:   c [H] | z [Z] | h [H] | 1 | act [A] | restart [0 or 1]
    C reads ^-----------------------^ (from z on, if it does not read c)
    LSTM reads      ^-----------------------------------------------^
    heads read              ^-------^

Where C reads the mean, that stands in z's place, and z comes after restart: the LSTM then reads from h on.

B rows of the batch (an episode of a candidate each), P candidates, E episodes, N stored frames, Z latent,
H hidden, A action, K mixtures.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.core import weights
from wm.core.errors import DamagedData
from wm.dream.step import NOISE_STEPS, DreamBatch, FusedWeights
from wm.models.controller import ControllerSpec
from wm.models.mdnrnn import MDNRNN
from wm.worlds.base import World

CHECK_STEPS = 16
"""Steps between two counts of the living: to count them waits for the device."""
WIDTH = 32
"""Batches on a CPU are multiples of this, filled up with dead rows: whole vector registers."""
CHUNK = 256
"""Rows that a CPU thread plays at once; measured (python -m bench.dream)."""
GPU_CHUNK = 16384
GPU_WIDTH = 256
"""On a GPU a batch shrinks by halves, down to this: each width is a captured graph."""
REWARDS = ("head", "survival")
ENDS = ("threshold", "drawn", "expected")
READS = ("sample", "mean")


class DreamNoise:
    """The randomness of one dreamed episode, a function of its seed: its first frame, and all noise after.

    Args:
        seed: of the episode, not negative.
        z_size: Z.
    """

    def __init__(self, seed: int, z_size: int):
        self.seed, self.z_size = int(seed), z_size

    def start(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """The first z [Z], drawn from the posterior of one of the N stored frames, mu and logvar [N, Z]."""
        rng = self._rng(0)
        index = int(rng.integers(len(mu)))  # the first of these numbers, as in `mean`
        eps = torch.from_numpy(rng.standard_normal(self.z_size, np.float32)).to(mu)
        return torch.addcmul(mu[index], (0.5 * logvar[index]).exp(), eps)

    def mean(self, mu: Tensor) -> Tensor:
        """V's mean [Z] of the frame that `start` starts from."""
        return mu[int(self._rng(0).integers(len(mu)))]

    def ends(self, index: int) -> np.ndarray:
        """[NOISE_STEPS] float32 uniform in [0, 1), of the steps of `block`: what ends the episode where that is drawn.

        These are numbers of their own: those of `block` are the same under every rule of ends.
        """
        return self._rng(index, 1).random(NOISE_STEPS, np.float32)

    def block(self, index: int) -> np.ndarray:
        """[NOISE_STEPS, 2, Z] float32 from step index * NOISE_STEPS on: uniform in [0, 1), normal."""
        rng, shape = self._rng(index + 1), (NOISE_STEPS, self.z_size)
        return np.stack([rng.random(shape, np.float32), rng.standard_normal(shape, np.float32)], axis=1)

    def _rng(self, place: int, use: int = 0) -> np.random.Generator:
        """Philox is counter-based: every place has its own numbers, without drawing those before it."""
        return np.random.Generator(np.random.Philox(key=[self.seed, 0xD3EA], counter=[0, 0, use, place]))


def load_starts(folder: Path) -> tuple[Tensor, Tensor]:
    """mu, logvar [N, Z]: V's posteriors of real episodes' first frames, as `train_mdn` left them in `folder`.

    Raises:
        DamagedData: the file is missing, or holds something else.
    """
    _, tensors = weights.load(folder, weights.STARTS_KIND)
    mu, logvar = tensors.get("mu"), tensors.get("logvar")
    if mu is None or logvar is None or mu.ndim != 2 or mu.shape != logvar.shape or not len(mu):
        raise DamagedData(f"starts.safetensors in {folder} must hold mu and logvar [N, Z]: run train_mdn again")
    return mu.float(), logvar.float()


def takes_tensors(world: World, actions: int) -> bool:
    """Whether the world's `squash` works on tensors of a device; on a CPU it is always given arrays."""
    try:
        return isinstance(world.squash(torch.zeros(1, actions, device="meta")), Tensor)
    except (TypeError, NotImplementedError, RuntimeError):
        return False


def default_reward(mdnrnn: MDNRNN, reward: str | None) -> str:
    """What a dream's reward is: `reward`, or for None M's reward head where it has one, else survival.

    Raises:
        ValueError: reward is unknown, or M lacks the head.
    """
    if reward is None:
        return "survival" if mdnrnn.reward is None else "head"
    if reward not in REWARDS:
        raise ValueError(f"unknown reward {reward!r}: expected one of {', '.join(REWARDS)}")
    if reward == "head" and mdnrnn.reward is None:
        raise ValueError("reward 'head' needs a model that has one: set reward_head, or use 'survival'")
    return reward


@dataclass(frozen=True)
class DreamRules:
    """What holds in a dream.

    Attributes:
        tau: temperature.
        max_steps: steps after which an episode ends anyway.
        reward: "head" for M's prediction, "survival" for 1 a step; None is the head where M has one.
        ends: when it ends, of `ENDS`; without a done head only max_steps ends a dream.
        reads: what C reads of z, of `READS`.
    Raises:
        ValueError: one of these is impossible.
    """

    tau: float
    max_steps: int
    reward: str | None = None
    ends: str = "threshold"
    reads: str = "sample"

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"temperature tau must be positive, not {self.tau}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}: expected 1 or more")
        if self.ends not in ENDS:
            raise ValueError(f"unknown rule of ends {self.ends!r}: expected one of {', '.join(ENDS)}")
        if self.reads not in READS:
            raise ValueError(f"a controller can't read {self.reads!r}: expected one of {', '.join(READS)}")


class Dream:
    """Scores controllers inside M.

    Args:
        mdnrnn: M.
        starts: mu and logvar [N, Z] of the first frames that dreams start from (`load_starts`).
        world: whose `squash` turns C's outputs into actions; on a GPU it must take tensors.
        spec: how a flat vector is read as a controller, and what that reads.
        rules: temperature, length and reward.
        device: "cpu" or "cuda".
        threads: CPU threads, each with chunks of its own. The scores do not depend on it.
    Raises:
        ValueError: an argument is impossible, or M lacks the reward head.
    """

    def __init__(
        self,
        mdnrnn: MDNRNN,
        starts: tuple[Tensor, Tensor],
        world: World,
        spec: ControllerSpec,
        rules: DreamRules,
        *,
        device: str = "cpu",
        threads: int = 1,
    ):
        self.world, self.spec, self.rules, self.threads = world, spec, rules, threads
        self.reward, self.device = default_reward(mdnrnn, rules.reward), torch.device(device)
        self.mu, self.logvar = (start.float().cpu() for start in starts)
        self._check(mdnrnn)
        rule = world.spec.symlog_rewards, rules.ends, rules.reads
        self.weights = FusedWeights.of(mdnrnn, rules.tau, self.reward, self.device, *rule)
        self._batches: dict[tuple[int, int], DreamBatch] = {}

    def _check(self, mdnrnn: MDNRNN) -> None:
        """The errors that a user can cause."""
        layout = self.spec.layout
        sizes = {"z": mdnrnn.z_size, "h": mdnrnn.config.hidden, "c": mdnrnn.config.hidden}
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}: expected 1 or more")
        if unknown := [name for name in self.spec.inputs if name not in sizes]:
            raise ValueError(f"unknown controller input {unknown[0]!r}: expected one of {', '.join(sizes)}")
        inputs = sum(sizes[name] for name in self.spec.inputs)
        if (layout.inputs, layout.actions) != (inputs, mdnrnn.action_size):
            raise ValueError(
                f"a controller of {layout.inputs} inputs and {layout.actions} actions "
                f"does not fit this model, which gives it {inputs} and takes {mdnrnn.action_size}"
            )
        if self.mu.shape[1:] != (mdnrnn.z_size,):
            raise ValueError(f"starts are {list(self.mu.shape)}: expected [N, {mdnrnn.z_size}] for this model")
        if self.device.type != "cpu" and not takes_tensors(self.world, mdnrnn.action_size):
            raise ValueError(
                f"the squash of {type(self.world).__name__} reads NumPy arrays only: make it "
                f"take tensors too, or dream on the CPU rather than on {self.device}"
            )

    def ending(self, ends: str) -> Dream:
        """The same dream with another rule of ends."""
        other = copy.copy(self)
        other.rules = replace(self.rules, ends=ends)
        other.weights, other._batches = replace(self.weights, ends=ends), {}
        return other

    def scores(self, params: np.ndarray, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Dreams every episode with every candidate.

        Args:
            params: [P, n] float32 controllers.
            seeds: E seeds; the same seed is the same first z and the same noise for every candidate.
        Returns:
            scores [P, E] float64, NaN where a controller's output was not finite; lengths [P, E] int64 steps dreamed.
        Raises:
            ValueError: the controllers have another size than the layout says.
        """
        params = np.ascontiguousarray(params, np.float32)
        if params.ndim != 2 or params.shape[1] != self.spec.layout.size:
            raise ValueError(f"expected controllers [P, {self.spec.layout.size}], not {list(params.shape)}")
        shape = len(params), len(seeds)
        candidate, episode = (index.ravel() for index in np.indices(shape))
        noise = [DreamNoise(seed, self.weights.z_size) for seed in seeds]
        width = CHUNK if self.device.type == "cpu" else GPU_CHUNK

        def play(start: int) -> tuple[np.ndarray, np.ndarray]:
            part = slice(start, start + width)
            which, place = np.unique(episode[part], return_inverse=True)
            return self._play(params[candidate[part]], place, [noise[e] for e in which])

        played = self._spread(play, range(0, len(candidate), width))
        scores, lengths = (np.concatenate(arrays).reshape(shape) for arrays in zip(*played, strict=True))
        return scores, lengths

    def _spread(self, play: Any, starts: range) -> list[Any]:
        """`play` of each chunk, on `threads` threads of which each keeps torch to itself."""
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(play, starts))
        finally:
            torch.set_num_threads(before)  # torch takes the last call of any thread as the default of new ones

    @torch.inference_mode()
    def _play(self, params: np.ndarray, episode: np.ndarray, noise: list[DreamNoise]) -> tuple[np.ndarray, np.ndarray]:
        """One chunk: params [B, n], each row's place in `noise` [B] -> scores and lengths [B]."""
        scores, lengths, max_steps = np.zeros(len(params)), np.zeros(len(params), np.int64), self.rules.max_steps
        batch = self._batch(self._width(len(params)), len(noise))
        starts, seen = (
            torch.stack(rows)
            for rows in zip(*((one.start(self.mu, self.logvar), one.mean(self.mu)) for one in noise), strict=True)
        )
        batch.begin(params, episode, starts, seen)
        for step in range(0, max_steps, CHECK_STEPS):
            if step % NOISE_STEPS == 0:
                self._load(batch, noise, step // NOISE_STEPS)
            batch.run(min(CHECK_STEPS, max_steps - step))
            alive = int(batch.alive.sum())
            if alive == 0:
                break
            if (width := self._width(alive)) < batch.width:
                batch.write(scores, lengths)
                batch = self._batch(width, len(noise)).continue_from(batch)
        batch.write(scores, lengths)
        return scores, lengths

    def _load(self, batch: DreamBatch, noise: list[DreamNoise], index: int) -> None:
        """Gives a batch the noise of its next steps."""
        drawn = self.rules.ends == "drawn"
        ends = np.stack([one.ends(index) for one in noise], axis=-1) if drawn else None
        batch.load_noise(np.stack([one.block(index) for one in noise], axis=-1), ends)

    def _width(self, rows: int) -> int:
        """Width of the batch that holds so many living rows."""
        if self.device.type == "cpu":
            return -(-rows // WIDTH) * WIDTH
        return max(GPU_WIDTH, 1 << (rows - 1).bit_length())

    def _batch(self, width: int, episodes: int) -> DreamBatch:
        """Buffers for so many rows; on a GPU the same ones every time: its graphs know them by address."""
        parts = self.weights, self.spec, self.world.squash, width, episodes
        if self.device.type == "cpu":
            return DreamBatch(*parts)
        if (width, episodes) not in self._batches:
            self._batches[width, episodes] = DreamBatch(*parts)
        return self._batches[width, episodes]
