"""V, M and the agent as MLflow models: this file is the model's code, the weights beside it are safetensors.

MLflow copies this file into the model and runs it when the model is loaded ("models from code"), so nothing
is pickled. A model keeps no state between calls: whoever asks sends M's state and gets the next one back.

B batch, Z latent, H hidden, A action, K mixtures. `frames` are [B, 64, 64, 3] uint8, or [B] texts, each the base64 of
a PNG or of the frame's 12,288 bytes, row by row: over HTTP a tenth of the work that nested lists are.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from wm.records import tracking

PNG = b"\x89PNG\r\n\x1a\n"


class Seeing:
    """V: {"frames"} -> {"mu", "logvar"}: [B, Z] float32."""

    def __init__(self, folder: Path):
        from wm.models.vae import load_vae

        self.vae = load_vae(folder)

    def predict(self, request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            mu, logvar = self.vae.encode(torch.from_numpy(_frames(request)))
        return {"mu": mu.numpy(), "logvar": logvar.numpy()}


class Predicting:
    """M: {"z": [B, Z], "act": [B, A], "state": [B, 2H] or [B, 0] at an episode's first step} float32 ->
    {"log_pi", "mu", "log_sigma": [B, K, Z], "state": [B, 2H], and "rew", "done": [B] where M has them}.
    """

    def __init__(self, folder: Path):
        from wm.models.mdnrnn import load_mdnrnn

        self.mdnrnn = load_mdnrnn(folder)

    def predict(self, request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        z, act = _array(request, "z", np.float32), _array(request, "act", np.float32)
        h, c, restart = _state(request, len(z), self.mdnrnn.config.hidden)
        with torch.inference_mode():
            z, act, h, c, restart = map(torch.from_numpy, (z, act, h, c, restart))
            h, c = self.mdnrnn.step(z, act, (h, c), restart)
            mixture, rew, done = self.mdnrnn.heads(h)
        reply = {**mixture._asdict(), "rew": rew, "done": done, "state": torch.cat([h, c], dim=1)}
        return {name: value.numpy() for name, value in reply.items() if value is not None}


class Acting:
    """The agent: {"frames", "state": [B, 2H] float32 (or [B, 0] at an episode's first step), "seed": [B] int64, the
    episode's, "step": [B] int64, from 0} -> {"actions": [B, A], "state", "surprise": [B, 2] float32}.

    The seed and the step give the noise of z, the same as in the rollouts that scored the agent.

    `surprise` says how novel each frame is to V, and after all that came before to M: percent of the steps of the
    model's own held-out episodes that surprised it less (`wm.models.surprise`). M says 0 of an episode's first frame.
    Agents that were made before there were such references reply without it.
    """

    def __init__(self, folder: Path):
        from wm.core import weights
        from wm.models import surprise
        from wm.play import agent

        self.agent, self.params, about = agent.load(folder)
        self.sampled = about["sampled"]
        known = all(weights.exists(folder, kind) for kind in weights.SURPRISE_KINDS)
        self.references = [surprise.Reference.load(folder, kind) for kind in weights.SURPRISE_KINDS] if known else []

    def predict(self, request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        frames = _frames(request)
        h, c, restart = _state(request, len(frames), self.agent.mdnrnn.config.hidden)
        z = self.agent.see(frames, self._noise(request, len(frames)) if self.sampled else None)
        act = self.agent.act(np.repeat(self.params[None], len(frames), axis=0), z, h, c)
        told = {"surprise": self._surprise(frames, h, restart)} if self.references else {}
        if self.agent.needs_memory or self.references:
            h, c = self.agent.remember(z, act, h, c, restart)
        return {"actions": act, "state": np.concatenate([h, c], axis=1), **told}

    def _surprise(self, frames: np.ndarray, h: np.ndarray, restart: np.ndarray) -> np.ndarray:
        """[B, 2] of frames that come after M's state h [B, H]."""
        import torch

        from wm.models import surprise

        to_v, mu = surprise.to_v(self.agent.vae, frames, len(frames))
        with torch.inference_mode():
            to_m = surprise.of_next(self.agent.mdnrnn, torch.from_numpy(h), torch.from_numpy(mu)).numpy()
        of_v, of_m = (known.percentile(each) for known, each in zip(self.references, (to_v, to_m), strict=True))
        return np.nan_to_num(np.stack([of_v, np.where(restart > 0, 0.0, of_m)], axis=1)).astype(np.float32)

    def _noise(self, request: dict[str, np.ndarray], batch: int) -> np.ndarray:
        """[B, Z] standard normal numbers, of each row's seed and step.

        Raises:
            ValueError: the request has none, or another number of them than of frames, or one that is negative.
        """
        from wm.play.agent import PosteriorNoise

        rows, numbers = [], [_array(request, name, np.int64) for name in ("seed", "step")]
        if any(part.shape != (batch,) or (part < 0).any() for part in numbers):
            raise ValueError(f"seed and step have to be {batch} whole numbers each, from 0 on: one a frame")
        for seed, step in zip(*numbers, strict=True):
            noise = PosteriorNoise(int(seed), self.agent.mdnrnn.z_size)
            rows.append([noise.draw() for _ in range(int(step) + 1)][-1])
        return np.stack(rows)


def load(folder: Path) -> Any:
    """The model whose files are in `folder`."""
    kinds = {"controller.json": Acting, "mdnrnn.json": Predicting, "vae.json": Seeing}
    return next(kind for name, kind in kinds.items() if (Path(folder) / name).exists())(Path(folder))


def _frames(request: dict[str, np.ndarray]) -> np.ndarray:
    """[B, 64, 64, 3] uint8.

    Raises:
        ValueError: they are something else.
    """
    from wm.worlds.base import FRAME_SHAPE

    frames = np.asarray(request["frames"]) if "frames" in request else _array(request, "frames", np.uint8)
    if frames.ndim == 1 and len(frames) and isinstance(frames[0], (str, bytes)):
        return np.stack([_decoded(text, FRAME_SHAPE) for text in frames])
    if frames.shape[1:] != FRAME_SHAPE:
        raise ValueError(f"frames are {list(frames.shape)}, expected [B, 64, 64, 3], or [B] texts in base64")
    with contextlib.suppress(OverflowError, TypeError, ValueError):
        whole = np.ascontiguousarray(frames, np.uint8)
        if frames.dtype == np.uint8 or np.array_equal(whole, frames):  # else 300 would be 44, and 0.5 black
            return whole
    raise ValueError("frames hold something else than whole numbers from 0 to 255")


def _decoded(text: str | bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The frame of a text; a PNG says its size before anything is unpacked."""
    import cv2

    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a frame is no base64: {text[:40]!r}") from None
    height, width, depth = shape
    if not data.startswith(PNG):
        if len(data) != height * width * depth:
            raise ValueError(f"a frame has {len(data)} bytes: expected a PNG, or {height * width * depth} bytes")
        return np.frombuffer(data, np.uint8).reshape(shape)
    size = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if size == (height, width) else None
    if picture is None:
        raise ValueError(f"a frame is a PNG of {size[1]} x {size[0]} that cannot be read: expected {width} x {height}")
    return np.ascontiguousarray(picture[:, :, ::-1])


def _array(request: dict[str, np.ndarray], name: str, dtype: type) -> np.ndarray:
    if name not in request:
        raise ValueError(f"the request lacks {name!r}; it has {', '.join(sorted(request)) or 'nothing'}")
    return np.ascontiguousarray(request[name], dtype)


def _state(request: dict[str, np.ndarray], batch: int, hidden: int) -> list[np.ndarray]:
    """(h, c) [B, H] and restart [B]; an absent or empty state starts an episode."""
    state = np.asarray(request.get("state", ()), np.float32)
    if state.size == 0:
        zeros = np.zeros((batch, hidden), np.float32)
        return [zeros, zeros.copy(), np.ones(batch, np.float32)]
    if state.shape != (batch, 2 * hidden):
        raise ValueError(f"state is {list(state.shape)}, expected the last reply's [{batch}, {2 * hidden}]")
    step = np.asarray(request.get("step", np.ones(batch)))
    return [state[:, :hidden].copy(), state[:, hidden:].copy(), (step == 0).astype(np.float32)]


if __name__ != "wm.release.agent_model":  # run by MLflow, from the copy inside a model
    tracking.declare(load)
