"""Errors that a user can cause or meet, each with the exit code of the `retrieve` command.

Raised anywhere in the four packages, caught once in `retrieval/cli.py`. A message says what was
wrong, with the value, and what to do next.
"""


class RetrieveError(Exception):
    """Base of all expected errors; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(RetrieveError):
    """A wrong argument: an unknown attribute, a contradictory condition, k < 1."""

    exit_code = 2


class DataError(RetrieveError):
    """Bad input data: a missing file, a malformed line, an unreadable image, a wrong checkpoint."""

    exit_code = 3


class CorruptStoreError(RetrieveError):
    """A file of an index does not have the content that its manifest promises."""

    exit_code = 4


class LockedError(RetrieveError):
    """Another process writes to the same index."""

    exit_code = 5


class ResourceError(RetrieveError):
    """Out of disk, memory or permission."""

    exit_code = 6
