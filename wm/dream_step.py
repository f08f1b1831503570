"""The one fused step of a dream, on buffers that never move: what a GPU captures as a graph, and a CPU just calls.

The layout of the state, and the legend of shapes, are those of `wm/dream.py`. O outputs of a layer of C.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wm.mdnrnn import LOG_SIGMA_FLOOR

if TYPE_CHECKING:
    from wm.dream import Dream

NOISE_STEPS = 64
"""Steps whose noise is drawn at once."""


class Room:
    """A batch of dreams of one width, and its buffers.

    Args:
        dream: whose weights and sizes these are.
        width: B; rows beyond those in use are dead from the start.
        episodes: E, whose noise the rows share.
    """

    def __init__(self, dream: Dream, width: int, episodes: int):
        self.dream, self.width = dream, width
        z, hidden, mixtures, actions = dream.z_size, dream.hidden, dream.mixtures, dream.actions
        one = 2 * hidden + z
        new = _zeros(dream.device)
        self.state = new(hidden + dream.lstm.shape[1], width)
        self.c, self.z, self.h = self.state[:hidden], self.state[hidden:hidden + z], self.state[hidden + z:one]
        self.state[one] = 1.0
        self.act = self.state[one + 1:one + 1 + actions]
        self.restart = self.state[one + 1 + actions:]
        self.lstm_input, self.heads_input = self.state[hidden:], self.state[hidden + z:one + 1]
        self.control = Controllers(dream, self.state[0 if "c" in dream.inputs else hidden:one + 1])
        self.gates, self.tanh_c = new(4 * hidden, width), new(hidden, width)
        self.heads = new(len(dream.heads), width)
        self.weights = self.heads[:mixtures * z].view(mixtures, z, width)
        self.gaussians = self.heads[mixtures * z:3 * mixtures * z].view(2, mixtures, z, width)
        self.largest, self.pick, self.picked = new(z, width), new(mixtures, z, width), new(2, z, width)
        self.passed = new(mixtures + 1, z, width)  # whether the uniform number is beyond the component before: 1 first, 0 last
        self.passed[0] = 1.0
        extra = dict(zip(dream.extra_heads, self.heads[3 * mixtures * z:], strict=True))
        self.reward, self.done = extra.get("reward"), extra.get("done")
        self.noise, self.now = new(NOISE_STEPS, 2 * z, episodes), new(1, 2 * z, episodes)
        self.luck = new(2 * z, width)
        self.clock = new(1, dtype=torch.int64)
        self.episode, self.row = new(width, dtype=torch.int64), new(width, dtype=torch.int64)
        self.alive = new(width, dtype=torch.bool)
        self.score, self.length = new(width, dtype=torch.float64), new(width, dtype=torch.int64)
        self._nothing = new(())
        self._graph: torch.cuda.CUDAGraph | None = None

    def begin(self, params: np.ndarray, episode: np.ndarray, starts: Tensor) -> None:
        """Every row at its first frame: params [rows, n], episode [rows] in 0..E-1, starts [E, Z] the first z's."""
        rows = len(params)
        fill = np.concatenate([np.arange(rows), np.zeros(self.width - rows, np.int64)])
        self.control.fill(params[fill])
        self.episode.copy_(torch.from_numpy(episode[fill]))
        self.row.copy_(torch.from_numpy(fill))
        self.c.zero_(), self.h.zero_(), self.score.zero_(), self.length.zero_()
        self.z.copy_(starts.t().to(self.z.device)[:, self.episode])
        self.restart.fill_(1.0)
        self.alive.copy_(torch.arange(self.width) < rows)

    def take(self, other: Room) -> Room:
        """Continues the living rows of a wider room in their order; dead ones fill the width."""
        keep = torch.argsort((~other.alive).to(torch.uint8), stable=True)[:self.width]
        pairs = [(self.state, other.state), *zip(self.control.weights, other.control.weights, strict=True)]
        pairs += [(getattr(self, name), getattr(other, name)) for name in ("episode", "row", "alive", "score", "length")]
        for mine, theirs in pairs:
            torch.index_select(theirs, -1, keep, out=mine)
        self.noise.copy_(other.noise)
        self.clock.copy_(other.clock)
        return self

    def bring(self, noise: np.ndarray) -> None:
        """The luck of the next NOISE_STEPS steps, [NOISE_STEPS, 2, Z, E]: uniform, then normal."""
        noise[:, 1] *= math.sqrt(self.dream.tau)
        self.noise.copy_(torch.from_numpy(noise).flatten(1, 2))
        self.clock.zero_()

    def write(self, scores: np.ndarray, lengths: np.ndarray) -> None:
        """Scores and lengths so far, into the places of the rows; those that fill the width lie first, and are overwritten."""
        row = self.row.flip(0).cpu().numpy()
        scores[row], lengths[row] = self.score.flip(0).cpu().numpy(), self.length.flip(0).cpu().numpy()

    def run(self, steps: int) -> None:
        """Steps every row so many times; a dead one dreams on, and nothing is counted."""
        if self.dream.device.type == "cuda":
            self._graph = self._graph or self._capture()
        for _ in range(steps):
            self._graph.replay() if self._graph else self.step()
