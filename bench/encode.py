"""What V and M cost a rollout on one thread: frames encoded and steps remembered a second, beside the bound.

    python -m bench.encode [--json] [--repeats 30]

B batch. The bound is the rate of a large matrix product on one thread, over the operations of a frame or a step
(PyTorch's own count). Everything is told in seconds of this thread's processor, so that other programs count little.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from wm.models.mdnrnn import MDNRNN, MDNConfig
from wm.models.vae import VAE, VAEConfig

PEAK_SIZE = 2048
BATCHES = (1, 8, 32, 64)
Z, ACTIONS = 32, 3


@torch.inference_mode()
def measure(repeats: int = 30) -> dict[str, dict]:
    """Figures of "encode_B" and "step_B": rate a second, and the fraction reached of the bound of the same moment."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae, mdnrnn = VAE(VAEConfig()).eval(), MDNRNN(MDNConfig(), Z, ACTIONS, False).eval()
    left, right = torch.randn(2, PEAK_SIZE, PEAK_SIZE)
    product = torch.empty(PEAK_SIZE, PEAK_SIZE)
    found = {}
    for batch in BATCHES:
        obs = torch.randint(0, 256, (batch, 64, 64, 3), dtype=torch.uint8)
        z, act, state = torch.randn(batch, Z), torch.randn(batch, ACTIONS), mdnrnn.initial_state(batch)
        peak = 2 * PEAK_SIZE**3 / _seconds(lambda: torch.mm(left, right, out=product), 5)
        for name, work, count in (
            ("encode", lambda obs=obs: vae.encode(obs), repeats),
            ("step", lambda z=z, act=act, state=state: mdnrnn.step(z, act, state), 20 * repeats),
        ):
            with FlopCounterMode(display=False) as counter:
                work()
            rate = batch / _seconds(work, count)
            bound = peak * batch / counter.get_total_flops()
            found[f"{name}_{batch}"] = {"rate_per_s": rate, "bound_per_s": bound, "fraction": rate / bound}
    return found


def _seconds(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.thread_time()
        work()
        seconds.append(time.thread_time() - began)
    return median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="of each timing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found = measure(args.repeats)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, figures in found.items():
        print(f"{name:10} " + " ".join(f"{key} {value:10,.3g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
