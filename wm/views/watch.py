"""Watch an agent: what it sees, what V keeps of it, what M dreams of, and what C does about it.

The picture is shown in a window, or written as an mp4 or gif. Frames are [H, W, 3] uint8.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from wm.core import files, journal, weights
from wm.core.errors import UserError
from wm.models.mdnrnn import sample
from wm.pictures import videos
from wm.play import agent as agents
from wm.play.agent import Agent, PosteriorNoise

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
        out: the mp4 or gif; None shows a window, which needs a display.
        steps: the most to play; None for the whole episode.
        tau: temperature of the dream in the third panel.
    Returns:
        a sentence that says what became of it.
    Raises:
        UserError: there is no agent.
    """
    agent, params, about = load(agent_folder)
    score, steps = [0.0], steps or agent.world.spec.max_steps
    frames = _episode(agent, params, about["sampled"], seed, steps, tau, score)
    where = show_or_write(frames, steps, agent.world.spec.fps, out)
    return f"{where}; score {score[0]:.1f}"


def has_display() -> bool:
    """Whether a window could be opened."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    os.environ.pop("SDL_VIDEODRIVER", None)
    import pygame

    try:
        pygame.display.init()
    except pygame.error:
        return False
    return pygame.display.get_driver() not in ("offscreen", "dummy")


def load(folder: Path) -> tuple[Agent, np.ndarray, dict]:
    """The agent in `folder`, or a sentence that there is none."""
    if not weights.exists(folder, weights.CONTROLLER_KIND):
        raise UserError(f"there is no agent in {folder}: run `dvc repro evolve@{folder.parent.name}` first")
    return agents.load(folder)


@torch.inference_mode()
def _episode(
    agent: Agent, params: np.ndarray, sampled: bool, seed: int, steps: int, tau: float, score: list[float]
) -> Iterator[np.ndarray]:
    env = agent.world.checked(agent.world.spec.drawings[-1])
    noise, generator = PosteriorNoise(seed, agent.mdnrnn.z_size), torch.Generator().manual_seed(seed)
    (h, c), restart = agent.initial_state(1), np.ones(1, np.float32)
    try:
        obs, _ = env.reset(seed=seed)
        dreamed = state = None
        for step in range(steps):
            z = agent.see(obs[None], noise.draw()[None] if sampled else None)
            act = agent.act(params[None], z, h, c)
            if step % AWAKE == 0 or dreamed is None:
                dreamed, state = torch.from_numpy(z.copy()), (torch.from_numpy(h.copy()), torch.from_numpy(c.copy()))
            decoded = agent.vae.decode(torch.cat([torch.from_numpy(z), dreamed])).numpy()
            yield screen(
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
    finally:  # a window that is closed leaves here too
        env.close()


def screen(panels: list[tuple[str, np.ndarray]], act: np.ndarray, caption: str, scale: int = 1) -> np.ndarray:
    """Panels side by side with their titles, the actions as bars below; a panel is as wide as its picture has it."""
    side, head, foot = PANEL * scale, 28, 48
    widths = [side * frame.shape[1] // frame.shape[0] for _, frame in panels]
    picture = np.full((head + side + foot, sum(widths) + 8 * (len(panels) - 1), 3), PAPER, np.uint8)
    left = 0
    for (title, frame), width in zip(panels, widths, strict=True):
        shown = cv2.resize(frame, (width, side), interpolation=cv2.INTER_NEAREST)
        picture[head : head + side, left : left + width] = shown
        cv2.putText(picture, title, (left + 4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
        left += width + 8
    cv2.putText(picture, caption, (4, head + side + 30), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    right = picture.shape[1] - 8
    for index, value in enumerate(act):
        middle, y = right - 60, head + side + 8 + index * 12
        cv2.rectangle(picture, (middle - 50, y), (middle + 50, y + 8), (220, 220, 220), -1)
        cv2.rectangle(picture, (middle, y), (middle + int(50 * np.clip(value, -1, 1)), y + 8), BAR, -1)
    return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]


def show_or_write(frames: Iterator[np.ndarray], steps: int, fps: int, out: Path | None) -> str:
    """Shows frames in a window, or writes them where `out` names a film.

    Args:
        steps: the most frames there can be.
    Returns:
        what became of them.
    """
    if out is None:
        show(frames, fps)
        return "watched"
    frames = _counted(frames, steps, out.name)
    if out.suffix == ".gif":
        return _write_gif(frames, out, fps)
    count = videos.video(frames, out, fps)
    return f"wrote {out}, {count} frames at {fps} a second"


def _counted(frames: Iterator[np.ndarray], steps: int, name: str) -> Iterator[np.ndarray]:
    """The same, with a progress bar."""
    with journal.bar(steps, name, "step") as progress:
        for frame in frames:
            yield frame
            progress.update()


def _write_gif(frames: Iterator[np.ndarray], out: Path, fps: int) -> str:
    """For pages that cannot show an mp4: every fourth frame, 64 colours."""
    from PIL import Image

    pictures = (Image.fromarray(frame) for frame in itertools.islice(frames, 0, None, GIF_EVERY))
    kept = [picture.quantize(64, dither=Image.Dither.NONE) for picture in pictures]
    data = io.BytesIO()
    kept[0].save(data, "GIF", save_all=True, append_images=kept[1:], duration=1000 * GIF_EVERY / fps, loop=0)
    files.write_bytes(out, data.getvalue())
    return f"wrote {out}, {len(kept)} frames at {fps / GIF_EVERY:g} a second"


def show(frames: Iterator[np.ndarray], fps: int) -> None:
    """Shows frames in a window until they end or it is closed."""
    import pygame

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
