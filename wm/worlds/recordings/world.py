"""A world of which there are only recordings: a folder that `wm data import` made, and no environment.

    worlds:
      arm: {recordings: data/arm}

V and M learn from the recordings as from episodes that were played; C is evolved in the dream alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces

from wm.core import files
from wm.core.errors import DamagedData, UserError
from wm.worlds.base import Spec
from wm.worlds.by_id.actions import ActionsWorld, actions_of

ABOUT = "world.json"
"""Beside the episodes: {"actions", "longest", "fps", "source"}."""


class RecordedWorld(ActionsWorld):
    """The world `name` that the episodes in a folder are of.

    Args:
        name: of the entry in `worlds`.
        recordings: the folder.
        max_steps: steps of a dream at most; None for the longest recording's.
        solved: mean score from which it counts as solved; None for none.
    Raises:
        UserError: the folder is not here.
        DamagedData: what it says of itself is not whole.
    """

    def __init__(self, *, name: str, recordings: str, max_steps: int | None = None, solved: float | None = None):
        self.recordings = Path(recordings)
        if not (self.recordings / ABOUT).is_file():
            raise UserError(
                f"worlds.{name}.recordings is {recordings}, and {self.recordings / ABOUT} is not here: run `dvc pull "
                f"{recordings}`, or make it with `python -m wm data import`"
            )
        about = files.read_record(self.recordings / ABOUT)
        try:
            self.actions = actions_of(space_of(about["actions"]), name)
            longest, fps = about["longest"], about["fps"]
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedData(f"{self.recordings / ABOUT} lacks {error}: import the recordings again") from None
        if max_steps is not None and max_steps < longest:
            raise UserError(f"worlds.{name}.max_steps is {max_steps}, and the longest recording has {longest} steps")
        self.spec = Spec(
            name=name,
            action_size=self.actions.size,
            max_steps=max_steps or longest,
            drawings=("recorded",),
            controller_inputs=("z", "h", "c"),
            controller_bias=True,
            predicts_restart=False,
            solved=solved,
            fps=fps,
            symlog_rewards=True,
        )

    def make(self, drawing: str | None = None) -> NoReturn:
        raise UserError(
            f"the world {self.spec.name} is recordings ({self.recordings}), so there is no environment to play: name "
            "one by `gym` or `own` in `worlds` of params.yaml"
        )


def describe(space: spaces.Space) -> dict[str, Any]:
    """An action space as JSON.

    Raises:
        ValueError: it is of a kind that C cannot write.
    """
    if isinstance(space, spaces.Box):
        return {"kind": "Box", "low": space.low.tolist(), "high": space.high.tolist(), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": np.asarray(space.start).tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": list(space.n) if isinstance(space.n, tuple | list) else int(space.n)}
    raise ValueError(f"the actions are {space}: expected Box, Discrete, MultiDiscrete or MultiBinary")


def space_of(described: dict[str, Any]) -> spaces.Space:
    """What `describe` described."""
    numbers = {key: value for key, value in described.items() if key != "kind"}
    if described["kind"] == "Box":
        low, high = (np.array(numbers[key], numbers["dtype"]) for key in ("low", "high"))
        return spaces.Box(low, high, dtype=np.dtype(numbers["dtype"]).type)
    return getattr(spaces, described["kind"])(**numbers)
