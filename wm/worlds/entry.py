"""An entry of `worlds` in params.yaml: who plays."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from wm import worlds
from wm.core.config import Config


class WorldEntry(Config):
    """Who plays: a class of this repository (`own`), or any Gymnasium environment by its id (`gym`)."""

    model_config = ConfigDict(populate_by_name=True)

    own: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*(/[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="the class that plays it, as path/module:Class from the repository's top",
    )
    gym: str | None = Field(None, description="the id of a Gymnasium environment: LunarLander-v3, ALE/Pong-v5")
    module: str | None = Field(None, alias="import", description="imported first, where that registers the id: ale_py")
    kwargs: dict[str, Any] = Field({}, description="what the environment is made with: {continuous: true}")
    crop: list[int] | None = Field(
        None, min_length=4, max_length=4, description="what V sees of a picture: top, bottom, left, right, in pixels"
    )
    frame_skip: int = Field(1, ge=1, description="steps of the environment that an action lasts")
    max_steps: int | None = Field(None, ge=1, description="actions in an episode at most; null: the environment's own")
    solved: float | None = Field(None, description="mean score from which it counts as solved; null for none")

    @model_validator(mode="after")
    def _one_of_two(self) -> WorldEntry:
        if (self.own is None) == (self.gym is None):
            raise ValueError("names a world by `own` (path/module:Class) or by `gym` (an id): expected one of the two")
        if self.own and (more := self.model_fields_set - {"own"}):
            raise ValueError(f"has `own`, whose class says the rest itself: remove {sorted(more)[0]}")
        return self

    @property
    def entry_point(self) -> str:
        """As Python imports it: wm.worlds.car_racing.world:CarRacing."""
        return self.own.replace("/", ".") if self.own else worlds.BY_ID

    def options(self, name: str) -> dict[str, Any]:
        """What the class is made with."""
        return {} if self.own else {"name": name, **self.model_dump(exclude={"own"})}
