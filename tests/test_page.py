"""The page in a real browser: it dreams what Python dreams, everything on it works, and nothing leaves it.

Needs the page, which any `wm agent demo` builds, and a chromium (Debian's), besides what exports need; without one of
them these tests are skipped in a sentence.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_agent
import torch
from gymnasium.wrappers import TimeLimit

from wm.dream.engine import NOISE_STEPS, DreamNoise, load_starts
from wm.gym.dream import Dreams
from wm.models.vae import load_vae
from wm.play import agent as agents
from wm.views import report

onnxscript = pytest.importorskip("onnxscript", reason="the page needs onnxscript: pip install -e '.[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="the page needs onnxruntime: pip install -e '.[export]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="a browser is driven by playwright: pip install playwright"
)

from wm.release import demo, page, places  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
AGENT = Path(__file__).parents[1] / "pretrained" / "car_racing"
STEPS, TAU, SEED = 200, 1.15, 7
PICTURES = (0, 50, 199)
PATIENCE = 300_000
"""Milliseconds: a busy machine is no reason to fail."""

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt install chromium"),
    pytest.mark.skipif(not page.BUILT.is_file(), reason="the page is not built here: `wm agent demo` builds it"),
]


@pytest.fixture(scope="module")
def dream_page(tmp_path_factory) -> Path:
    """CarRacing's demo, whose recorded episode ends after 60 steps."""
    out = tmp_path_factory.mktemp("page") / "dream.html"
    place = places.find(str(AGENT))
    world = agents.load(place.folder)[0].world
    make = world.make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "make", lambda drawing=None: TimeLimit(make(drawing), 60), raising=False)
        demo.write(place, out)
    return out


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield running
        running.close()


@pytest.fixture
def opened(browser, dream_page):
    """The page, ready, and the addresses that it asked for."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(PATIENCE)
    tab, asked, wrong = context.new_page(), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    tab.goto(dream_page.as_uri())
    tab.wait_for_selector("html[data-ready]")
    yield tab
    assert wrong == [], "nothing went wrong on the page"
    assert asked == [dream_page.as_uri()], "nothing but the page itself was asked for"
    context.close()


def dreamed() -> dict[str, np.ndarray]:
    """200 steps of the dream in Python, C driving, and the noise that they had."""
    agent, params, _ = agents.load(AGENT)
    dreams = Dreams(AGENT, TAU, 1, "features", None, STEPS, None, reads="mean")
    dreams.begin(0, SEED)
    noise = DreamNoise(SEED, agent.mdnrnn.z_size)
    blocks = np.concatenate([noise.block(index) for index in range(-(-STEPS // NOISE_STEPS))])[:STEPS]
    mu, logvar = load_starts(AGENT)
    start, mean = noise.start(mu, logvar).numpy(), noise.mean(mu).numpy()
    zs, rews, ends = [], [], []
    for _ in range(STEPS):
        act = agent.act(params[None], dreams.seen.numpy(), dreams.h.numpy(), dreams.c.numpy())
        rew, _, _ = dreams.step(act)
        logit = agent.mdnrnn.heads(dreams.h)[2] - agent.mdnrnn.end_shift
        zs.append(dreams.z[0].numpy().copy()), rews.append(rew[0]), ends.append(torch.sigmoid(logit).item())
    told = {"z": np.array(zs), "rew": np.array(rews), "end": np.array(ends)}
    return {"start": start, "mean": mean, "noise": blocks, **told}


def test_with_the_same_luck_page_and_python_dream_the_same(opened):
    expected = dreamed()
    given = {
        "z": expected["start"].tolist(),
        "mean": expected["mean"].tolist(),
        "tau": TAU,
        "uniform": expected["noise"][:, 0].ravel().tolist(),
        "normal": expected["noise"][:, 1].ravel().tolist(),
        "frames": list(PICTURES),
    }
    found = opened.evaluate("given => worldModels.replay(given)", given)
    z = np.array(found["z"]).reshape(STEPS, -1)
    assert np.abs(z - expected["z"]).max() < 1e-3
    assert np.abs(np.array(found["reward"]) - expected["rew"]).max() < 1e-3
    assert np.abs(np.array(found["end"]) - expected["end"]).max() < 1e-4
    before = np.stack([expected["start"] if step == 0 else expected["z"][step - 1] for step in PICTURES])
    with torch.inference_mode():
        pictures = load_vae(AGENT).decode(torch.from_numpy(before)).numpy().reshape(len(PICTURES), -1)
    assert np.abs(np.array(found["frames"]) - pictures).max() <= 2
    assert pictures.std() > 10, "pictures, not one colour"


def number(tab, place: str) -> float:
    return float(tab.inner_text(place))


def driver(tab) -> str:
    return tab.get_attribute("[data-driver][aria-pressed=true]", "data-driver")


def picture(tab, place: str = "#dream") -> str:
    return tab.eval_on_selector(place, "canvas => canvas.toDataURL()")


RATE = """() => new Promise((resolve) => {
    const { player } = worldModels, began = performance.now(), from = player.dream.steps;
    const look = () => player.dream.steps < from + 10
        ? requestAnimationFrame(look) : resolve(10_000 / (performance.now() - began));
    look();
})"""
"""Steps a second, over ten."""


def frames(tab, count: int) -> None:
    """The browser has drawn so many more times."""
    wait = (
        "count => new Promise((done) => { const next = () => count-- ? requestAnimationFrame(next) : done(); next(); })"
    )
    tab.evaluate(wait, count)


def settled(tab) -> None:
    """Everything that was asked of the player has happened."""
    tab.evaluate("() => worldModels.player.do(() => undefined)")


def test_a_person_drives_takes_over_gives_back_pauses_steps_and_starts_again(opened):
    tab = opened
    assert driver(tab) == "C"
    tab.keyboard.down("ArrowLeft")
    tab.wait_for_function("() => worldModels.player.act[0] < -0.9")
    assert driver(tab) == "you"
    tab.keyboard.up("ArrowLeft")
    tab.keyboard.press("c")
    assert driver(tab) == "C"
    tab.click("[data-driver=you]")
    assert driver(tab) == "you"
    tab.click("[data-driver=C]")
    box = tab.locator(".pedal", has_text="gas").bounding_box()
    tab.mouse.move(box["x"] + 5, box["y"] + 5)
    tab.mouse.down()
    tab.wait_for_function("() => worldModels.player.act[1] > 0.9")
    assert driver(tab) == "you"
    tab.mouse.up()

    tab.keyboard.press("p")
    settled(tab)
    stood = number(tab, "#steps")
    frames(tab, 20)
    assert number(tab, "#steps") == stood > 0 and tab.inner_text("#pause") == "Go on"
    tab.click("#step")
    settled(tab)
    tab.keyboard.press(".")
    settled(tab)
    assert number(tab, "#steps") == stood + 2
    tab.click("#again")
    settled(tab)
    assert number(tab, "#steps") == 0
    tab.click("[data-speed='0.25']")
    tab.click("#pause")
    assert tab.evaluate(RATE) < 0.5 * 50, (
        "nearer to a quarter of 50 steps a second than to all; fewer on a busy machine"
    )
    tab.click("[data-speed='1']")
    assert tab.get_attribute("[data-speed='1']", "aria-pressed") == "true"


def test_temperature_first_frames_and_z_change_the_dream(opened):
    tab = opened
    tab.focus("#tau")
    tab.keyboard.press("Home")
    assert tab.inner_text("#tau-value") == "0.10" and tab.evaluate("() => worldModels.player.tau") == 0.1
    tab.keyboard.press("End")
    assert tab.inner_text("#tau-value") == "3.00" and tab.evaluate("() => worldModels.player.tau") == 3
    tab.keyboard.press("[")
    assert tab.inner_text("#tau-value") == "2.95"
    tab.click("#later")
    tab.wait_for_selector("[aria-label='Begin at first frame 8']")
    tab.click("[aria-label='Begin at first frame 8']")
    settled(tab)
    assert tab.input_value("#start") == "8" and tab.evaluate("() => worldModels.player.start") == 7
    tab.fill("#start", "300")
    tab.keyboard.press("Enter")
    settled(tab)
    assert tab.evaluate("() => worldModels.player.start") == 299
    tab.click("#anywhere")
    tab.keyboard.press("n")
    tab.keyboard.press("p")
    settled(tab)
    tab.click("#latents summary")
    assert tab.locator("#sliders input").count() == 32
    before = picture(tab)
    tab.locator("#sliders input").first.focus()
    tab.keyboard.press("End")
    settled(tab)
    assert picture(tab) != before and 4 in tab.evaluate("() => [...worldModels.player.dream.z]")
    assert tab.evaluate("() => worldModels.player.paused")


def test_m_dreams_on_from_a_moment_of_the_recording(opened):
    tab = opened
    tab.focus("#scrub")
    for _ in range(3):
        tab.keyboard.press("PageUp")
    settled(tab)
    at = int(tab.input_value("#scrub"))
    assert 0 < at < 60 and tab.get_attribute("[data-driver=recording]", "disabled") is not None
    real, kept = picture(tab, "#real"), picture(tab, "#kept")
    tab.evaluate("() => worldModels.player.paused = true")
    tab.click("#dream-on")
    settled(tab)
    assert number(tab, "#steps") == at
    assert picture(tab) == kept != real, "the dream begins as V keeps the recorded frame"
    h = tab.evaluate("() => [...worldModels.player.dream.h]")
    assert np.abs(h).max() > 0.01, "M has been told what came before"
    tab.click("[data-driver=recording]")
    tab.click("#step")
    settled(tab)
    assert driver(tab) == "recording" and int(tab.input_value("#scrub")) == at + 1
    assert picture(tab, "#real") != real, "the world goes on beside the dream"
    for place in ("#reward-value", "#end-value", "#surprise-value"):
        assert tab.inner_text(place)[-1] in "0123456789%"
    tab.click("#recording-play")
    tab.wait_for_function("at => Number(document.querySelector('#scrub').value) > at + 1", arg=at)
    assert driver(tab) == "C"


def test_the_keyboard_reaches_everything_and_axe_finds_nothing_serious(opened):
    tab = opened
    for summary in tab.locator("summary").all():
        summary.click()
    reached = set()
    for _ in range(120):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("() => document.activeElement.id || document.activeElement.outerHTML.slice(0, 60)"))
    wanted = "theme pause step again tau scrub dream-on recording-play earlier start later anywhere".split()
    assert set(wanted) <= reached
    assert sum("data-driver" in one for one in reached) >= 2 and sum("data-speed" in one for one in reached) == 3
    axe = Path(page.SOURCES, "node_modules", "axe-core", "axe.min.js").read_text()
    tab.evaluate(axe + "; undefined")
    for scheme in ("dark", "light"):
        tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        frames(tab, 2)
        found = tab.evaluate("() => axe.run()")
        assert len(found["passes"]) > 20
        assert [(one["id"], one["impact"], [n["html"][:80] for n in one["nodes"]]) for one in found["violations"]] == []


def test_an_agent_of_ones_own_world_has_a_page_in_a_report_too(browser, tmp_path):
    """M knows no reward, C has a hidden layer; the page works inside a frame of another one."""
    out = tmp_path / "dream.html"
    demo.write(places.find(str(tiny_agent.write(tmp_path / "agent"))), out)
    around = tmp_path / "report.html"
    around.write_text(f"<!doctype html><title>A report</title>{report.framed(out, 'tiny')}")
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(PATIENCE)
    tab, asked = context.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(around.as_uri())
    tab.wait_for_selector("iframe")
    frame = tab.frames[1]
    frame.wait_for_selector("html[data-ready]")
    assert frame.inner_text("#world") == "tiny" and frame.is_hidden("#reward") and frame.is_visible("#real")
    frame.wait_for_function("() => worldModels.player.dream.steps > 3 || worldModels.player.dream.over")
    assert {address.partition(":")[0] for address in asked} <= {"file", "about", "data"} and len(asked) <= 2
    context.close()


def test_nothing_is_wider_than_a_phone_and_fingers_drive(browser, dream_page):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    context.set_default_timeout(PATIENCE)
    tab = context.new_page()
    tab.goto(dream_page.as_uri())
    tab.wait_for_selector("html[data-ready]")
    assert tab.evaluate("() => document.documentElement.scrollWidth") == 390
    tab.tap(".pedal >> nth=1")
    assert driver(tab) == "you"
    dream, pedal = tab.locator("#dream").bounding_box(), tab.locator(".pedal").last.bounding_box()
    assert pedal["y"] + pedal["height"] - dream["y"] < 844, "one sees the dream while driving"
    context.close()
