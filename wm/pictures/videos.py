"""Moving pictures: frames in, an mp4 that browsers play out, the same bytes every time.

H.264 in yuv420p with the index at the front. One thread, since x264's decisions change with their number; of the
processor's instructions those of AVX2 and no later ones; and colours in whole numbers here, since FFmpeg's own
conversion has other bits on other processors.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType

import numpy as np

from wm.core.errors import DamagedData, UserError
from wm.pictures import plain

_SMALLEST = 320  # frames with a shorter side are enlarged by a whole factor, pixel for pixel
_QUALITY = {"preset": "medium", "crf": "20"}
_EXACT = {"x264-params": "threads=1:lookahead-threads=1:asm=SSE2Fast,LZCNT,AVX2", "flags": "+bitexact"}
_FILE = {"movflags": "+faststart", "fflags": "+bitexact"}


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
        UserError: the encoder is not there, or failed; with its own words.
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
    pictures = (
        np.concatenate([head, frame.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]])
        for frame in _same(chain([first], source), first.shape, path)
    )
    av = _av()
    try:
        count = _write(av, pictures, temporary, fps)
        os.replace(temporary, path)
    except av.error.FFmpegError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path.name} could not be written, since FFmpeg failed ({reason}): see to that, and run it again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write(av: ModuleType, pictures: Iterable[np.ndarray], path: Path, fps: float) -> int:
    """Encodes pictures [height, width, 3] uint8 with even sides; how many there were."""
    with av.open(str(path), "w", format="mp4", container_options=_FILE) as film:
        stream, count = None, 0
        for count, picture in enumerate(pictures, 1):  # noqa: B007
            if stream is None:
                rate = Fraction(fps).limit_denominator(1000)
                stream = film.add_stream("libx264", rate=rate, options={**_QUALITY, **_EXACT})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt, stream.thread_count = "yuv420p", 1
            film.mux(stream.encode(av.VideoFrame.from_ndarray(_yuv420(picture), format="yuv420p")))
        film.mux(stream.encode(None))
    return count


def _yuv420(picture: np.ndarray) -> np.ndarray:
    """[height * 3/2, width] uint8: luma, then the two chromas at half size (ITU-R BT.601, 16 to 235), rounded.

    Args:
        picture: [height, width, 3] uint8 red, green, blue; even sides.
    """
    colours = [picture[:, :, index].astype(np.uint16) for index in range(3)]
    red, green, blue = colours
    luma = (66 * red + 129 * green + 25 * blue + (16 << 8) + (1 << 7)) >> 8
    red, green, blue = (  # sums of four
        (part[::2, ::2] + part[::2, 1::2] + part[1::2, ::2] + part[1::2, 1::2]).astype(np.int32) for part in colours
    )
    chromas = (
        (-38 * red - 74 * green + 112 * blue + (128 << 10) + (1 << 9)) >> 10,
        (112 * red - 94 * green - 18 * blue + (128 << 10) + (1 << 9)) >> 10,
    )
    planes = np.concatenate([plane.astype(np.uint8).ravel() for plane in (luma, *chromas)])
    return planes.reshape(-1, picture.shape[1])


def check() -> None:
    """Writes a film of two frames and forgets it, so that what is wrong is told before the work that a film is of.

    A film is an output like others: where none can be written the stage is refused, since what it makes without one
    would not be what other machines make.

    Raises:
        UserError: films cannot be written here.
    """
    with tempfile.TemporaryDirectory() as folder:
        video(np.zeros((2, 64, 64, 3), np.uint8), Path(folder) / "film.mp4", 10)


def read(path: Path) -> Generator[np.ndarray, None, None]:
    """The frames of a video, [height, width, 3] uint8 each, in order.

    Raises:
        DamagedData: the file is no whole film.
    """
    av = _av()
    try:
        with av.open(str(path)) as film:
            for frame in film.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.error.InvalidDataError, IndexError) as error:  # IndexError: no video in it
        raise DamagedData(f"{path} is no whole film ({' '.join(str(error).split())})") from None


def _av() -> ModuleType:
    """The package av, whose wheel brings FFmpeg's libraries and x264: another encoder writes other bytes."""
    again = "`python -m pip install --force-reinstall --no-deps --only-binary av av` brings it back"
    try:
        import av
    except ImportError as error:
        raise UserError(f"films need the package av, and it is not whole here ({error}): {again}") from None
    if "libx264" not in av.codecs_available:
        raise UserError(f"films need x264, and the package av of {Path(av.__file__).parent} is without: {again}")
    av.logging.set_level(av.logging.FATAL)  # what fails is an exception; x264 tells its statistics otherwise
    return av


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
