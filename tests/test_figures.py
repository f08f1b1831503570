"""Pictures and videos: the same bytes every time, readable by others, and honest about their input."""

import hashlib
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from examples import mixture_density
from wm.core.errors import DamagedData
from wm.pictures import figures, mosaics, style, videos

rng = np.random.default_rng(0)
FRAMES = rng.integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
LINES = [
    {
        "step": step,
        "train/loss": 50.0 / (step + 1),
        "best": 2.0 * step,
        "mean": float(step),
        "worst": -1.0 * step,
        "sigma": 0.1,
        **({"held_out/loss": None if step else 60.0} if step % 5 == 0 else {}),
    }
    for step in range(120)
]
X = rng.normal(size=300)
GRID = np.linspace(-2, 2, 50)

PICTURES = {
    "contact_sheet": lambda path: mosaics.contact_sheet(FRAMES, path, columns=6, title="frames"),
    "reconstructions": lambda path: mosaics.reconstructions(FRAMES, FRAMES[::-1], path),
    "traversal": lambda path: mosaics.traversal(FRAMES.reshape(4, 5, 64, 64, 3), path, "abcd", range(5)),
    "strip": lambda path: mosaics.strip(FRAMES, FRAMES[:15], path, every=3, fps=50),
    "curves": lambda path: figures.curves(LINES, path, {"Loss": ["train/loss", "held_out/loss"]}, logy=["Loss"]),
    "evolution": lambda path: figures.evolution(LINES, path, reference=("solved", 900)),
    "scores": lambda path: figures.scores([3.0, 5.0, 9.0], path, references={"paper": 906}, interval=(3, 9)),
    "mixture": lambda path: mixture_density.picture(
        path, X, X**2, GRID, GRID, np.full((50, 3), 1 / 3), np.stack([GRID] * 3, 1), (X, X)
    ),
}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_the_same_bytes_every_time(name, tmp_path):
    PICTURES[name](tmp_path / "a" / "first.png")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False}):  # a reader's matplotlibrc
        PICTURES[name](tmp_path / "second.png")
    assert digest(tmp_path / "a" / "first.png") == digest(tmp_path / "second.png")
    with Image.open(tmp_path / "second.png") as picture:
        assert min(picture.size) > 100 and len(picture.convert("RGB").getcolors(1 << 24)) > 2
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["first.png"]  # no temporary left


def test_frames_keep_their_pixels(tmp_path):
    mosaics.contact_sheet(FRAMES[:1], tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(pixels[14 : 14 + 128 : 2, 14 : 14 + 128 : 2], FRAMES[0])


def test_series_leaves_out_what_is_not_a_number():
    lines = [
        {"step": 1, "x": 2.0},
        {"step": 2, "x": None},
        {"step": 3, "x": float("inf")},
        {"step": 4},
        {"step": 5, "x": 3},
    ]
    steps, values = figures.series(lines, "x")
    assert steps.tolist() == [1, 5] and values.tolist() == [2, 3]


def test_wrong_frames_are_named():
    with pytest.raises(ValueError, match=r"\(2, 64, 64\)"):
        mosaics.contact_sheet(np.zeros((2, 64, 64), np.uint8), "x.png")


@pytest.mark.parametrize("shape", [(64, 64, 3), (97, 131, 3), (400, 600, 3)])
def test_a_video_has_the_same_bytes_and_every_frame(shape, tmp_path):
    frames = [np.full(shape, 12 * index, np.uint8) for index in range(20)]
    assert videos.video(iter(frames), tmp_path / "a.mp4", fps=50, caption="best episode: 901") == 20
    videos.video(frames, tmp_path / "b.mp4", fps=50, caption="best episode: 901")
    assert digest(tmp_path / "a.mp4") == digest(tmp_path / "b.mp4")
    back = list(videos.read(tmp_path / "a.mp4"))
    assert len(back) == 20 and all(side % 2 == 0 and side >= 320 for side in back[0].shape[:2])
    below = [float(frame[60:].mean()) for frame in back]
    assert np.allclose(below, [12 * index for index in range(20)], atol=4)  # in order, below the caption


def test_a_video_starts_before_it_is_whole_in_a_browser(tmp_path):
    videos.video(FRAMES, tmp_path / "a.mp4", fps=50)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    assert b"avc1" in data[:4000]


def test_a_video_has_the_colours_of_its_frames(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
    videos.video((np.full((64, 64, 3), colour, np.uint8) for colour in colours), tmp_path / "a.mp4", fps=10)
    means = [frame.mean((0, 1)) for frame in videos.read(tmp_path / "a.mp4")]
    assert np.allclose(means, colours, atol=5), means


def test_a_video_says_nothing_of_the_machine_that_made_it(tmp_path):
    """Its bytes are compared between machines: x264 writes its settings into the film, with what it took of the CPU."""
    videos.video(FRAMES, tmp_path / "a.mp4", fps=50)
    settings = re.search(rb"x264 - core [ -~]*", (tmp_path / "a.mp4").read_bytes())[0].decode()
    assert " threads=1 lookahead_threads=1 " in settings
    assert not re.search(r"cpu|asm|avx|lavc", settings, re.IGNORECASE), settings


def test_a_file_that_is_no_film_is_named(tmp_path):
    videos.video(FRAMES, tmp_path / "a.mp4", fps=50)
    for data in (b"", b"no film", (tmp_path / "a.mp4").read_bytes()[:300]):
        (tmp_path / "b.mp4").write_bytes(data)
        with pytest.raises(DamagedData, match=r"b\.mp4 is no whole film"):
            list(videos.read(tmp_path / "b.mp4"))


def test_a_video_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="frame 1"):
        videos.video([FRAMES[0], FRAMES[0, :32]], tmp_path / "a.mp4", fps=50)
    with pytest.raises(ValueError, match="at least one"):
        videos.video([], tmp_path / "a.mp4", fps=50)
    assert list(tmp_path.iterdir()) == []


def test_of_a_picture_that_failed_nothing_stays(tmp_path):
    figure = Figure()
    figure.suptitle("$\\nothing{$")  # no mathematics: drawing raises
    with pytest.raises(ValueError):
        style.save(figure, tmp_path / "made.png")
    assert not list(tmp_path.iterdir())
