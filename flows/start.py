"""How a command began: what the flow that it runs takes from it. A deployment has no command, and begins by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Start:
    """The beginning of a run.

    Attributes:
        began: in seconds since 1970; a budget counts from then.
        listen: called as the flow begins, to take back the SIGTERM that Prefect's engine has taken, which would wait
            for the stage under way.
    """

    began: float = field(default_factory=time.time)
    listen: Callable[[], None] = lambda: None


_START: ContextVar[Start | None] = ContextVar("start", default=None)


@contextmanager
def given(start: Start) -> Iterator[None]:
    """Flows that are called inside begin so."""
    token = _START.set(start)
    try:
        yield
    finally:
        _START.reset(token)


def current() -> Start:
    """The command's, or one of now."""
    return _START.get() or Start()
