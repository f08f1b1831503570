"""Watch an agent: what it sees, what V keeps of it, what M dreams of, and what C does about it; or drive in the dream.

Where there is a display the picture is shown in a window, else it is written as an mp4. Frames are [H, W, 3] uint8.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from wm import agent as agents
from wm import models, videos, worlds
from wm.agent import Agent, EpisodeNoise
from wm.errors import UserError
from wm.mdnrnn import sample

PANEL = 256
"""Pixels of a panel's side."""
AWAKE = 50
"""Steps after which a dream starts again from what is really seen."""
GIF_EVERY = 4
INK, PAPER, BAR = (40, 40, 40), (250, 250, 250), (0, 114, 178)


def watch(agent_folder: Path, seed: int, out: Path | None, steps: int | None, tau: float = 1.0) -> str:
    """Plays an episode and shows or writes it.

    Args:
        agent_folder: a whole agent, e.g. runs/NAME/evolve.
        seed: of the episode.
        out: the mp4; None shows a window where there is a display, and else writes watch.mp4.
        steps: the most to play; None for the whole episode.
        tau: temperature of the dream in the third panel.
    Returns:
        a sentence that says what became of it.
    Raises:
        UserError: there is no agent.
    """
    agent, params, about = _load(agent_folder)
    score = [0.0]
    frames = _episode(agent, params, about["sampled"], seed, steps or agent.world.spec.max_steps, tau, score)
    where = _show_or_write(frames, agent.world.spec.fps, out, Path("watch.mp4"))
    return f"{where}; score {score[0]:.1f}"


def dream(agent_folder: Path, model_folder: Path, seed: int, out: Path | None, steps: int, tau: float) -> str:
    """An episode inside M: a person drives with the arrow keys where there is a display, else C drives and an mp4 is
    written. Arguments and errors as `watch`; model_folder holds the dream's first frames (starts.safetensors)."""
    agent, params, _ = _load(agent_folder)
    keys = _Keys(agent.world.spec.action_size) if out is None and has_display() else None
    frames = _dreamed(agent, params, model_folder, seed, steps, tau, keys)
    return _show_or_write(frames, agent.world.spec.fps, out, Path("dream.mp4"))


def has_display() -> bool:
    """Whether a window could be opened."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _load(folder: Path) -> tuple[Agent, np.ndarray, dict]:
    if not models.exists(folder, models.CONTROLLER_KIND):
        raise UserError(f"there is no agent in {folder}: run `dvc repro evolve@{folder.parent.name}` first")
    return agents.load(folder)


@torch.inference_mode()
def _episode(
    agent: Agent, params: np.ndarray, sampled: bool, seed: int, steps: int, tau: float, score: list[float]
) -> Iterator[np.ndarray]:
    env = worlds.get(agent.world.spec.name).make(agent.world.spec.drawings[-1])
    noise, generator = EpisodeNoise(seed, agent.mdnrnn.z_size), torch.Generator().manual_seed(seed)
    (h, c), restart = agent.initial_state(1), np.ones(1, np.float32)
    obs, _ = env.reset(seed=seed)
    dreamed = state = None
    for step in range(steps):
        z = agent.see(obs[None], noise.draw()[None] if sampled else None)
        act = agent.act(params[None], z, h, c)
        if step % AWAKE == 0 or dreamed is None:
            dreamed, state = torch.from_numpy(z.copy()), (torch.from_numpy(h.copy()), torch.from_numpy(c.copy()))
        decoded = agent.vae.decode(torch.cat([torch.from_numpy(z), dreamed])).numpy()
        yield _screen(
            [
                ("what it sees", obs),
                ("what V keeps", decoded[0]),
                (f"what M dreams ({step % AWAKE} steps)", decoded[1]),
            ],
            act[0],
            f"step {step}   score {score[0]:.1f}",
        )
        h, c = agent.remember(z, act, h, c, restart)
        state = agent.mdnrnn.step(dreamed, torch.from_numpy(act), state, torch.from_numpy(restart))
        dreamed = sample(agent.mdnrnn.heads(state[0])[0], tau, generator)
        restart = np.zeros(1, np.float32)
        obs, rew, end, trunc, _ = env.step(act[0])
        score[0] += float(rew)
        if end or trunc:
            break
    env.close()


@torch.inference_mode()
def _dreamed(
    agent: Agent, params: np.ndarray, model_folder: Path, seed: int, steps: int, tau: float, keys: _Keys | None
) -> Iterator[np.ndarray]:
    _, starts = models.load(model_folder, models.STARTS_KIND)
    generator = torch.Generator().manual_seed(seed)
    first = seed % len(starts["mu"])
    z, score, restart = starts["mu"][first : first + 1], 0.0, torch.ones(1)
    state = agent.mdnrnn.initial_state(1)
    for step in range(steps):
        frame = agent.vae.decode(z)[0].numpy()
        act = keys.act() if keys else agent.act(params[None], z.numpy(), state[0].numpy(), state[1].numpy())
        yield _screen([(f"a dream, tau {tau:g}", frame)], act[0], f"step {step}   score {score:.1f}", scale=2)
        state = agent.mdnrnn.step(z, torch.from_numpy(act), state, restart)
        mixture, rew, done = agent.mdnrnn.heads(state[0])
        z, restart = sample(mixture, tau, generator), torch.zeros(1)
        score += float(rew) if rew is not None else 1.0
        if done is not None and float(done) > 0:
            break


def _screen(panels: list[tuple[str, np.ndarray]], act: np.ndarray, caption: str, scale: int = 1) -> np.ndarray:
    """Panels side by side with their titles, the actions as bars below."""
    side, head, foot = PANEL * scale, 28, 48
    screen = np.full((head + side + foot, len(panels) * (side + 8) - 8, 3), PAPER, np.uint8)
    for index, (title, frame) in enumerate(panels):
        left = index * (side + 8)
        screen[head : head + side, left : left + side] = cv2.resize(
            frame, (side, side), interpolation=cv2.INTER_NEAREST
        )
        cv2.putText(screen, title, (left + 4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    cv2.putText(screen, caption, (4, head + side + 30), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    right = screen.shape[1] - 8
    for index, value in enumerate(act):
        middle, y = right - 60, head + side + 8 + index * 12
        cv2.rectangle(screen, (middle - 50, y), (middle + 50, y + 8), (220, 220, 220), -1)
        cv2.rectangle(screen, (middle, y), (middle + int(50 * np.clip(value, -1, 1)), y + 8), BAR, -1)
    return screen[: screen.shape[0] // 2 * 2, : screen.shape[1] // 2 * 2]


class _Keys:
    """Arrow keys as an action [1, A]."""

    def __init__(self, size: int):
        self.size = size

    def act(self) -> np.ndarray:
        import pygame

        pressed = pygame.key.get_pressed()
        steer = float(pressed[pygame.K_RIGHT]) - float(pressed[pygame.K_LEFT])
        every = [steer, float(pressed[pygame.K_UP]), 0.8 * float(pressed[pygame.K_DOWN])]
        return np.array([every[: self.size]], np.float32)


def _show_or_write(frames: Iterator[np.ndarray], fps: int, out: Path | None, default: Path) -> str:
    if out is None and has_display():
        _show(frames, fps)
        return "watched"
    out = out or default
    if out.suffix == ".gif":
        return _write_gif(frames, out, fps)
    count = videos.video(frames, out, fps)
    return f"wrote {out}, {count} frames at {fps} a second"


def _write_gif(frames: Iterator[np.ndarray], out: Path, fps: int) -> str:
    """For pages that cannot show an mp4: every fourth frame, 64 colours."""
    from PIL import Image

    pictures = (Image.fromarray(frame) for frame in itertools.islice(frames, 0, None, GIF_EVERY))
    kept = [picture.quantize(64, dither=Image.Dither.NONE) for picture in pictures]
    kept[0].save(out, save_all=True, append_images=kept[1:], duration=1000 * GIF_EVERY / fps, loop=0)
    return f"wrote {out}, {len(kept)} frames at {fps / GIF_EVERY:g} a second"


def _show(frames: Iterator[np.ndarray], fps: int) -> None:
    os.environ.pop("SDL_VIDEODRIVER", None)
    import pygame

    pygame.init()
    window, clock = None, pygame.time.Clock()
    for frame in frames:
        if window is None:
            window = pygame.display.set_mode((frame.shape[1], frame.shape[0]))
            pygame.display.set_caption("World Models")
        window.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        if any(event.type == pygame.QUIT for event in pygame.event.get()):
            break
        clock.tick(fps)
    pygame.quit()
