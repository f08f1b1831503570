"""The base of every configuration: frozen, keyword-only, strict, and each field says what it is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """One section of params.yaml. An unknown key, a wrong type or an impossible value is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
