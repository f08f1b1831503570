"""A hostile model, data set, page and request: nothing outside is read or written, nothing runs, a sentence is said."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from faults import forks
from faults.row import Outcome, Row

NAMES = (
    "../../outside",
    "/etc/passwd",
    "..",
    "a/b",
    "<script>alert(1)</script>",
    "-rf",
    "a\nb",
    "",
    "ä" * 300,
)
SECRET = "what nobody may see"
PICKLE = b"cos\nsystem\n(S'touch pwned'\ntR."


def _record(path: Path, **changes: object) -> None:
    """Changes a record and gives it the checksum that it needs, as somebody would who means it."""
    from wm.core import files

    content = json.loads(path.read_text())
    content.pop(files.CHECKSUM, None)
    files.write_record(path, {**content, **changes})


def _names(say: Callable[[list[str], str], None]) -> None:
    for name in NAMES:
        for words in (
            ["collect", name],
            ["report", name],
            ["lineage", name],
            ["keep", name],
            ["table", name],
            ["watch", name],
        ):
            say(words, repr(name))
        say(["watch", name, "--pretrained"], repr(name))
        say(["agent", "demo", name], repr(name))


def _models(say: Callable[[list[str], str], None]) -> None:
    folder = Path("runs/tiny/evolve")
    kept = {path: path.read_bytes() for path in [*folder.glob("*.json"), *folder.glob("*.safetensors")]}

    def back() -> None:
        for path, data in kept.items():
            path.write_bytes(data)

    for path in sorted(kept):
        if path.suffix == ".json" and path.with_suffix(".safetensors").exists():
            for changes in (
                {"world": "../../outside"}, {"world": "os:system"}, {"world": None}, {"sha256": "0"},
                {"shapes": {"x": [10**9]}},
                {"kind": "<script>"}, {"config": {"hidden": 10**12}}, {"inputs": ["../x"]}, {"config": None},
            ):  # fmt: skip
                _record(path, **changes)
                say(["evaluate", "tiny"], f"{path.name} with {changes}")
                back()
        elif path.suffix == ".safetensors":
            for data in (
                b"", struct.pack("<Q", 2**62), struct.pack("<Q", 8) + b"notjson!", PICKLE,
                struct.pack("<Q", 64) + b'{"x":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4]}}   ',
            ):  # fmt: skip
                from wm.core import files

                path.write_bytes(data)
                _record(path.with_suffix(".json"), sha256=files.sha256(path))
                say(["evaluate", "tiny"], f"{path.name} of {len(data)} bytes")
                back()


def _data(say: Callable[[list[str], str], None]) -> None:
    manifest = Path("runs/tiny/collect/manifest.json")
    kept = manifest.read_bytes()
    shards = json.loads(kept)["shards"]
    first = shards[0]
    for changes in (
        {"shards": [{**first, "name": "../../../../outside/secret"}, *shards[1:]]},
        {"shards": [{**first, "file": "../../../../outside/secret"}, *shards[1:]]},
        {"shards": [{**first, "path": "/etc/passwd"}, *shards[1:]]},
        {"shards": [{**first, "episodes": [{"length": 10**15}]}]},
        {"shards": [{**first, "episodes": [{"length": -1}]}]},
        {"shards": {"a": 1}},
        {"shards": []},
        {"columns": [{"name": "obs", "dtype": "object", "shape": [1]}]},
        {"columns": [{"name": "obs", "dtype": "uint8", "shape": [10**6, 10**6]}]},
        {"world": "../../outside"},
        {"world": 7},
    ):
        _record(manifest, **changes)
        say(["train_vae", "tiny"], f"a manifest with {str(changes)[:80]}")
        manifest.write_bytes(kept)
    for depth in (10**5,):
        manifest.write_text("[" * depth)
        say(["train_vae", "tiny"], f"a manifest of {depth} brackets")
        manifest.write_bytes(kept)


def _requests(folder: Path) -> Outcome:
    """To the agent as MLflow serves it: a mistake is told, and the next request is answered as before."""
    import numpy as np

    from wm.core.errors import UserError
    from wm.release import agent_model

    model = agent_model.load(Path("runs/tiny/evolve"))
    lost, said = [], []
    good = {
        "frames": np.zeros((1, 64, 64, 3), np.uint8), "state": np.zeros((1, 0), np.float32), "seed": np.array([1]),
        "step": np.array([0]),
    }  # fmt: skip
    answer = model.predict(dict(good))["actions"]
    state = model.predict(dict(good))["state"]
    bad = {
        "frames of another shape": {"frames": np.zeros((1, 63, 64, 3), np.uint8)},
        "frames of three dimensions": {"frames": np.zeros((64, 64, 3), np.uint8)},
        "no frames": {"frames": np.zeros((0, 64, 64, 3), np.uint8)},
        "frames that are text": {"frames": np.array(["<script>"])},
        "frames that are NaN": {"frames": np.full((1, 64, 64, 3), np.nan)},
        "100 MB of frames, and one seed": {"frames": np.zeros((8138, 64, 64, 3), np.uint8)},
        "a state of another shape": {"state": np.zeros((1, 3), np.float32)},
        "a state of NaN": {"state": np.full_like(state, np.nan)},
        "a state of infinity": {"state": np.full_like(state, np.inf)},
        "more states than frames": {"state": np.zeros((5, state.shape[1]), np.float32)},
        "a seed below zero": {"seed": np.array([-1])},
        "a seed too large": {"seed": np.array([2**63 - 1])},
        "a step below zero": {"step": np.array([-1])},
        "two seeds": {"seed": np.array([1, 2])},
        "a seed that is text": {"seed": np.array(["one"])},
    }
    for what, changes in bad.items():
        try:
            reply = model.predict({**good, **changes})
            if not all(np.isfinite(value).all() for value in reply.values()):
                lost.append(f"{what}: it is answered with {reply['actions'].ravel()[:2]}")
        except Exception as error:
            kind, text = type(error).__name__, str(error)
            if not isinstance(error, UserError | ValueError | TypeError) and kind != "MlflowException":
                lost.append(f"{what}: {kind}: {text[:150]}")
            said.append(" ".join(text.split())[:110])
    for key in good:
        try:
            model.predict({name: value for name, value in good.items() if name != key})
            lost.append(f"without {key}: it is answered")
        except Exception as error:
            if type(error).__name__ not in ("UserError", "ValueError", "MlflowException"):
                lost.append(f"without {key}: {type(error).__name__}: {str(error)[:100]}")
    if not np.array_equal(model.predict(dict(good))["actions"], answer):
        lost.append("a good request has another answer afterwards")
    return Outcome(tries=len(bad) + len(good), lost=lost, said=said[:1])


def _page(folder: Path) -> Outcome:
    """HTML in what a page shows: the report of an agent whose records have it."""
    lost, mark = [], "<img src=x onerror=alert(1)>"
    for path in Path("runs/tiny").rglob("summary.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, mark: 1.0}))
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(f"# {mark}\n{text}")
    log = folder / "log"
    code = forks.fork(lambda: __import__("wm.cli").cli.main(["report", "tiny"]), log)
    page = Path("tiny.html").read_text() if Path("tiny.html").exists() else ""
    if code and not forks.is_sentence(log):
        lost.append(f"report: exit {code}: {forks.last(log)}")
    if mark in page:
        lost.append("report: HTML of a record is in the page as it is")
    return Outcome(lost=lost, said=[forks.last(log)[:100]] if code else ["nothing; it is shown as text"])


def run(each: str, folder: Path) -> Outcome:
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    forks.project(folder / "project", "evaluate")
    if each == "requests":
        return _requests(folder)
    if each == "pages":
        assert forks.fork(lambda: forks.run("evaluate")) == 0
        return _page(folder)
    lost, said, tries = [], [], 0

    def say(words: list[str], what: str) -> None:
        nonlocal tries
        tries += 1
        log = folder / "log"
        log.unlink(missing_ok=True)
        if words[0] in ("evaluate", "train_vae"):
            shutil.rmtree(Path("runs/tiny") / words[0], ignore_errors=True)
        code = forks.fork(lambda: __import__("wm.cli").cli.main(words), log)
        text = log.read_text(errors="replace")
        if code and not (forks.is_sentence(log) or "usage:" in text):
            lost.append(f"{words[0]}, {what}: exit {code}: {forks.last(log)[:150]}")
        if SECRET in text or sorted(os.listdir(outside)) != ["secret"] or "root:x:0" in text:
            lost.append(f"{words[0]}, {what}: it reaches outside")
        if any(Path(place, "pwned").exists() for place in (".", "/tmp")):
            lost.append(f"{words[0]}, {what}: it ran")
        if code and len(said) < 2:
            said.append(forks.last(log)[:110])

    {"names": _names, "models": _models, "data sets": _data}[each](say)
    return Outcome(tries=tries, lost=lost, said=said)


def unguarded() -> None:
    """A mistake is raised as it is, and no checksum is looked at."""
    from faults import flipped_bits, params_fuzz

    params_fuzz.unguarded()
    flipped_bits.unguarded()


ROW = Row(
    fault="hostile names, models, data sets, requests to the served agent (NaN, wrong shapes, 100 MB), HTML in records",
    tries=("names", "models", "data sets", "requests", "pages"),
    run=run,
    limit=900,
    unguarded=unguarded,
)
