"""M: an LSTM whose output is a mixture of Gaussians over the next z (paper, section 2.2 and A.2).

Shapes: B batch, T time, Z latent, A action, H hidden, K mixtures. The mixture is per latent dimension: K weights,
means and deviations for each of the Z dimensions, laid out as [..., 3, K, Z] so that everything is contiguous in Z.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from wm.core import weights
from wm.core.config import Config
from wm.models import parts
from wm.models.lstm import LSTM

LOG_SIGMA_FLOOR = -7.0
"""Without a floor a mixture collapses on a repeated value and its likelihood runs away."""
HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class MDNConfig(Config):
    """The shape of M."""

    hidden: int = Field(256, gt=0, le=8192, description="H, size of the LSTM's state (paper: 256; DoomTakeCover 512)")
    mixtures: int = Field(5, gt=0, le=100, description="K, Gaussians per latent dimension (paper: 5)")
    reward_head: bool = Field(
        True, description="predict the step's reward as well (not in the paper; a CarRacing dream needs it)"
    )
    done_head: bool = Field(True, description="predict the end of the episode as well (paper: DoomTakeCover only)")
    done_weight: float = Field(
        10.0, gt=0, description="weight of a positive in the done head's cross-entropy (released code: 10)"
    )
    reward_weight: float = Field(1.0, ge=0, description="weight of the reward head's squared error in the loss")


class Mixture(NamedTuple):
    """Per dimension mixtures of Gaussians; each tensor is [..., K, Z]. `log_pi` is normalised over K."""

    log_pi: Tensor
    mu: Tensor
    log_sigma: Tensor


class Sequences(NamedTuple):
    """A batch of windows cut from concatenated episodes.

    mu, logvar: [B, T + 1, Z] V's posterior of the frame at t; of the last one M is asked, but not told.
    act: [B, T, A]. rew: [B, T] reward of the step. end: [B, T] 1 where the step ended the episode for good.
    restart: [B, T] 1 where the frame is an episode's first. has_next: [B, T] 0 where the frame at t + 1 is not the
    same episode's, so that there is nothing to predict.
    """

    mu: Tensor
    logvar: Tensor
    act: Tensor
    rew: Tensor
    end: Tensor
    restart: Tensor
    has_next: Tensor


class MDNRNN(nn.Module):
    """LSTM with one bias a gate, linear output; 422,368 parameters for CarRacing without the reward and done heads.

    Args:
        config: see `MDNConfig`.
        z_size: Z.
        action_size: A.
        reads_restart: whether the input ends with a restart flag (paper's DoomRNN).
    """

    def __init__(self, config: MDNConfig, z_size: int, action_size: int, reads_restart: bool):
        super().__init__()
        self.config, self.z_size, self.action_size, self.reads_restart = config, z_size, action_size, reads_restart
        self.end_shift = math.log(config.done_weight)  # p(end) = sigmoid(done logit - end_shift); train_mdn measures it
        self.lstm = LSTM(z_size + action_size + int(reads_restart), config.hidden)
        self.mixture = nn.Linear(config.hidden, 3 * config.mixtures * z_size)
        self.reward = nn.Linear(config.hidden, 1) if config.reward_head else None
        self.done = nn.Linear(config.hidden, 1) if config.done_head else None

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """h, c: zeros [B, H]."""
        zeros = self.mixture.weight.new_zeros(batch, self.config.hidden)
        return zeros, zeros.clone()

    def inputs(self, z: Tensor, act: Tensor, restart: Tensor | None = None) -> Tensor:
        """What the LSTM reads: [..., Z + A (+ 1)] from z [..., Z], act [..., A], restart [...]."""
        parts = [z, act] if not self.reads_restart else [z, act, restart[..., None].to(z.dtype)]
        return torch.cat(parts, dim=-1)

    def step(
        self, z: Tensor, act: Tensor, state: tuple[Tensor, Tensor], restart: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step for a batch: z [B, Z], act [B, A], (h, c) each [B, H] -> the next (h, c) (paper, 2.2)."""
        return self.lstm.step(self.inputs(z, act, restart), state)

    def heads(self, h: Tensor) -> tuple[Mixture, Tensor | None, Tensor | None]:
        """h [..., H] -> the mixture over the next z, reward [...] or None, done logit [...] or None."""
        mixture = split_mixture(self.mixture(h), self.config.mixtures, self.z_size)
        reward = self.reward(h).squeeze(-1) if self.reward else None
        done = self.done(h).squeeze(-1) if self.done else None
        return mixture, reward, done

    def loss(
        self, batch: Sequences, state: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor]]:
        """Mean negative log-likelihood of a sampled next z, per dimension, plus the heads' losses.

        z is sampled anew from V's posterior for every batch, so M cannot overfit one draw (paper, A.2); inside a
        window M is asked at t what it is told at t + 1 (released code).

        Returns:
            the loss, {"nll", "reward", "done"} as detached scalars, and the (h, c) to carry to the next window.
        """
        eps = torch.randn(batch.mu.shape, generator=generator, device=batch.mu.device)
        counts = batch.has_next.sum().clamp_min(1.0) * self.z_size, batch.has_next.numel()
        where = parts.slices(len(batch.mu), parts.count(len(batch.mu), batch.mu.device))
        loss, each = parts.summed(
            lambda part: self._loss(
                Sequences(*(tensor[part] for tensor in batch)), (state[0][part], state[1][part]), eps[part], counts
            ),
            where,
            list(self.parameters()),
        )
        heads = {"nll": True, "reward": self.reward, "done": self.done}
        sums = zip(heads, zip(*(losses for losses, _ in each), strict=True), strict=True)
        metrics = {name: sum(values) for name, values in sums if heads[name]}
        h, c = (torch.cat(part) for part in zip(*(states for _, states in each), strict=True))
        return loss, metrics, (h, c)

    def _loss(
        self, batch: Sequences, state: tuple[Tensor, Tensor], eps: Tensor, counts: tuple[Tensor, int]
    ) -> tuple[Tensor, tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]]:
        """What some sequences of a batch contribute to `loss`: that, its parts, and their state; eps [B, T + 1, Z]."""
        z = torch.addcmul(batch.mu, (0.5 * batch.logvar).exp(), eps)
        z, act, rew, end, restart, has_next = (  # time first, as the recurrence goes
            tensor.transpose(0, 1) for tensor in (z, batch.act, batch.rew, batch.end, batch.restart, batch.has_next)
        )
        z, next_z = z[:-1], z[1:]
        h, (h_last, c_last) = self.lstm.unroll(self.inputs(z, act, restart), state, restart)
        heads = [head for head in (self.mixture, self.reward, self.done) if head]
        weight, bias = torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
        rew, end = rew if self.reward else None, end if self.done else None
        loss, *losses = HeadsLoss.apply(h, weight, bias, next_z, has_next, rew, end, self.config, counts)
        return loss, (tuple(losses), (h_last.detach(), c_last.detach()))


def split_mixture(out: Tensor, mixtures: int, z_size: int) -> Mixture:
    """The linear layer's output [..., 3*K*Z] as a mixture; log_pi normalised, log_sigma floored."""
    logit, mu, log_sigma = out.unflatten(-1, (3, mixtures, z_size)).unbind(-3)
    return Mixture(torch.log_softmax(logit, dim=-2), mu, log_sigma.clamp_min(LOG_SIGMA_FLOOR))


def log_likelihood(mixture: Mixture, z: Tensor) -> Tensor:
    """log p(z) under the mixture, per dimension: [..., Z] (Bishop 1994, equation 22, for Gaussian kernels)."""
    scaled = (z.unsqueeze(-2) - mixture.mu) * torch.exp(-mixture.log_sigma)
    return torch.logsumexp(mixture.log_pi - 0.5 * scaled.square() - mixture.log_sigma - HALF_LOG_TWO_PI, dim=-2)


def expectation(mixture: Mixture, tau: float) -> Tensor:
    """The mean [..., Z] of what `draw` draws at temperature tau: the sum over K of softmax(log_pi / tau) mu."""
    return (torch.softmax(mixture.log_pi / tau, dim=-2) * mixture.mu).sum(-2)


def sample(mixture: Mixture, tau: float, generator: torch.Generator | None = None) -> Tensor:
    """z [..., Z] drawn at temperature tau: weights softmax(log_pi / tau), deviations sigma * sqrt(tau) (paper, A.2).

    Raises:
        ValueError: tau is not positive.
    """
    if not tau > 0:
        raise ValueError(f"temperature tau must be positive, not {tau}")
    shape, device = mixture.mu.shape, mixture.mu.device
    uniform = torch.rand((*shape[:-2], shape[-1]), generator=generator, device=device)
    eps = torch.randn((*shape[:-2], shape[-1]), generator=generator, device=device)
    return draw(mixture, tau, uniform, eps)


def draw(mixture: Mixture, tau: float, uniform: Tensor, eps: Tensor) -> Tensor:
    """The next z [..., Z] at temperature tau from a mixture [..., K, Z] and its noise, each [..., Z].

    The component is the first whose cumulative weight, of softmax(log_pi / tau), reaches `uniform`; the
    deviation is sigma * sqrt(tau) (paper, A.2).
    """
    cumulative = torch.softmax(mixture.log_pi / tau, dim=-2).cumsum(-2)
    k = (uniform.unsqueeze(-2) > cumulative[..., :-1, :]).sum(-2, keepdim=True)
    mu, log_sigma = mixture.mu.gather(-2, k).squeeze(-2), mixture.log_sigma.gather(-2, k).squeeze(-2)
    return mu + log_sigma.exp() * math.sqrt(tau) * eps


class HeadsLoss(torch.autograd.Function):
    """All heads and their losses from the LSTM's h, with the gradients in closed form.

    With m = 1 where there is a next frame z' of the same episode, else 0, sums over batch and time, and z' sampled from
    V's posterior of that frame:

        L = 1/(Z max(1, sum m)) sum m sum_Z -log sum_K pi_k N(z'; mu_k, sigma_k^2)      paper, A.2; Bishop 1994, (22)
          + w_r/(B T) sum (r^ - r)^2                                                    w_r: config.reward_weight
          - 1/(B T) sum [w_d d log s(l) + (1 - d) log(1 - s(l))]                        w_d: config.done_weight

    where pi = softmax(logits), r^ is the reward head's output, l the done head's logit, s the logistic function, and
    d = 1 where the episode ended for good. A head that M lacks has no term.

    All is done a slice of (batch, time) pairs that fits the cache at a time, forward and back: the mixtures of a whole
    window, several times as large as all else, never exist. With responsibilities r (Bishop 1994, equations 35 to 37),
    d/dlogit = pi - r, d/dmu = r (mu - z) / sigma^2, d/dlog_sigma = r (1 - ((z - mu) / sigma)^2).
    """

    ROWS = 512  # (batch, time) pairs a slice: about 1 MB at K*Z = 160

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor,
        z: Tensor,
        mask: Tensor,
        rew: Tensor | None,
        end: Tensor | None,
        config: MDNConfig,
        counts: tuple[Tensor, int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """h [..., H], weight [O, H], bias [O] (mixture, then reward, then end), z [..., Z], mask, rew, end [...]
        -> the loss, and its parts before weighting, scalars: nll, reward, end. `counts` are what sums are divided by
        where this is a part of a batch: that of the mixture, then that of the others."""
        k, z_size = config.mixtures, z.shape[-1]
        rows, targets, mask = h.flatten(0, -2), z.reshape(-1, 1, z_size), mask.reshape(-1)
        observed, everything = counts or (mask.sum().clamp_min(1.0) * z_size, len(rows))
        shares = mask / observed
        slots = [
            (column.reshape(-1), kind)
            for column, kind in ((rew, _squared_error), (end, _cross_entropy))
            if column is not None
        ]
        wants = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_h, grad_weight, grad_bias = torch.empty_like(rows), torch.zeros_like(weight), torch.zeros_like(bias)
        totals = {kind: h.new_zeros((), dtype=torch.float64) for kind in (_nll_slice, _squared_error, _cross_entropy)}
        size = HeadsLoss.ROWS if h.device.type == "cpu" else len(rows)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            out = torch.addmm(bias, rows[part], weight.t())
            grad = torch.empty_like(out) if wants else None
            gaussians, grad_gaussians = (
                None if x is None else x[:, : 3 * k * z_size].unflatten(1, (3, k, z_size)) for x in (out, grad)
            )
            totals[_nll_slice] += _nll_slice(gaussians, targets[part], shares[part], grad_gaussians)
            for column, (wanted, kind) in enumerate(slots, 3 * k * z_size):
                loss, slope = kind(out[:, column], wanted[part], config)
                totals[kind] += loss.sum(dtype=torch.float64) / everything
                if wants:
                    torch.div(slope, everything, out=grad[:, column])
            if wants:
                torch.mm(grad, weight, out=grad_h[part])
                torch.addmm(grad_weight, grad.t(), rows[part], out=grad_weight)
                grad_bias += grad.sum(0)
        if wants:
            ctx.save_for_backward(grad_h.view_as(h), grad_weight, grad_bias)
        nll, error, entropy = totals.values()
        weighted = nll + config.reward_weight * error + entropy
        loss, *pieces = (value.to(h.dtype) for value in (weighted, nll, error, entropy))
        ctx.mark_non_differentiable(*pieces)
        return loss, *pieces

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        one = grad_output.item() == 1.0  # as good as always: saves a pass over a large tensor
        return *(grad if one else grad * grad_output for grad in ctx.saved_tensors), *[None] * 6


def _squared_error(out: Tensor, rew: Tensor, config: MDNConfig) -> tuple[Tensor, Tensor]:
    """The reward's squared error of every row [N], and the slope of its weighted one."""
    error = out - rew
    return error.square(), error * (2.0 * config.reward_weight)


def _cross_entropy(logit: Tensor, end: Tensor, config: MDNConfig) -> tuple[Tensor, Tensor]:
    """The end's cross-entropy of every row [N], a positive counting `done_weight` times, and its slope."""
    positive = end * config.done_weight
    either = 1.0 - end + positive
    return F.softplus(logit) * either - positive * logit, torch.sigmoid(logit) * either - positive


def _nll_slice(rows: Tensor, z: Tensor, weight: Tensor, grad: Tensor | None) -> Tensor:
    """Sum of weighted -log p(z) over a slice rows [N, 3, K, Z]; writes its gradient into `grad` if there is one.

    log p(z) = logsumexp(logit + log N(z)) - logsumexp(logit), and r and pi are the two softmaxes: both at once.
    """
    logit, mu, log_sigma = rows.unbind(1)
    minus_log_sigma = log_sigma.neg().clamp_max_(-LOG_SIGMA_FLOOR)
    inverse = minus_log_sigma.exp()
    scaled = (mu - z).mul_(inverse)
    both = torch.stack([logit, minus_log_sigma.add_(logit).addcmul_(scaled, scaled, value=-0.5)], dim=1)  # [N, 2, K, Z]
    largest = both.amax(2, keepdim=True)
    total = both.sub_(largest).exp_().sum(2, keepdim=True)
    log_totals = total.log().add_(largest)
    if grad is not None:
        pi, r = both.mul_(weight[:, None, None, None] / total).unbind(1)
        torch.sub(pi, r, out=grad[:, 0])
        towards = r * scaled
        torch.mul(towards, inverse, out=grad[:, 1])
        spread = torch.addcmul(r, towards, scaled, value=-1.0)
        torch.ops.aten.threshold_backward.grad_input(spread, log_sigma, LOG_SIGMA_FLOOR, grad_input=grad[:, 2])
    minus_log_p = log_totals[:, 0] - log_totals[:, 1] + HALF_LOG_TWO_PI
    return (minus_log_p.sum((1, 2)) * weight).sum(dtype=torch.float64)


def save_mdnrnn(mdnrnn: MDNRNN, world: str, folder: Path) -> None:
    """Writes mdnrnn.safetensors and mdnrnn.json into `folder`."""
    sizes = {"z_size": mdnrnn.z_size, "action_size": mdnrnn.action_size, "reads_restart": mdnrnn.reads_restart}
    about = {"world": world, "config": mdnrnn.config.model_dump(), **sizes}
    if mdnrnn.done:
        about["end_shift"] = mdnrnn.end_shift
    weights.save(folder, weights.MDNRNN_KIND, mdnrnn.state_dict(), about)


def load_mdnrnn(folder: Path) -> MDNRNN:
    """M from `folder`, in evaluation mode. Raises DamagedData where a file is not what its checksum says."""
    about, tensors = weights.load(folder, weights.MDNRNN_KIND)
    module = MDNRNN(MDNConfig(**about["config"]), about["z_size"], about["action_size"], about["reads_restart"])
    module.end_shift = about.get("end_shift", module.end_shift)  # earlier models have no measured one
    return weights.fill(module, tensors)
