"""What does a controller lose when V and M are trained further, and does imitating the earlier agent bring it back?

    python -m bench.imitation dreamer-2 [--episodes 24] [--json]

NAME is an agent of params.yaml whose round has another V and M than the agent it starts from, both finished in runs/.
Scored on the selection episodes of NAME's round, in the fast drawing: the earlier agent as it is, its weights on the
new V and M, and the controller that imitates it there (`wm.search.imitation`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from wm import params, worlds
from wm.core import seeds
from wm.models.controller import load_controller
from wm.models.mdnrnn import load_mdnrnn
from wm.play import agent as agents
from wm.play.cluster import Cluster
from wm.run import RUNS
from wm.search.fitness import WorldPlayer
from wm.search.imitation import imitate


def measure(name: str, episodes: int) -> dict[str, np.ndarray]:
    """Scores [episodes] of the three."""
    everything = params.load()
    entry = everything.agents[name]
    experiment = everything.experiments[entry.experiment]
    model, before = RUNS / entry.model, RUNS / entry.after / "evolve"
    world, config = worlds.get(entry.world), experiment.evolve
    memory = load_mdnrnn(model / "train_mdn")
    spec = agents.controller_spec(world, memory, config.inputs, config.hidden)
    inherited, _, about = load_controller(before)
    imitated = imitate(model / "encode", agents.AgentFiles.read(before).digest, memory, spec)
    if imitated is None:
        raise SystemExit(f"{entry.after} drove in none of the episodes of {entry.model}")
    numbers = seeds.episodes(entry.seed, seeds.Purpose.SELECTION, about["round"] + 1, count=episodes)
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        agents.save(model / "train_vae", model / "train_mdn", Path(folder))

        def play(shared: Path, candidates: list[np.ndarray]) -> np.ndarray:
            files = agents.AgentFiles.read(shared)
            player = WorldPlayer(config, entry.world, spec, config.sampled, cluster, files)
            return player.scores(np.stack(candidates), numbers)[0]

        (earlier,) = play(before, [inherited])
        weights, imitation = play(Path(folder), [inherited, imitated])
    return {"earlier agent": earlier, "its weights, new V and M": weights, "imitated, new V and M": imitation}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="an entry of `agents` in params.yaml")
    parser.add_argument("--episodes", type=int, default=24, help="selection episodes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    found = measure(args.name, args.episodes)
    if args.json:
        print(json.dumps({name: scores.tolist() for name, scores in found.items()}))
        return
    for name, scores in found.items():
        print(f"{name:28} {scores.mean():7.1f} ± {scores.std():.1f} over {len(scores)} tracks")


if __name__ == "__main__":
    main()
