"""How fast a dream is, next to the loop that everybody writes and to what the machine can multiply.

    python -m bench.dream [--json] [--repeats 5] [--gpu]

The engine plays a population of 64 with 16 episodes each, none of which ends early. The peer is the paper's
pseudo-code: one dream at a time, `torch.nn.LSTM` stepped with a batch of one, on one thread. The bound is
the rate of a large matrix product on as many threads: the fraction says how much of it the products of a
dream step reach, with all that goes on around them. Rates are medians, measured in turn, repeat by repeat. With
`--gpu` a third engine dreams on the GPU, each candidate `GPU_EPISODES` episodes; its peer is the same loop.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace

import numpy as np
import torch

from wm.dream.engine import Dream, DreamRules
from wm.models.controller import ControllerSpec, Layout
from wm.models.mdnrnn import MDNRNN, MDNConfig, sample, split_mixture

POPULATION, EPISODES, GPU_EPISODES = 64, 16, 256
THREADS = (1, 2)
SIZES = {  # hidden -> Z, A, what C reads, steps of an episode, steps of the loop
    256: (32, 3, ("z", "h"), 128, 400),
    512: (64, 1, ("z", "c", "h"), 48, 200),
}
PEAK_SIZE = 2048


class _Tanh:
    """A world as far as the engine knows one."""

    spec = SimpleNamespace(symlog_rewards=False)

    def squash(self, out: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        return out.tanh() if isinstance(out, torch.Tensor) else np.tanh(out)


def measure(repeats: int = 5, gpu: bool = False) -> dict[str, dict]:
    """Per hidden size: steps a second of the loop and of the engine, their ratio, the fraction of the bound.

    Engine and bound are lists over `THREADS`; `bound` is in GFLOP/s of fp32, `flops` what the products of one
    step of one dream cost. With `gpu` also `gpu` (steps a second) and `gpu_ratio`.
    """
    return {f"hidden_{hidden}": _measure(hidden, repeats, gpu) for hidden in SIZES}


def _measure(hidden: int, repeats: int, gpu: bool) -> dict:
    z_size, actions, inputs, steps, loop_steps = SIZES[hidden]
    torch.manual_seed(0)
    mdnrnn = MDNRNN(MDNConfig(hidden=hidden, reward_head=False), z_size, actions, False).eval()
    mdnrnn.done.bias.data.fill_(-1e6)
    depth = z_size + hidden * (len(inputs) - 1)
    layout = Layout(inputs=depth, actions=actions)
    starts = torch.zeros(1, z_size), torch.zeros(1, z_size)
    spec, rules = ControllerSpec(inputs, layout), DreamRules(tau=1.0, max_steps=steps, reward="survival")
    dreams = [Dream(mdnrnn, starts, _Tanh(), spec, rules, threads=count) for count in THREADS]
    on_gpu = Dream(mdnrnn.to("cuda"), starts, _Tanh(), spec, rules, device="cuda") if gpu else None
    params = np.random.default_rng(0).normal(0, 0.1, (POPULATION, layout.size)).astype(np.float32)
    loop = Loop(hidden, z_size, actions, inputs, layout)
    flops = 2 * (dreams[0].weights.lstm.numel() + dreams[0].weights.heads.numel())
    seconds: dict[object, list[float]] = {}
    for repeat in range(repeats + 1):
        timed = {"loop": _threaded(1, lambda: loop.play(loop_steps))}
        for count, dream in zip(THREADS, dreams, strict=True):
            timed["engine", count] = _time(lambda dream=dream: dream.scores(params, range(EPISODES)))
            timed["bound", count] = _threaded(count, _product())
        if on_gpu:
            timed["gpu"] = _time(lambda: on_gpu.scores(params, range(GPU_EPISODES)))
        if repeat:  # the first warms up
            for key, value in timed.items():
                seconds.setdefault(key, []).append(value)
    rows = POPULATION * EPISODES * steps
    engine = [rows / median(seconds["engine", count]) for count in THREADS]
    bound = [2 * PEAK_SIZE**3 / median(seconds["bound", count]) for count in THREADS]
    slow = loop_steps / median(seconds["loop"])
    rate = POPULATION * GPU_EPISODES * steps / median(seconds["gpu"]) if on_gpu else None
    return {
        "loop": slow,
        "engine": engine,
        "ratio": [fast / slow for fast in engine],
        "bound": [value / 1e9 for value in bound],
        "flops": flops,
        "fraction": [fast * flops / peak for fast, peak in zip(engine, bound, strict=True)],
    } | ({"gpu": rate, "gpu_ratio": rate / slow} if on_gpu else {})


class Loop:
    """One dream, step by step: `torch.nn.LSTM`, the mixture's linear layer, a sample, C."""

    def __init__(self, hidden: int, z_size: int, actions: int, inputs: tuple[str, ...], layout: Layout):
        self.hidden, self.z_size, self.inputs = hidden, z_size, inputs
        self.lstm = torch.nn.LSTM(z_size + actions, hidden)
        self.mixture, self.done = torch.nn.Linear(hidden, 15 * z_size), torch.nn.Linear(hidden, 1)
        self.controller = torch.nn.Linear(layout.inputs, actions)

    @torch.inference_mode()
    def play(self, steps: int, tau: float = 1.0) -> int:
        """Dreams `steps` steps or until M says done; returns how many it survived."""
        z, h, c = torch.randn(1, 1, self.z_size), *torch.zeros(2, 1, 1, self.hidden)
        alive = 0
        for _ in range(steps):
            states = {"z": z, "h": h, "c": c}
            act = torch.tanh(self.controller(torch.cat([states[name] for name in self.inputs], dim=-1)))
            _, (h, c) = self.lstm(torch.cat([z, act], dim=-1), (h, c))
            z = sample(split_mixture(self.mixture(h), 5, self.z_size), tau)
            alive += int(self.done(h).item() < 1e6)
        return alive


def _product() -> Callable[[], object]:
    a, b = torch.randn(2, PEAK_SIZE, PEAK_SIZE)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _threaded(count: int, job: Callable[[], object]) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    seconds = _time(job)
    torch.set_num_threads(before)
    return seconds


def _time(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def main() -> None:
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--repeats", type=int, default=5, help="whose median is taken")
    parser.add_argument("--gpu", action="store_true", help="also on the GPU, which has to be there")
    options = parser.parse_args()
    if options.gpu and not torch.cuda.is_available():
        parser.error("--gpu: PyTorch finds no GPU here")
    measured = measure(options.repeats, options.gpu)
    if options.json:
        print(json.dumps(measured))
        return
    for name, row in measured.items():
        print(f"{name}: step-by-step loop {row['loop']:,.0f} steps/s")
        for index, count in enumerate(THREADS):
            print(
                f"  engine on {count} thread{'s' * (count > 1)}: {row['engine'][index]:,.0f} steps/s, "
                f"{row['ratio'][index]:.1f}x the loop, {row['fraction'][index]:.0%} of "
                f"{row['bound'][index]:.0f} GFLOP/s"
            )
        if options.gpu:
            device = torch.cuda.get_device_name()
            print(f"  engine on {device}: {row['gpu']:,.0f} steps/s, {row['gpu_ratio']:,.0f}x the loop")


if __name__ == "__main__":
    main()
