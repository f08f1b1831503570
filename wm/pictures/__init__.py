"""Pictures and films for people; their bytes are compared as those of other outputs, so no personal setting counts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# A backend that is not installed here, of the notebook whose shell this is, ends matplotlib's import with a traceback.
_backend = os.environ.pop("MPLBACKEND", None)
import matplotlib  # noqa: E402

if _backend:
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend
        os.environ["MPLBACKEND"] = _backend

from wm.core.errors import UserError  # noqa: E402

DEFAULTS = {
    key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(("backend", "_", "date"))
}
"""matplotlib's settings as its authors chose them, whatever a matplotlibrc says."""


@contextmanager
def plain(**settings: object) -> Iterator[None]:
    """Inside `with`, matplotlib draws with DEFAULTS and these settings alone."""
    with matplotlib.rc_context({**DEFAULTS, **settings}):
        yield


@contextmanager
def decoration(what: str) -> Iterator[None]:
    """Inside `with`, a mistake in drawing costs the pictures and a warning, not the hours of work that they show.

    The outputs are still a function of the inputs, since such a mistake is. What a machine refuses (disk, memory, a
    program that is missing) is not one, so it ends the stage: elsewhere the same inputs give the pictures too.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        if "memory" in str(error).lower():  # PyTorch's, which is a RuntimeError
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(
            f"warning: {what} could not be drawn, and the outputs are without ({reason})", file=sys.stderr, flush=True
        )
