"""The fused step of a dream, on buffers that never move: a GPU captures it as a graph, a CPU just calls it.

The layout of the state, and the legend of shapes, are those of `wm/dream/engine.py`. O outputs of a layer of C.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wm.models.mdnrnn import LOG_SIGMA_FLOOR

if TYPE_CHECKING:
    from wm.dream.engine import Dream

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
        self.c, self.z, self.h = self.state[:one].split([hidden, z, hidden])
        self.state[one] = 1.0
        self.act = self.state[one + 1 : one + 1 + actions]
        self.restart = self.state[one + 1 + actions :]
        self.lstm_input, self.heads_input = self.state[hidden:], self.state[hidden + z : one + 1]
        self.control = Controllers(dream, self.state[0 if "c" in dream.inputs else hidden : one + 1])
        self.gates, self.tanh_c = new(4 * hidden, width), new(hidden, width)
        self.heads = new(len(dream.heads), width)
        self.weights = self.heads[: mixtures * z].view(mixtures, z, width)
        self.gaussians = self.heads[mixtures * z : 3 * mixtures * z].view(2, mixtures, z, width)
        self.largest, self.pick, self.picked = new(z, width), new(mixtures, z, width), new(2, z, width)
        self.passed = new(mixtures + 1, z, width)  # is uniform past the component before? 1 first, 0 last
        self.passed[0] = 1.0
        extra = dict(zip(dream.extra_heads, self.heads[3 * mixtures * z :], strict=True))
        self.reward, self.done = extra.get("reward"), extra.get("done")
        self.noise, self.now = new(NOISE_STEPS, 2 * z, episodes), new(1, 2 * z, episodes)
        self.luck = new(2 * z, width)
        self.clock = new(1, dtype=torch.int64)
        self.episode, self.row = new(width, dtype=torch.int64), new(width, dtype=torch.int64)
        self.alive = new(width, dtype=torch.bool)
        self.score, self.length = new(width, dtype=torch.float64), new(width, dtype=torch.int64)
        self.zero = new()
        self._graph = self._capture() if dream.device.type == "cuda" else None

    def begin(self, params: np.ndarray, episode: np.ndarray, starts: Tensor) -> None:
        """Every row at its first frame: params [rows, n], episode [rows] in 0..E-1, first z's [E, Z]."""
        rows = len(params)
        fill = np.concatenate([np.arange(rows), np.zeros(self.width - rows, np.int64)])
        self.control.fill(params[fill])
        self.episode.copy_(torch.from_numpy(episode[fill]))
        self.row.fill_(-1)
        self.row[:rows] = torch.arange(rows)
        self.c.zero_(), self.h.zero_(), self.score.zero_(), self.length.zero_()
        self.z.copy_(starts.t().to(self.z.device)[:, self.episode])
        self.restart.fill_(1.0)
        self.alive.copy_(torch.arange(self.width) < rows)

    def take(self, other: Room) -> Room:
        """Continues the living rows of a wider room in their order; dead ones fill the width."""
        keep = torch.argsort((~other.alive).to(torch.uint8), stable=True)[: self.width]
        pairs = [(self.state, other.state), *zip(self.control.weights, other.control.weights, strict=True)]
        for name in ("episode", "row", "alive", "score", "length"):
            pairs.append((getattr(self, name), getattr(other, name)))
        for mine, its in pairs:
            torch.index_select(its, -1, keep, out=mine)
        self.noise.copy_(other.noise)
        self.clock.copy_(other.clock)
        return self

    def bring(self, noise: np.ndarray) -> None:
        """The luck of the next NOISE_STEPS steps, [NOISE_STEPS, 2, Z, E]: uniform, then normal."""
        noise[:, 1] *= math.sqrt(self.dream.tau)
        self.noise.copy_(torch.from_numpy(noise).flatten(1, 2))
        self.clock.zero_()

    def write(self, scores: np.ndarray, lengths: np.ndarray) -> None:
        """Scores and lengths so far, into the rows' places."""
        row, score, length = (tensor.cpu().numpy() for tensor in (self.row, self.score, self.length))
        used = row >= 0
        scores[row[used]], lengths[row[used]] = score[used], length[used]

    def run(self, steps: int) -> None:
        """Steps every row so many times; a dead one dreams on, but nothing is counted."""
        advance = self._graph.replay if self._graph else self.step
        for _ in range(steps):
            advance()

    def step(self) -> None:
        """C acts, M remembers, the next z is drawn, the heads are counted; nothing waits for the device."""
        self._act()
        self._remember()
        self._draw()
        self._count()
        self.clock.add_(1)

    def _act(self) -> None:
        """C's raw outputs become an action through the world's own `squash`."""
        out = self.control.outputs().t()
        if self.dream.device.type == "cpu":
            self.act.copy_(torch.from_numpy(self.dream.world.squash(out.numpy())).t())
        else:
            self.act.copy_(self.dream.world.squash(out).t())

    def _remember(self) -> None:
        """The LSTM, then all heads in one product (paper, section 2.2)."""
        hidden = self.dream.hidden
        torch.mm(self.dream.lstm, self.lstm_input, out=self.gates)
        self.gates[: 3 * hidden].sigmoid_()
        i, f, o, g = self.gates.chunk(4)
        self.c.mul_(f).addcmul_(i, g.tanh_())
        torch.mul(o, torch.tanh(self.c, out=self.tanh_c), out=self.h)
        self.restart.zero_()
        torch.mm(self.dream.heads, self.heads_input, out=self.heads)

    def _draw(self) -> None:
        """z' = mu_k + sigma_k sqrt(tau) eps with k by inverse distribution: the same as `wm.dream.engine.draw`.

        The component is picked by a product with 0 and 1, which is exact and far faster than a gather.
        """
        torch.index_select(self.noise, 0, self.clock, out=self.now)
        torch.index_select(self.now[0], 1, self.episode, out=self.luck)
        uniform, eps = self.luck.chunk(2)
        weights = self.weights
        weights.sub_(torch.amax(weights, 0, out=self.largest)).exp_()
        for k in range(1, len(weights)):
            weights[k].add_(weights[k - 1])
        torch.mul(uniform, weights[-1], out=self.largest)
        torch.lt(weights[:-1], self.largest, out=self.passed[1:-1])
        torch.sub(self.passed[:-1], self.passed[1:], out=self.pick)
        mu, log_sigma = torch.sum(self.gaussians.mul_(self.pick), 1, out=self.picked)
        torch.addcmul(mu, log_sigma.clamp_min_(LOG_SIGMA_FLOOR).exp_(), eps, out=self.z)

    def _count(self) -> None:
        """Adds the step to the living, then buries the done. Non-finite outputs die with score NaN."""
        blame = self.control.blame()
        reward = blame + 1.0 if self.reward is None else blame.add_(self.reward)
        self.score.add_(torch.where(self.alive, reward, self.zero))
        self.length.add_(self.alive)
        if self.done is not None:
            self.alive.logical_and_(self.done <= 0)
        self.alive.logical_and_(torch.isfinite(self.score))

    def _capture(self) -> torch.cuda.CUDAGraph:
        """The step as one graph; called while the buffers hold nothing yet, since warming up changes them."""
        warm = torch.cuda.Stream()
        warm.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(warm)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph


class Controllers:
    """One controller a row, reading a slice of the state (its last row is the constant 1).

    Args:
        dream: whose layout and inputs these are.
        source: [D + 1, B], the states that C may read; the weight of one that it does not read is 0.
    """

    def __init__(self, dream: Dream, source: Tensor):
        layout, width, new = dream.layout, source.shape[1], _zeros(dream.device)
        self.dream, self.source = dream, source
        units = [layout.hidden, layout.actions] if layout.hidden else [layout.actions]
        depths = [len(source), layout.hidden + 1] if layout.hidden else [len(source)]
        self.weights = [new(out, depth, width) for out, depth in zip(units, depths, strict=True)]
        self.products = [new(depth, width) for depth in depths]
        self.middle = new(layout.hidden + 1, width)
        self.middle[-1] = 1.0
        self.out = new(layout.actions, width)

    def fill(self, params: np.ndarray) -> None:
        """params [B, n]: each row's controller, spread over the rows of the state."""
        layout, count = self.dream.layout, len(params)
        flat, at = torch.from_numpy(params), 0
        for index, weight in enumerate(self.weights):
            last = index == len(self.weights) - 1
            depth = layout.inputs if index == 0 else layout.hidden
            part = flat[:, at : at + len(weight) * depth].view(count, len(weight), depth).permute(1, 2, 0)
            at += len(weight) * depth
            dense = torch.zeros(weight.shape)
            dense[:, self._columns() if index == 0 else slice(depth)] = part
            if layout.bias or not last:
                dense[:, -1] = flat[:, at : at + len(weight)].t()
                at += len(weight)
            weight.copy_(dense)

    def outputs(self) -> Tensor:
        """Raw outputs [A, B]."""
        if len(self.weights) == 1:
            return self._linear(0, self.source, self.out)
        self._linear(0, self.source, self.middle[:-1]).tanh_()
        return self._linear(1, self.middle, self.out)

    def blame(self) -> Tensor:
        """[B]: 0 where the outputs are finite, else NaN."""
        return self.out.mul(0.0).sum(0)

    def _linear(self, layer: int, source: Tensor, out: Tensor) -> Tensor:
        """Every row has its own weights, so this is no matrix product: memory bounds it, not sums."""
        for unit, weight in zip(out, self.weights[layer], strict=True):
            torch.sum(torch.mul(weight, source, out=self.products[layer]), 0, out=unit)
        return out

    def _columns(self) -> Tensor:
        """Where in the source the inputs lie, in C's order."""
        dream, at, places = self.dream, 0, {}
        for name, size in (("c", dream.hidden), ("z", dream.z_size), ("h", dream.hidden)):
            if name != "c" or "c" in dream.inputs:
                places[name] = torch.arange(at, at + size)
                at += size
        return torch.cat([places[name] for name in dream.inputs])


def _zeros(device: torch.device):
    """Makes buffers: zeros of a shape."""
    return lambda *shape, dtype=torch.float32: torch.zeros(shape, dtype=dtype, device=device)
