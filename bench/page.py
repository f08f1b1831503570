"""The page of an agent in chromium: how soon it is ready, what a step costs, and whether it dreams what Python dreams.

    python -m bench.page pretrained/car_racing                     speed, on one core
    python -m bench.page pretrained/car_racing --dreams 600 --tau 1.0 1.15

A step is C, M, the draw and the picture. With `--dreams` so many dreams are dreamed on the page and in Python, each
with its own random numbers, C acting and no pictures: score and survival of both, and the 95% interval of their
difference as a share of Python's mean. Needs playwright and Debian's chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from wm.dream.engine import Dream, DreamRules, load_starts
from wm.models.controller import ControllerSpec
from wm.play import agent as agents
from wm.release import demo, places
from wm.release.places import Place

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
OPENED = 5
STEPS = 2000
APART = 10_000
"""Seeds of Python's dreams begin here; the page draws its own."""


def speed(tab, address: str) -> str:
    """Seconds until a fresh tab can dream (median), steps a second and the 95th percentile of a step."""
    ready = []
    for _ in range(OPENED):
        tab.goto(address)
        tab.wait_for_selector("html[data-ready]", timeout=120_000)
        ready.append(float(tab.get_attribute("html", "data-ready")) / 1000)
    tab.evaluate("() => { worldModels.player.paused = true }")
    tab.wait_for_timeout(5000)  # M listens to the recording first
    times = np.array(tab.evaluate(f"() => worldModels.measure({STEPS})"))
    return (
        f"ready in {np.median(ready):.2f} s ({min(ready):.2f} to {max(ready):.2f} over {OPENED}); "
        f"{1000 * len(times) / times.sum():.0f} steps/s, {np.median(times):.1f} ms a step, "
        f"95th percentile {np.percentile(times, 95):.1f} ms"
    )


def compare(tab, place: Place, count: int, tau: float) -> str:
    """Score and survival of `count` dreams on the page and in Python."""
    agent, params, about = agents.load(place.folder)
    ends = "threshold" if about.get("ends", "threshold") == "threshold" else "drawn"
    spec, reads = ControllerSpec(agent.inputs, agent.layout), "sample" if about["sampled"] else "mean"
    rules = DreamRules(tau, agent.world.spec.max_steps, ends=ends, reads=reads)
    dream = Dream(agent.mdnrnn, load_starts(place.starts), agent.world, spec, rules, threads=1)
    ours = dream.scores(params[None], range(APART, APART + count))
    page = tab.evaluate("([count, tau]) => worldModels.survey(count, tau, 1)", [count, tau])
    lines = [f"tau {tau:g}, {count} dreams each"]
    for name, python, there in zip(("score", "survival"), ours, (page["scores"], page["lengths"]), strict=True):
        a, b = np.asarray(there, float), python[0].astype(float)
        half = 1.96 * np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
        low, high = (100 * (a.mean() - b.mean() + side * half) / abs(b.mean()) for side in (-1, 1))
        lines.append(f"  {name}: page {a.mean():.1f}, Python {b.mean():.1f}; difference {low:+.1f}% to {high:+.1f}%")
    return "\n".join(lines)


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", metavar="AGENT", help="as `wm agent demo` takes it")
    parser.add_argument("--page", type=Path, help="its page, where there is one already")
    parser.add_argument("--dreams", type=int, default=0, help="how many to compare; default: none")
    parser.add_argument("--tau", type=float, nargs="+", default=[1.0], help="temperatures to compare at; default: 1")
    args = parser.parse_args()
    place = places.find(args.agent)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        page = args.page or Path(folder, "dream.html")
        if not args.page:
            print(demo.write(place, page))
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])  # chromium inherits it
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        tab = browser.new_page()
        print(f"{place.name}: {page.stat().st_size / 1e6:.1f} MB; {speed(tab, page.resolve().as_uri())}", flush=True)
        for tau in args.tau if args.dreams else ():
            print(compare(tab, place, args.dreams, tau), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
