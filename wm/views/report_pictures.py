"""Pictures and films of an agent's stages as they go into a page: data URIs, or a sentence where there is nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wm.records.lineage import Made

BIGGEST_FILM = 6_000_000
"""Bytes of an mp4 that goes into the page; of a bigger one, a frame does."""


@dataclass(frozen=True)
class Picture:
    """An image or a film for the page.

    Attributes:
        source: a data URI; of a film that is too large, none.
        poster: a frame of a film, as a data URI.
        missing: a sentence where there is nothing to show.
    """

    alt: str
    source: str = ""
    poster: str = ""
    missing: str = ""


def of(rounds: dict[str, list[Made]]) -> dict[str, Picture]:
    """Those of the last round, by name.

    Args:
        rounds: the steps of each stage, first to last.
    """
    last = {stage: steps[-1] for stage, steps in rounds.items() if steps}
    return {
        "reconstructions": picture(
            last["train_vae"], "reconstructions.png", "Held-out frames above, what V makes of them below"
        ),
        "traversal": picture(
            last["train_vae"], "traversal.png", "Decoded frames: a row a latent dimension, changed from low to high"
        ),
        "dream": picture(
            last["train_mdn"],
            "dream_strip.png",
            "The world above and M's dream below, with the same actions, over time",
        ),
    }


def gauge(steps: Sequence[Made]) -> Picture | None:
    """The scores of the same controllers in the dream and in the world, of the last search in a dream; None if none."""
    searches = [one for one in steps if Path(one.step.folder, "figures", "gauge.png").is_file()]
    alt = "Scores in the world over scores in the dream, a point a controller, with their rank correlation"
    return picture(searches[-1], "gauge.png", alt) if searches else None


def picture(made: Made, file: str, alt: str) -> Picture:
    """One of a step's figures."""
    path = Path(made.step.folder, "figures", file)
    if not path.is_file():
        return Picture(alt, missing=missing(made))
    return Picture(alt, source=_uri(path.read_bytes(), "image/png"))


def missing(made: Made) -> str:
    """The sentence about what a step has not left here."""
    return f"Not here: `dvc repro {made.step.target}` makes it, or `dvc pull` fetches it."


def films(made: Made) -> list[Picture]:
    """The best, the median and the worst test episode; one entry with a sentence where there are none."""
    paths = [Path(made.step.folder, "videos", f"{which}.mp4") for which in ("best", "median", "worst")]
    found = [_film(path) for path in paths if path.is_file()]
    if found:
        return found
    folder = Path(made.step.folder)
    return [Picture("films", missing="Evaluated with `videos: false`." if folder.is_dir() else missing(made))]


def _film(path: Path) -> Picture:
    alt = f"The {path.stem} of the test episodes"
    size = path.stat().st_size
    if size > BIGGEST_FILM:
        return Picture(alt, poster=_poster(path), missing=f"The film is in {path} ({size / 1e6:.0f} MB).")
    return Picture(alt, source=_uri(path.read_bytes(), "video/mp4"), poster=_poster(path))


def _poster(path: Path, number: int = 250) -> str:
    """A frame of a film as a JPEG: that one, or the last of a shorter film."""
    from PIL import Image

    from wm.pictures import videos

    frames, frame = videos.read(path), None
    for frame, _ in zip(frames, range(number), strict=False):  # noqa: B007
        pass
    frames.close()
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=82)
    return _uri(data.getvalue(), "image/jpeg")


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
