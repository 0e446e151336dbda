"""How many files a process may hold open: an index takes two a shard, systems often give 1,024."""

from __future__ import annotations

import errno

from training.errors import ResourceError

try:
    import resource
except ImportError:  # not on Windows, where files are not limited so
    resource = None  # type: ignore[assignment]

_OTHERS = 256  # files that a process has open besides


def allow_open_files(count: int) -> None:
    """Let this process hold so many files open besides others, as far as the system lets it.

    Only the soft limit is raised, and only if it is too low; what is opened beyond the hard one
    fails then, with a ResourceError.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHERS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def too_many_files(error: Exception) -> ResourceError | None:
    """The error that is meant if a file was not opened because too many are; None for others."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceError(
            "too many open files: an index needs two a shard; raise the limit (ulimit -n), or "
            "build with more images a shard (build-index --shard-rows)"
        )
    return None
