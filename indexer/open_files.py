"""How many files a process may hold open: an index takes two a shard, where systems often
give 1,024."""

from __future__ import annotations

import errno
import io
import mmap
import os

from training.errors import ResourceError

try:
    import resource
except ImportError:  # not on Windows, where files are not limited so
    resource = None  # type: ignore[assignment]

_OTHERS = 256  # files that a process opens besides
_OPEN_NOW = "/dev/fd"


def allow_open_files(count: int) -> None:
    """Let this process open so many files more, as far as the system lets it.

    Only the soft limit is raised, and only if it is too low; what is opened beyond the hard one
    fails then, with a ResourceError.
    """
    if resource is None or not os.path.isdir(_OPEN_NOW):
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir(_OPEN_NOW)) + count + _OTHERS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def map_whole(handle: io.BufferedReader) -> mmap.mmap:
    """An open file in memory, read-only; one more open file until the map is given back.

    Raises:
        ValueError: it is empty.
        ResourceError: too many files are open.
    """
    try:
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        meant = too_many_files(error)
        if meant is None:
            raise
        raise meant from error


def too_many_files(error: Exception) -> ResourceError | None:
    """The error that is meant if a file was not opened because too many are; None for others."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceError(
            "too many open files: an index needs two a shard; raise the limit "
            "(ulimit -n), or build with more images a shard (build-index --shard-rows)"
        )
    return None
