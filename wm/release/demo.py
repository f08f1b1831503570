"""One page with an agent inside: its dream, and one episode of the world beside it. Opened from a disk, it asks for
nothing.

The page is `wm/release/page.py`'s; here an agent becomes the text that it carries: a container of `agent.json`
(`wm.release.export`), the graphs (V's decoder in half precision), the first frames that dreams start from, and the
episode, packed by gzip and written as base64.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wm.core import files, seeds
from wm.dream.engine import load_starts
from wm.play import agent as agents
from wm.play.agent import Agent, PosteriorNoise
from wm.release import export, onnx_models, page
from wm.release.places import Place
from wm.worlds.base import FRAME_SHAPE

GRAPHS = ("decoder", "memory", "controller")
OWN = {"what": "World Models, the page and the agent's weights", "licence": "© its authors, MIT licence"}
RUNTIME = {"what": "ONNX Runtime Web", "licence": "© Microsoft Corporation, MIT licence"}
QUALITY = 80
"""Of the recorded frames, as WebP."""


def write(place: Place, out: Path) -> str:
    """Plays one test episode, and writes the page of an agent; returns a sentence.

    Raises:
        UserError: packages or node are missing, or the agent cannot be exported.
        DamagedData: the agent is not whole.
    """
    mu, logvar = load_starts(place.starts)
    html = page.template()
    agent, params, about = agents.load(place.folder)
    made = onnx_models.make(agent, params, half=("decoder",))
    recorded, parts = record(agent, params, about["sampled"])
    parts |= {f"{name}.onnx": made[name].data for name in GRAPHS}
    parts |= {"starts.mu": _floats(mu.numpy()), "starts.logvar": _floats(logvar.numpy())}
    known = agent.world.description
    header = {
        "about": export.describe(place, agent, about, {name: made[name] for name in GRAPHS}),
        "page": {
            "world_name": known.title,
            "press": list(known.press),
            "scored": _scored(place),
            "recording": recorded,
            "carries": [OWN, RUNTIME, dict(known.licence)],
        },
    }
    data = html.replace("%AGENT%", pack(header, parts), 1).encode()
    files.write_bytes(out, data)
    return f"wrote {out}, {len(data) / 1e6:.1f} MB: open it in a browser"


def pack(header: dict[str, Any], parts: dict[str, bytes]) -> str:
    """Text that the page reads (web/src/container.ts): the header's length, the header, the parts at multiples of 8."""
    places, body = {}, bytearray()
    for name, data in parts.items():
        places[name] = {"at": len(body), "bytes": len(data)}
        body += data + bytes(-len(data) % 8)
    text = json.dumps({**header, "parts": places}, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    whole = len(text).to_bytes(4, "little") + bytes(4) + text + bytes(body)
    return base64.b64encode(gzip.compress(whole, 9, mtime=0)).decode()


def record(agent: Agent, params: np.ndarray, sampled: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The first test episode, driven by C on the drawing that scores are measured on.

    Args:
        params: [P] float32, C.
        sampled: z is a sample of V's posterior rather than its mean.
    Returns:
        what the page tells of it; and its z [T, Z], actions [T, A] and rewards [T] as float32, and its frames as
        one picture, row by row.
    """
    (seed,) = seeds.episodes(0, seeds.Purpose.TEST, count=1)
    world, noise = agent.world, PosteriorNoise(seed, agent.mdnrnn.z_size)
    (h, c), restart = agent.initial_state(1), np.ones(1, np.float32)
    frames, zs, acts, rews, over = [], [], [], [], False
    with contextlib.closing(world.checked(world.spec.drawings[-1])) as env:
        frame, _ = env.reset(seed=seed)
        while not over:
            z = agent.see(frame[None], noise.draw()[None] if sampled else None)
            act = agent.act(params[None], z, h, c)
            h, c = agent.remember(z, act, h, c, restart)
            restart = np.zeros(1, np.float32)
            frames.append(frame)
            zs.append(z[0])
            acts.append(act[0])
            frame, rew, end, trunc, _ = env.step(act[0])
            rews.append(float(rew))
            over = end or trunc
    columns = math.ceil(math.sqrt(len(frames)))
    told = {"steps": len(frames), "columns": columns, "score": sum(rews), "seed": seed}
    arrays = {"z": np.array(zs), "act": np.array(acts), "rew": np.array(rews)}
    parts = {f"recording.{name}": _floats(array) for name, array in arrays.items()}
    return told, {**parts, "recording.frames": _sheet(frames, columns)}


def _sheet(frames: list[np.ndarray], columns: int) -> bytes:
    """All frames as one WebP, `columns` of them a row."""
    height, width, _ = FRAME_SHAPE
    sheet = np.zeros((-(-len(frames) // columns) * height, columns * width, 3), np.uint8)
    for index, frame in enumerate(frames):
        y, x = index // columns * height, index % columns * width
        sheet[y : y + height, x : x + width] = frame
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", quality=QUALITY)
    return file.getvalue()


def _floats(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, "<f4").tobytes()


def _scored(place: Place) -> str:
    """What is known of the agent's score."""
    if scores := place.scores:
        return f"{scores['mean']:.0f} on average over {scores['episodes']} test episodes of the world"
    return "not scored yet"
