"""Errors that a user can cause, and that a sentence can explain."""

import re


class UserError(Exception):
    """One sentence that names the thing, the value and what to do; the command line prints it and exits with `code`."""

    code = 2


def without_password(text: str) -> str:
    """A text for people and logs, in which no address says who asks, nor with which password."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


class WorldError(UserError):
    """A world's environment raised an error of its own; names the world, the seed and the step."""

    code = 1


class DamagedData(UserError):
    """A file on disk is not what its checksum says; named before any work starts."""

    code = 1
