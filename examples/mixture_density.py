"""Why M answers with a mixture: a sinusoid turned on its side, where plain regression fails (Bishop 1994, section 5).

    python -m examples.mixture_density [--steps 4000] [--picture docs/pictures/mixture_density.png]

N points, G points of a grid, K mixtures.
"""

from __future__ import annotations

import wm  # noqa: F401  # isort: skip  before NumPy, whose kernels it chooses

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import to_rgb
from torch import Tensor, nn

from wm.models.mdnrnn import HeadsLoss, MDNConfig, Mixture, sample, split_mixture
from wm.pictures import style

MIXTURES, HIDDEN, NOISE = 16, 48, 0.1


def curve(y: Tensor) -> Tensor:
    """The sinusoid, x of y; up to five y share an x."""
    return torch.sin(2.5 * math.pi * y) + 0.5 * y


def inverse_sinusoid(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """x, y [N, 1]: y even in [-1, 1], x = curve(y) with noise."""
    generator = torch.Generator().manual_seed(seed)
    y = 2 * torch.rand(count, 1, generator=generator) - 1
    return curve(y) + NOISE * torch.randn(count, 1, generator=generator), y


def fit(x: Tensor, y: Tensor, steps: int, seed: int) -> tuple[Callable[[Tensor], Mixture], Callable[[Tensor], Tensor]]:
    """Learns y from x twice: as a mixture over y, and as a single number with the least squared error."""
    torch.manual_seed(seed)
    mixture, plain = (
        nn.Sequential(nn.Linear(1, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, out)) for out in (3 * MIXTURES, 1)
    )
    nn.init.uniform_(mixture[2].bias[MIXTURES : 2 * MIXTURES], -1.0, 1.0)  # means start apart
    optimizer = torch.optim.Adam([*mixture.parameters(), *plain.parameters()], lr=1e-2)
    config, everywhere = MDNConfig(mixtures=MIXTURES, reward_head=False, done_head=False), torch.ones(len(y))
    for _ in range(steps):
        nll = HeadsLoss.apply(mixture[:2](x), mixture[2].weight, mixture[2].bias, y, everywhere, None, None, config)[0]
        loss = nll + (plain(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda points: split_mixture(mixture(points), MIXTURES, 1), plain


def picture(
    path: Path,
    x: np.ndarray,
    y: np.ndarray,
    grid: np.ndarray,
    plain: np.ndarray,
    pi: np.ndarray,
    mu: np.ndarray,
    samples: tuple[np.ndarray, np.ndarray],
    title: str = "A sinusoid turned on its side: one x, several y",
) -> None:
    """Why M answers with a mixture: a plain regression beside a mixture density network (paper, A.2).

    Args:
        x, y: [N] data.
        grid: [G] where the networks were asked.
        plain: [G] the plain regression's answer.
        pi, mu: [G, K] the mixture's weights and means.
        samples: (x, y) drawn from the mixture, [S] each.
    """
    with style.styled():
        figure, axes = style.subplots(3, title, size=(11, 3.9), share=True)
        for ax in axes[:2]:
            ax.plot(x, y, ".", color=style.GREY, alpha=0.5, markersize=3.5, markeredgewidth=0, label="data")
        axes[0].plot(grid, plain, color=style.RED, linewidth=2.4, label="prediction")
        style.finish(axes[0], "Plain regression: the average", "x", "linear", legend=True)
        for k in range(mu.shape[1]):
            colour = style.CYCLE[k % len(style.CYCLE)]
            faded = [(*to_rgb(colour), float(weight)) for weight in pi[:, k].clip(0, 1)]
            axes[1].scatter(grid, mu[:, k], c=faded, s=9, linewidths=0)
        style.finish(axes[1], "Mixture: means, by weight", "x", "linear", legend=False)
        axes[2].plot(*samples, ".", color=style.GREEN, alpha=0.5, markersize=3.5, markeredgewidth=0)
        style.finish(axes[2], "Mixture: samples", "x", "linear", legend=False)
        axes[0].set_ylabel("y")
        spread = 0.15 * float(np.ptp(y))
        axes[0].set_ylim(float(y.min()) - spread, float(y.max()) + spread)
        axes[0].set_xlim(float(grid.min()), float(grid.max()))
        style.save(figure, path)


def main() -> None:
    """Fits both and draws them side by side."""
    parser = argparse.ArgumentParser(description="A mixture density network beside plain regression.")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/mixture_density.png"))
    options = parser.parse_args()
    x, y = inverse_sinusoid(1000, seed=0)
    mixture, plain = fit(x, y, options.steps, seed=0)
    grid = torch.linspace(float(x.min()), float(x.max()), 300)[:, None]
    with torch.no_grad():
        at_grid, answer = mixture(grid), plain(grid)
        drawn = sample(mixture(x), 1.0, torch.Generator().manual_seed(2))
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    picture(
        options.picture,
        x[:, 0].numpy(),
        y[:, 0].numpy(),
        grid[:, 0].numpy(),
        answer[:, 0].numpy(),
        at_grid.log_pi.exp()[..., 0].numpy(),
        at_grid.mu[..., 0].numpy(),
        (x[:, 0].numpy(), drawn[:, 0].numpy()),
    )
    print(options.picture)


if __name__ == "__main__":
    main()
