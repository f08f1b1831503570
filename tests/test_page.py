"""The page in a real browser: it dreams what Python dreams, everything on it works, and nothing leaves it.

Needs node (the page is built here) and chromium (Debian's), besides what exports need; without one of them these tests
are skipped in a sentence.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from wm.dream.engine import NOISE_STEPS, EpisodeNoise, load_starts
from wm.gym.dream import Dreams
from wm.models.vae import load_vae
from wm.play import agent as agents

onnxscript = pytest.importorskip("onnxscript", reason="the page needs onnxscript: pip install -e '.[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="the page needs onnxruntime: pip install -e '.[export]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="a browser is driven by playwright: pip install playwright"
)

from wm.release import demo, export, page  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
AGENT = Path(__file__).parents[1] / "pretrained" / "car_racing"
STEPS, TAU, SEED = 200, 1.0, 7
PICTURES = (0, 50, 199)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt install chromium"),
    pytest.mark.skipif(
        not page.BUILT.is_file() and shutil.which("npm") is None, reason="there is no node here: apt install nodejs npm"
    ),
]


@pytest.fixture(scope="module")
def dream_page(tmp_path_factory) -> Path:
    """CarRacing's demo, whose recorded episode ends after 60 steps."""
    out = tmp_path_factory.mktemp("page") / "dream.html"
    place = export.find(str(AGENT))
    world = agents.load(place.folder)[0].world
    make = world.make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "make", lambda drawing=None: _Short(make(drawing), 60), raising=False)
        demo.write(place, out)
    return out


class _Short:
    """The same world, in which an episode takes fewer steps."""

    def __init__(self, env, steps: int):
        self.env, self.left = env, steps

    def reset(self, **options):
        return self.env.reset(**options)

    def step(self, act):
        self.left -= 1
        obs, rew, end, trunc, info = self.env.step(act)
        return obs, rew, end, trunc or self.left <= 0, info

    def close(self):
        self.env.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def opened(browser, dream_page):
    """The page, ready, and the addresses that it asked for."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    tab, asked, wrong = context.new_page(), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    tab.goto(dream_page.as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=60_000)
    yield tab
    assert wrong == [], "nothing went wrong on the page"
    assert asked == [dream_page.as_uri()], "nothing but the page itself was asked for"
    context.close()


def dreamed() -> dict[str, np.ndarray]:
    """200 steps of the dream in Python, C driving, and the luck that they had."""
    agent, params, _ = agents.load(AGENT)
    dreams = Dreams(AGENT, TAU, 1, "features", None, STEPS, None)
    dreams.begin(0, SEED)
    luck = EpisodeNoise(SEED, agent.mdnrnn.z_size)
    blocks = np.concatenate([luck.block(index) for index in range(-(-STEPS // NOISE_STEPS))])[:STEPS]
    start = luck.start(*load_starts(AGENT)).numpy()
    zs, rews = [], []
    for _ in range(STEPS):
        act = agent.act(params[None], dreams.z.numpy(), dreams.h.numpy(), dreams.c.numpy())
        rew, _, _ = dreams.step(act)
        zs.append(dreams.z[0].numpy().copy()), rews.append(rew[0])
    return {"start": start, "luck": blocks, "z": np.array(zs), "rew": np.array(rews)}


def test_with_the_same_luck_page_and_python_dream_the_same(opened):
    expected = dreamed()
    given = {
        "z": expected["start"].tolist(),
        "tau": TAU,
        "uniform": expected["luck"][:, 0].ravel().tolist(),
        "normal": expected["luck"][:, 1].ravel().tolist(),
        "frames": list(PICTURES),
    }
    found = opened.evaluate("given => worldModels.replay(given)", given)
    z = np.array(found["z"]).reshape(STEPS, -1)
    assert np.abs(z - expected["z"]).max() < 1e-3
    assert np.abs(np.array(found["reward"]) - expected["rew"]).max() < 1e-3
    before = np.stack([expected["start"] if step == 0 else expected["z"][step - 1] for step in PICTURES])
    with torch.inference_mode():
        pictures = load_vae(AGENT).decode(torch.from_numpy(before)).numpy().reshape(len(PICTURES), -1)
    assert np.abs(np.array(found["frames"]) - pictures).max() <= 2
    assert pictures.std() > 10, "pictures, not one colour"
