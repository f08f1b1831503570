"""Does the gauge tell a dream made bad on purpose from those of finished agents?

    python -m bench.gauge pretrained/take_cover pretrained/car_racing --bad pretrained/car_racing

The gauge (`wm.search.gauge`) of each agent's dream; and of one whose M was trained for 50 steps on episodes that the
agent of `--bad` plays, with that agent's V, and a C that imitates its C on what the new M makes of these episodes.
"""

from __future__ import annotations

import wm  # noqa: F401  # isort: skip  before NumPy, whose kernels it chooses

import argparse
import tempfile
from pathlib import Path

from wm.core.workspace import Workspace
from wm.models.controller import ControllerSpec, save_controller
from wm.models.mdnrnn import load_mdnrnn
from wm.play import agent as agents
from wm.release import places, surprise, trust
from wm.release.places import Place
from wm.search.start import inherited
from wm.stages.encode import EncodeConfig, encode
from wm.stages.train_mdn import TrainMDNConfig, train_mdn

SEED = 30_000
"""Of the first episode that is played for M."""


def bad(place: Place, episodes: int, steps: int, scratch: Path) -> Place:
    """An agent as `place`'s, but for an M that was trained for so many steps on so many of its episodes."""
    agent, _, about = agents.load(place.folder)
    world, data = about["world"], scratch / "data"
    data.mkdir()
    surprise.play(place, range(SEED, SEED + episodes), data)
    (scratch / "nothing").mkdir()
    config = TrainMDNConfig(steps=steps, batch=16, length=128, learning_rate=1e-3, model=agent.mdnrnn.config)
    with (
        Workspace("encode", place.name, "0" * 16, scratch) as latents,
        Workspace("train_mdn", place.name, "0" * 16, scratch) as mdnrnn,
    ):
        encode(EncodeConfig(), data, place.folder, latents)
        train_mdn(config, world, 0, latents.out, place.folder, scratch / "nothing", mdnrnn)
        folder = scratch / "bad"
        folder.mkdir()
        agents.save(place.folder, mdnrnn.out, folder, latents.out)
        memory, spec = load_mdnrnn(folder), ControllerSpec(agent.inputs, agent.layout)
        start = inherited(place.folder, folder, latents.out, memory, spec)
    save_controller(start.params, spec.layout, world, spec.inputs, folder, sampled=about["sampled"])
    return Place(f"{place.name}, M of {steps} steps", folder, mdnrnn.out, place.tau)


def main() -> None:
    """Prints a paragraph a dream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", nargs="*", metavar="AGENT", help="a folder that holds an agent, or a name")
    parser.add_argument("--bad", metavar="AGENT", help="whose dream is made bad")
    parser.add_argument("--steps", type=int, default=50, help="of the bad M's training; default: 50")
    parser.add_argument("--data", type=int, default=24, help="episodes that it is trained on; default: 24")
    parser.add_argument("--sigma", type=float, default=0.1, help="spread of the disturbances; default: 0.1")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = [places.find(name) for name in args.agents]
        if args.bad:
            found.append(bad(places.find(args.bad), args.data, args.steps, Path(scratch)))
        for place in found:
            print(trust.sentences(place, trust.measure(place, args.sigma, 16, 4), args.sigma), flush=True)


if __name__ == "__main__":
    main()
