"""An entry of `worlds` in params.yaml: who plays."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from wm import worlds
from wm.core.config import Config

PLAYED: dict[str, tuple[str, ...] | None] = {
    "own": (),
    "installed": (),
    "recordings": ("max_steps", "solved"),
    "gym": None,
}
"""Key that says who plays -> the keys that may stand beside it; None for all."""


class WorldEntry(Config):
    """Who plays: a class of this repository (`own`) or of an installed package (`installed`), any Gymnasium environment
    by its id (`gym`); or nobody, where there are `recordings`."""

    model_config = ConfigDict(populate_by_name=True)

    own: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*(/[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="the class that plays it, as path/module:Class from the repository's top",
    )
    installed: str | None = Field(
        None, description="the class that plays it, as an installed package names it among its entry points `wm.worlds`"
    )
    recordings: str | None = Field(
        None,
        pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$",
        description="the folder of episodes that `wm data import` made, where there is no environment",
    )
    gym: str | None = Field(None, description="the id of a Gymnasium environment: LunarLander-v3, ALE/Pong-v5")
    module: str | None = Field(None, alias="import", description="imported first, where that registers the id: ale_py")
    kwargs: dict[str, Any] = Field({}, description="what the environment is made with: {continuous: true}")
    crop: list[int] | None = Field(
        None, min_length=4, max_length=4, description="what V sees of a picture: top, bottom, left, right, in pixels"
    )
    frame_skip: int = Field(1, ge=1, description="steps of the environment that an action lasts")
    max_steps: int | None = Field(
        None, ge=1, description="actions in an episode at most; null: the environment's own, or the longest recording's"
    )
    solved: float | None = Field(None, description="mean score from which it counts as solved; null for none")

    @model_validator(mode="after")
    def _one_of_four(self) -> WorldEntry:
        if len(named := [key for key in PLAYED if getattr(self, key)]) != 1:
            raise ValueError(
                "names a world by `own` (path/module:Class), `gym` (an id), `installed` (an entry point) or "
                f"`recordings` (a folder): expected one of them, not {' and '.join(named) or 'none'}"
            )
        if (takes := PLAYED[named[0]]) is not None and (more := self.model_fields_set - {named[0], *takes}):
            key = type(self).model_fields[sorted(more)[0]].alias or sorted(more)[0]
            raise ValueError(f"has `{named[0]}`, whose own files say the rest: remove {key}")
        return self

    @property
    def entry_point(self) -> str:
        """As Python imports it: wm.worlds.car_racing.world:CarRacing."""
        if self.own:
            return self.own.replace("/", ".")
        return worlds.RECORDED if self.recordings else worlds.INSTALLED if self.installed else worlds.BY_ID

    def options(self, name: str) -> dict[str, Any]:
        """What the class is made with."""
        if self.own:
            return {}
        if self.recordings or self.installed:
            key = "recordings" if self.recordings else "installed"
            return {"name": name, **self.model_dump(include={key, *(PLAYED[key] or ())})}
        return {"name": name, **self.model_dump(exclude={"own", "installed", "recordings"})}
