"""The fused step of a dream, on buffers that never move: a GPU captures it as a graph, a CPU just calls it.

The layout of the state, the rules of ends, and the legend of shapes are those of `wm/dream/engine.py`. O outputs of a
layer of C.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm.models.controller import ControllerSpec
from wm.models.mdnrnn import LOG_SIGMA_FLOOR, MDNRNN
from wm.worlds.base import symexp

NOISE_STEPS = 64
"""Steps whose noise is drawn at once."""
LEAST_SURVIVAL = 0.01
"""Where ends are expected, a row that has survived with a smaller probability is not dreamed on."""


@dataclass(frozen=True)
class FusedWeights:
    """M as the two matrices that a step multiplies, and the sizes that say how their rows and columns are read.

    Attributes:
        lstm: [4H, Z + H + 1 + A (+ 1)]: the gates i, f, o, g from z, h, the constant 1, the action, the restart flag;
            with `reads` "mean" z comes last.
        heads: [3KZ (+ 1) (+ 1), H + 1]: the mixture, its logits divided by tau, then `extra_heads`, from h and 1.
        extra_heads: those that M has and the dream needs, of "reward" and "done", in this order.
        z_size, hidden, mixtures, actions: Z, H, K, A.
        tau: temperature.
        symlog_rewards: the reward head predicts the symlog of rewards.
        ends: the rule of ends.
        reads: whether C reads the drawn z ("sample") or the mixture's mean ("mean").
        end_shift: what the done logit is lowered by to be that of p(end).
    """

    lstm: Tensor
    heads: Tensor
    extra_heads: tuple[str, ...]
    z_size: int
    hidden: int
    mixtures: int
    actions: int
    tau: float
    symlog_rewards: bool
    ends: str
    reads: str
    end_shift: float

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        mdnrnn: MDNRNN,
        tau: float,
        reward: str,
        device: torch.device,
        symlog_rewards: bool = False,
        ends: str = "threshold",
        reads: str = "sample",
    ) -> FusedWeights:
        """M's weights on a device; biases are columns, for the constant 1. A reward of "survival" needs no head."""
        z, mixtures = mdnrnn.z_size, mdnrnn.config.mixtures
        reads_z, reads_act = mdnrnn.lstm.weight_x.split([z, len(mdnrnn.lstm.weight_x) - z])
        rows = [reads_z, mdnrnn.lstm.weight_h, mdnrnn.lstm.bias[None], reads_act]
        rows = torch.cat(rows if reads == "sample" else [*rows[1:], rows[0]])
        i, f, g, o = rows.t().chunk(4)
        lstm = torch.cat([i, f, o, g]).to(device)
        wanted = {"mixture": mdnrnn.mixture, "reward": mdnrnn.reward, "done": mdnrnn.done}
        if reward == "survival":
            del wanted["reward"]
        present = {name: head for name, head in wanted.items() if head is not None}
        columns = [torch.cat([head.weight, head.bias[:, None]], dim=1) for head in present.values()]
        heads = torch.cat(columns).to(device)
        heads[: mixtures * z] /= tau  # the first third of the mixture: the components' logits
        sizes = z, mdnrnn.config.hidden, mixtures, mdnrnn.action_size
        rules = tau, symlog_rewards, ends, reads
        return cls(lstm, heads, tuple(present)[1:], *sizes, *rules, mdnrnn.end_shift)


class DreamBatch:
    """A batch of dreams of one width, and its buffers.

    Args:
        weights: M.
        spec: of the controllers.
        squash: turns raw outputs [B, A] into actions: arrays on a CPU, tensors on a GPU.
        width: B; rows beyond those in use are dead from the start.
        episodes: E, whose noise the rows share.
    """

    def __init__(
        self, weights: FusedWeights, spec: ControllerSpec, squash: Callable[..., Any], width: int, episodes: int
    ):
        self.fused, self.squash, self.width = weights, squash, width
        z, hidden, mixtures, actions = weights.z_size, weights.hidden, weights.mixtures, weights.actions
        one, device = 2 * hidden + z, weights.lstm.device
        new = _zeros(device)
        apart = weights.reads == "mean"
        rows = hidden + weights.lstm.shape[1]
        self.state = new(rows + z if apart else rows, width)
        self.c, self.seen, self.h = self.state[:one].split([hidden, z, hidden])
        self.z = self.state[rows:] if apart else self.seen
        self.state[one] = 1.0
        self.act = self.state[one + 1 : one + 1 + actions]
        self.restart = self.state[one + 1 + actions : rows]
        self.lstm_input, self.heads_input = self.state[hidden + z * apart :], self.state[hidden + z : one + 1]
        self.control = BatchControllers(spec, {"c": hidden, "z": z, "h": hidden}, self.state[: one + 1])
        self.gates, self.tanh_c = new(4 * hidden, width), new(hidden, width)
        self.heads = new(len(weights.heads), width)
        self.weights = self.heads[: mixtures * z].view(mixtures, z, width)
        self.gaussians = self.heads[mixtures * z : 3 * mixtures * z].view(2, mixtures, z, width)
        self.largest, self.pick, self.picked = new(z, width), new(mixtures, z, width), new(2, z, width)
        self.passed = new(mixtures + 1, z, width)  # is uniform past the component before? 1 first, 0 last
        self.passed[0] = 1.0
        extra = dict(zip(weights.extra_heads, self.heads[3 * mixtures * z :], strict=True))
        self.reward, self.done = extra.get("reward"), extra.get("done")
        drawn = 2 * z + (weights.ends == "drawn")  # numbers a step, the last of which ends
        self.noise, self.noise_now = new(NOISE_STEPS, drawn, episodes), new(1, drawn, episodes)
        self.row_noise = new(drawn, width)
        self.clock = new(1, dtype=torch.int64)
        self.episode, self.row = new(width, dtype=torch.int64), new(width, dtype=torch.int64)
        self.alive = new(width, dtype=torch.bool)
        self.score, self.length = new(width, dtype=torch.float64), new(width, dtype=torch.int64)
        self.survival = new(width)
        self.zero = new()
        self._graph = self._capture() if device.type == "cuda" else None

    def begin(self, params: np.ndarray, episode: np.ndarray, starts: Tensor, seen: Tensor) -> None:
        """Every row at its first frame: params [rows, n], episode [rows] in 0..E-1, first z's and V's means [E, Z]."""
        rows = len(params)
        fill = np.concatenate([np.arange(rows), np.zeros(self.width - rows, np.int64)])
        self.control.fill(params[fill])
        self.episode.copy_(torch.from_numpy(episode[fill]))
        self.row.fill_(-1)
        self.row[:rows] = torch.arange(rows)
        self.c.zero_(), self.h.zero_(), self.score.zero_(), self.length.zero_()
        if self.fused.reads == "mean":
            self.seen.copy_(seen.t().to(self.z.device)[:, self.episode])
        self.z.copy_(starts.t().to(self.z.device)[:, self.episode])
        self.survival.fill_(1.0)
        self.restart.fill_(1.0)
        self.alive.copy_(torch.arange(self.width) < rows)

    def continue_from(self, wider: DreamBatch) -> DreamBatch:
        """Takes over the living rows of a wider batch in their order; dead ones fill the width."""
        keep = torch.argsort((~wider.alive).to(torch.uint8), stable=True)[: self.width]
        pairs = [(self.state, wider.state), *zip(self.control.weights, wider.control.weights, strict=True)]
        for name in ("episode", "row", "alive", "score", "length", "survival"):
            pairs.append((getattr(self, name), getattr(wider, name)))
        for target, source in pairs:
            torch.index_select(source, -1, keep, out=target)
        self.noise.copy_(wider.noise)
        self.clock.copy_(wider.clock)
        return self

    def load_noise(self, noise: np.ndarray, ends: np.ndarray | None = None) -> None:
        """That of the next NOISE_STEPS steps, [NOISE_STEPS, 2, Z, E]: uniform, then normal; where ends are drawn also
        the uniform numbers that do it, [NOISE_STEPS, E]."""
        noise[:, 1] *= math.sqrt(self.fused.tau)
        luck = torch.from_numpy(noise).flatten(1, 2)
        self.noise[:, : luck.shape[1]].copy_(luck)
        if self.fused.ends == "drawn":
            self.noise[:, -1].copy_(torch.from_numpy(ends))
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
        if out.device.type == "cpu":
            self.act.copy_(torch.from_numpy(self.squash(out.numpy())).t())
        else:
            self.act.copy_(self.squash(out).t())

    def _remember(self) -> None:
        """The LSTM, then all heads in one product (paper, section 2.2)."""
        torch.mm(self.fused.lstm, self.lstm_input, out=self.gates)
        self.gates[: 3 * self.fused.hidden].sigmoid_()
        i, f, o, g = self.gates.chunk(4)
        self.c.mul_(f).addcmul_(i, g.tanh_())
        torch.mul(o, torch.tanh(self.c, out=self.tanh_c), out=self.h)
        self.restart.zero_()
        torch.mm(self.fused.heads, self.heads_input, out=self.heads)

    def _draw(self) -> None:
        """z' = mu_k + sigma_k sqrt(tau) eps with k by inverse distribution: the same as `wm.models.mdnrnn.draw`.

        The component is picked by a product with 0 and 1, which is exact and far faster than a gather.
        """
        torch.index_select(self.noise, 0, self.clock, out=self.noise_now)
        torch.index_select(self.noise_now[0], 1, self.episode, out=self.row_noise)
        uniform, eps = self.row_noise[: 2 * self.fused.z_size].chunk(2)
        weights = self.weights
        weights.sub_(torch.amax(weights, 0, out=self.largest)).exp_()
        if self.fused.reads == "mean":
            torch.mul(weights[0], self.gaussians[0, 0], out=self.seen)
            for k in range(1, len(weights)):
                self.seen.addcmul_(weights[k], self.gaussians[0, k])
        for k in range(1, len(weights)):
            weights[k].add_(weights[k - 1])
        if self.fused.reads == "mean":
            self.seen.div_(weights[-1])
        torch.mul(uniform, weights[-1], out=self.largest)
        torch.lt(weights[:-1], self.largest, out=self.passed[1:-1])
        torch.sub(self.passed[:-1], self.passed[1:], out=self.pick)
        mu, log_sigma = torch.sum(self.gaussians.mul_(self.pick), 1, out=self.picked)
        torch.addcmul(mu, log_sigma.clamp_min_(LOG_SIGMA_FLOOR).exp_(), eps, out=self.z)

    def _count(self) -> None:
        """Adds the step to the living, then ends those that are done. Non-finite outputs end with score NaN."""
        failed = self.control.zero_or_nan()
        predicted = symexp(self.reward) if self.fused.symlog_rewards and self.reward is not None else self.reward
        reward = failed + 1.0 if predicted is None else failed.add_(predicted)
        if self.fused.ends == "expected":
            reward.mul_(self.survival)
        self.score.add_(torch.where(self.alive, reward, self.zero))
        self.length.add_(self.alive)
        if self.done is not None:
            self.alive.logical_and_(self._goes_on())
        self.alive.logical_and_(torch.isfinite(self.score))

    def _goes_on(self) -> Tensor:
        """[B]: whether a row is dreamed on, by the rule of ends; asked where M tells of ends."""
        done: Any = self.done
        if self.fused.ends == "threshold":
            return done <= 0
        if self.fused.ends == "drawn":
            return self.row_noise[-1] >= torch.sigmoid(done - self.fused.end_shift)
        self.survival.mul_(torch.sigmoid(self.fused.end_shift - done))
        return self.survival >= LEAST_SURVIVAL

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


class BatchControllers:
    """One controller a row, reading a slice of the state whose last row is the constant 1.

    Args:
        spec: of the controllers.
        sizes: how many rows of the state each of "c", "z" and "h" has, in the state's order.
        state: [rows of sizes + 1, B]. The weight of a row that C does not read is 0; c is left out if it reads none.
    """

    def __init__(self, spec: ControllerSpec, sizes: dict[str, int], state: Tensor):
        self.layout, self.inputs = spec.layout, spec.inputs
        self.sizes = {name: size for name, size in sizes.items() if name != "c" or "c" in spec.inputs}
        self.source = state[len(state) - 1 - sum(self.sizes.values()) :]
        layout, width, new = spec.layout, state.shape[1], _zeros(state.device)
        units = [layout.hidden, layout.actions] if layout.hidden else [layout.actions]
        depths = [len(self.source), layout.hidden + 1] if layout.hidden else [len(self.source)]
        self.weights = [new(out, depth, width) for out, depth in zip(units, depths, strict=True)]
        self.products = [new(depth, width) for depth in depths]
        self.middle = new(layout.hidden + 1, width)
        self.middle[-1] = 1.0
        self.out = new(layout.actions, width)

    def fill(self, params: np.ndarray) -> None:
        """params [B, n]: each row's controller, spread over the rows of the state."""
        layout, count = self.layout, len(params)
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

    def zero_or_nan(self) -> Tensor:
        """[B]: 0 where the outputs are finite, else NaN."""
        return self.out.mul(0.0).sum(0)

    def _linear(self, layer: int, source: Tensor, out: Tensor) -> Tensor:
        """Every row has its own weights, so this is no matrix product: memory bounds it, not sums."""
        for unit, weight in zip(out, self.weights[layer], strict=True):
            torch.sum(torch.mul(weight, source, out=self.products[layer]), 0, out=unit)
        return out

    def _columns(self) -> Tensor:
        """Where in the source the inputs lie, in C's order."""
        ends = np.cumsum(list(self.sizes.values()))
        places = {name: torch.arange(end - self.sizes[name], end) for name, end in zip(self.sizes, ends, strict=True)}
        return torch.cat([places[name] for name in self.inputs])


def _zeros(device: torch.device) -> Callable[..., Tensor]:
    """Makes buffers: zeros of a shape."""
    return lambda *shape, dtype=torch.float32: torch.zeros(shape, dtype=dtype, device=device)
