"""One writer an index: a lock that dies with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import LockedError
from training.files import as_resource_error

LOCK_NAME = "lock"


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the index in `folder` for writing; the folder is made if it is missing.

    The kernel drops the lock when the process ends, however it ends, so there are no stale locks;
    the file stays, since removing it would let a third process lock another file of that name.

    Raises:
        LockedError: at once, if another process holds it; the message names its pid.
        ResourceError: if the folder cannot be written to.
    """
    with as_resource_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Not inherited by children (Python's default): a surviving worker must not hold the lock.
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise LockedError(
                f"{folder}: process {owner} is writing to this index; wait for it to end, "
                "or give another folder with --out"
            ) from None
        with as_resource_error(folder):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def check_unlocked(folder: Path) -> None:
    """Raise LockedError if another process writes to `folder`; for a quick answer before long work.

    Creates nothing. Another process may still be first to take the lock afterwards.
    """
    if (folder / LOCK_NAME).exists():
        with writer_lock(folder):
            pass
