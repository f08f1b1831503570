"""A lock on a file, also on file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What shares answer that cannot lock: some FUSE, Lustre and 9p mounts, NFS without its lock daemon."""


def lock(path: Path, **options: Any) -> BaseFileLock:
    """A lock that is free once its process is gone. Where the file system cannot lock, the existence of `<path>.held`
    is the lock; the next process on this machine takes it from one that is gone.

    Args:
        options: of `filelock.FileLock`.
    """
    path = Path(path)
    if _can_lock(path):
        return FileLock(path, **options)
    return SoftFileLock(path.with_name(f"{path.name}.held"), **options)


def _can_lock(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # no folder yet, or not ours: whoever takes the lock is told
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_UN)  # of a lock that this handle has not: others' stay
    except OSError as error:
        return error.errno not in NO_LOCKS
    finally:
        os.close(handle)
    return True
