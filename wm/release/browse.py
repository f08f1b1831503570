"""What there is to browse before anything was run: the agents of pretrained/ as registered models of MLflow.

Each is the run of an evaluation with its scores, their picture, the digests of the data behind it and the command that
makes it again. A film and a page to dream in take longer: a process beside MLflow's server makes and adds them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from wm import params as parameters
from wm import worlds
from wm.core import files, watchdog
from wm.core.errors import UserError
from wm.pictures import figures
from wm.records import provenance, spool, store, tracking
from wm.records.delivery import Delivery
from wm.records.spool import Entry
from wm.release import page as pages
from wm.release import pretrained

SCRATCH = Path(".wm", "browse")
"""Where films and pages are made, a folder an agent."""
FILM, PAGE = Path("films", "drive.mp4"), Path("pages", "dream.html")
STEPS = 400
"""Of the film."""


def register(root: Path) -> list[str]:
    """Registers the agents of pretrained/ that MLflow does not have; returns the names of those. One that is damaged is
    left out, with a warning: the rest can be browsed.

    Args:
        root: the repository's top.
    """
    os.environ.setdefault("MLFLOW_TRACKING_URI", tracking.uri(root))  # as in the process beside a run
    client, new = tracking.connect(root), []
    delivery = Delivery(client, tracking.uri(root))
    with contextlib.chdir(root):
        for name in _names():
            try:
                entry = _entry(root, name)
            except UserError as error:
                tracking.warn(f"the agent in {pretrained.FOLDER / name} is not registered: {error}")
                continue
            if _is_there(client, entry.run):
                entry.delete()
                continue
            _send(delivery, entry)
            new.append(name)
    return new


def start_films(root: Path) -> None:
    """Starts the process that makes what is missing; it ends with this one, or with what this one becomes."""
    log = root / SCRATCH / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "MLFLOW_TRACKING_URI": store.address(root), watchdog.VARIABLE: watchdog.ticket()}
    with log.open("w") as file:
        subprocess.Popen(
            [sys.executable, "-m", "wm.release.browse", str(root)],
            cwd=root,
            env=env | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )


def add(name: str, root: Path) -> None:
    """Tells MLflow what there is of an agent now, on the run that it has."""
    _send(Delivery(tracking.connect(root), tracking.uri(root)), _entry(root, name))


def _names() -> list[str]:
    return sorted(path.parent.name for path in pretrained.FOLDER.glob("[!.]*/made.json"))


def _entry(root: Path, name: str) -> Entry:
    """The report about an agent, as a stage leaves one in the spool: with the same key each time."""
    agent, out = pretrained.folder(name), SCRATCH / name
    made, scores = files.read_record(agent / "made.json"), files.read_json(agent / "scores.json")
    data = {stage["address"]: stage for stage in made["stages"] if stage["address"].startswith("collect@")}
    key = f"pretrained-{name}-{files.sha256(agent / 'made.json')[:12]}"
    summary = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    (out / "figures").mkdir(parents=True, exist_ok=True)
    files.write_json(out / "summary.json", summary)
    files.write_json(out / "scores.json", scores)
    if not (out / "figures" / "scores.png").exists():
        interval = scores["ci95_low"], scores["ci95_high"]
        figures.scores(
            scores["scores"], out / "figures" / "scores.png", references=_references(made["world"]), interval=interval
        )
    run = {
        "key": key,
        "kind": "stage",
        "stage": "evaluate",
        "name": f"pretrained-{name}",
        "world": made["world"],
        "experiment": name,
        "config": {**made["experiment"]["evaluate"], "tau": made["tau"]},
        "inputs": {address: stage["output"] for address, stage in data.items()},
        "datasets": {address: {"md5": stage["output"], "numbers": stage["summary"]} for address, stage in data.items()},
        "models": [],
        "output": str(out),
        "model": str(agent),
        "live": None,
        "parent": None,
        "commit": made["commit"],
        "dirty": False,
        "user": provenance.user(),
        "machine": made["processor"],
        "command": made["command"],
        "start_ms": int(1000 * (agent / "made.json").stat().st_mtime),
    }
    entry = Entry(root / ".wm" / "spool" / key)
    entry.folder.mkdir(parents=True, exist_ok=True)
    files.write_json(entry.folder / "run.json", run)
    entry.close(spool.FINISHED, summary=summary, output_digest=provenance.digest(out))
    return entry


def _references(world: str) -> dict[str, float]:
    """What scores of a world are compared with; nothing where the world is one that nobody knows here."""
    if parameters.FILE.exists():
        parameters.load()
    return worlds.get(world).spec.references if world in worlds.names() else {}


def _is_there(client: Any, run: dict[str, Any]) -> bool:
    found = client.get_experiment_by_name(run["world"])
    asked = f"tags.`wm.key` = '{run['key']}' and status = 'FINISHED'"
    return bool(found and client.search_runs([found.experiment_id], asked, max_results=1))


def _send(delivery: Delivery, entry: Entry) -> None:
    delivery.begin(entry)
    delivery.finish(entry, entry.end or {})


def _add_films(root: Path) -> None:
    """Makes the film and the page of each agent that lacks one, and tells MLflow; what cannot be made is in the log."""
    for name in _names():
        film, page = SCRATCH / name / FILM, SCRATCH / name / PAGE
        watch = ["watch", name, "--pretrained", "--steps", str(STEPS), "--out", str(film)]
        demo = ["agent", "demo", str(pretrained.FOLDER / name), "--out", str(page)]
        wanted = [(film, watch), *([(page, demo)] if pages.BUILT.is_file() else [])]  # to build it asks npm's server
        missing = [words for path, words in wanted if not path.exists()]
        made = [words for words in missing if subprocess.run([sys.executable, "-m", "wm", *words]).returncode == 0]
        if made:
            add(name, root)


if __name__ == "__main__":
    os.nice(10)
    watchdog.start()
    _add_films(Path(sys.argv[1]))
