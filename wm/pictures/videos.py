"""Moving pictures: frames in, an mp4 that browsers play out, the same bytes every time.

H.264 in yuv420p with the index at the front; one thread and bit-exact flags, since x264's decisions change
with the number of threads, and with the processor's instructions, of which it may use AVX2 and no later ones.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from wm.core.errors import UserError
from wm.pictures import plain

_SMALLEST = 320  # frames with a shorter side are enlarged by a whole factor, pixel for pixel
_EXACT = [
    "-threads",
    "1",
    "-x264-params",
    "threads=1:lookahead-threads=1:asm=SSE2Fast,LZCNT,AVX2",
    "-flags",
    "+bitexact",
    "-fflags",
    "+bitexact",
    "-map_metadata",
    "-1",
]
_BROWSER = ["-c:v", "libx264", "-preset", "medium", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]


def video(frames: Iterable[np.ndarray], path: Path, fps: float, caption: str | None = None) -> int:
    """Writes frames as an mp4, one at a time (memory stays flat), to a temporary name that is then renamed.

    Args:
        frames: [T, height, width, 3] uint8, or anything that yields such frames, all of one size.
        fps: frames a second.
        caption: a line of text above the picture.
    Returns:
        the number of frames written.
    Raises:
        ValueError: no frame, or one of another size than the first.
        UserError: ffmpeg is not there, or failed; with its own words.
    """
    path, source = Path(path), iter(frames)
    first = next(source, None)
    if first is None:
        raise ValueError(f"{path.name}: a video needs at least one frame")
    first = np.asarray(first)
    factor = max(1, -(-_SMALLEST // min(first.shape[:2])))
    height, width = (side * factor // 2 * 2 for side in first.shape[:2])
    head = _caption(caption, width) if caption else np.zeros((0, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    command = _command(f"{width}x{height + len(head)}", fps, temporary)
    ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={})  # FFREPORT and others
    count = 0
    try:
        for frame in _same(chain([first], source), first.shape, path):
            frame = frame.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
            ffmpeg.stdin.write(np.concatenate([head, frame]).tobytes())
            count += 1
        _, message = ffmpeg.communicate()
    except BrokenPipeError:
        message = ffmpeg.stderr.read()
        ffmpeg.wait()
    except BaseException:
        ffmpeg.kill()
        ffmpeg.communicate()
        temporary.unlink(missing_ok=True)
        raise
    if ffmpeg.returncode or not count:
        temporary.unlink(missing_ok=True)
        said = " ".join(message.decode(errors="replace").split()) or f"it ended with {ffmpeg.returncode}"
        raise UserError(
            f"{path.name} could not be written, since ffmpeg failed ({said}): see to that, and run it again"
        )
    os.replace(temporary, path)
    return count


def _command(size: str, fps: float, path: Path) -> list[str]:
    """ffmpeg from raw frames on its standard input to an mp4."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:g}", "-i", "-", "-an"]
    return [_ffmpeg(), "-y", "-loglevel", "error", *raw, *_BROWSER, *_EXACT, "-f", "mp4", str(path)]


def check() -> None:
    """Writes a film of two frames and forgets it, so that what is wrong is told before the work that a film is of.

    A film is an output like others: where none can be written the stage is refused, since what it makes without one
    would not be what other machines make.

    Raises:
        UserError: films cannot be written here.
    """
    with tempfile.TemporaryDirectory() as folder:
        video(np.zeros((2, 64, 64, 3), np.uint8), Path(folder) / "film.mp4", 10)


def read(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video, [height, width, 3] uint8 each, in order."""
    os.environ["IMAGEIO_FFMPEG_EXE"] = _ffmpeg()
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    for data in reader:
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _ffmpeg() -> str:
    """The program that comes with the package imageio-ffmpeg: another one writes other bytes, or no H.264."""
    folder = Path(imageio_ffmpeg.__file__).parent / "binaries"
    found = next((path for path in sorted(folder.glob("ffmpeg-*")) if os.access(path, os.X_OK)), None)
    if found is None:
        raise UserError(
            f"films need the ffmpeg of the package imageio-ffmpeg, and there is none in {folder}: "
            "`python -m pip install --force-reinstall --no-deps imageio-ffmpeg` brings it back"
        )
    return str(found)


def _same(frames: Iterable[np.ndarray], shape: tuple[int, ...], path: Path) -> Iterator[np.ndarray]:
    for index, frame in enumerate(frames):
        frame = np.asarray(frame)
        if frame.shape != shape or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
            raise ValueError(f"{path.name}: frame {index} is {frame.shape} {frame.dtype}, not {shape} uint8")
        yield frame


def _caption(text: str, width: int) -> np.ndarray:
    """[34, width, 3] uint8: dark text on white, made smaller where it would not fit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, dpi = 34, 100
    with plain():
        for size in (11, 10, 9, 8, 7, 6):
            figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
            canvas = FigureCanvasAgg(figure)
            label = figure.text(0.02, 0.5, text, va="center", size=size, family="DejaVu Sans", color="#22272e")
            canvas.draw()
            if label.get_window_extent().x1 <= 0.98 * width:
                break
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:height, :width, :3])
