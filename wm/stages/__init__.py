"""The table of stages: whose each one is, what it reads, and the code that decides what it writes.

Pure data that imports nothing, so whoever needs a stage's name need not load PyTorch. dvc.yaml says the same to DVC, in
its own words; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage.

    Attributes:
        name: in dvc.yaml, in params.yaml, of the module in this folder, of the function in it.
        of: the section of params.yaml whose entries have it.
        reads: argument of the function -> (whose output: the entry's "own", or that of the entry which its key
            `after`, `actor` or `model` names; of which stage).
        own: keys of the entry that the function is given.
        code: files and rooms of wm/ that decide its bits. A stage that plays also depends on the code of its world
            (`code_of`).
        plays: whether the world's own code is part of it.
        description: a sentence without its subject and its full stop: "trains V".
    """

    name: str
    of: Literal["models", "agents"]
    reads: Mapping[str, tuple[str, str]]
    own: tuple[str, ...]
    code: tuple[str, ...]
    plays: bool
    description: str

    def code_of(self, world: str) -> tuple[str, ...]:
        """All code that decides its bits, as paths from the repository's top.

        Args:
            world: the path of the files that play the world: `code` of the entry.
        """
        own = (f"wm/stages/{self.name}.py", *(f"wm/{part}" for part in self.code))
        return (*own, "wm/worlds/base.py", world) if self.plays else own


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="collect",
            of="models",
            reads={"previous": ("after", "collect"), "actor": ("actor", "evolve")},
            own=("world", "seed"),
            code=("checks", "core", "models", "pictures", "play"),
            plays=True,
            description="plays episodes of the world, with a random policy or the last round's agent, and keeps frames",
        ),
        Stage(
            name="train_vae",
            of="models",
            reads={"data": ("own", "collect"), "previous": ("after", "train_vae")},
            own=("world", "seed"),
            code=("stages/training.py", "core", "models", "pictures"),
            plays=False,
            description="trains V, the variational autoencoder: a frame becomes a small latent vector z",
        ),
        Stage(
            name="encode",
            of="models",
            reads={"data": ("own", "collect"), "vae": ("own", "train_vae")},
            own=(),
            code=("core", "models", "pictures"),
            plays=False,
            description="lets V look at every frame once: mean and log-variance of z, from which M learns",
        ),
        Stage(
            name="train_mdn",
            of="models",
            reads={"latents": ("own", "encode"), "vae": ("own", "train_vae"), "previous": ("after", "train_mdn")},
            own=("world", "seed"),
            code=("stages/training.py", "core", "models", "pictures"),
            plays=True,
            description="trains M, the LSTM with a mixture density output: which z comes next",
        ),
        Stage(
            name="evolve",
            of="agents",
            reads={
                "vae": ("model", "train_vae"),
                "mdnrnn": ("model", "train_mdn"),
                "latents": ("model", "encode"),
                "previous": ("after", "evolve"),
            },
            own=("world", "seed", "tau"),
            code=("core", "models", "pictures", "play", "dream", "search"),
            plays=True,
            description="searches C, a linear controller on z and M's memory, by CMA-ES in the world or in M's dream",
        ),
        Stage(
            name="evaluate",
            of="agents",
            reads={"agent": ("own", "evolve")},
            own=("world",),
            code=("core", "models", "pictures", "play"),
            plays=True,
            description="scores the agent on test episodes that no other stage has seen, and films it",
        ),
    )
}
"""In the order in which they run."""


def of(section: str) -> tuple[str, ...]:
    """The names of the stages that entries of `models` or of `agents` have."""
    return tuple(stage.name for stage in STAGES.values() if stage.of == section)
