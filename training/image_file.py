"""Reading the bytes of an image file, whatever lies under its name, without ever blocking."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from training.errors import DataError

BYTE_LIMIT = 256 * 2**20
"""Most bytes of an image file."""

NO_VERSION = (-1, -1)

_TICK_NS = 100_000_000  # clocks of file systems move in steps of up to some 10 ms


@dataclass(frozen=True)
class ImageFile:
    """The bytes of an image file, and its `file_version`: -1, -1 if it changed so shortly before
    that a further change might bear the same time."""

    content: bytes
    version: tuple[int, int]


def file_version(status: os.stat_result) -> tuple[int, int]:
    """Size in bytes and time of the last change of status, ns: another version, another pair.

    The time of modification will not do: tools that copy, unpack or restore set it back.
    """
    return status.st_size, status.st_ctime_ns


def shown_path(path: Path) -> str:
    """The path with bytes that are not UTF-8 escaped, so that it can be printed anywhere."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def read_image_file(path: Path, limit_bytes: int = BYTE_LIMIT) -> ImageFile:
    """Read a regular file, or what a link leads to.

    Raises:
        DataError: if it is missing, unreadable, not a regular file, empty or too large.
    """
    shown = shown_path(path)
    try:
        # Looked at first: to open a device can have effects of its own.
        _check(os.stat(path), shown, limit_bytes)
        # O_NONBLOCK: a named pipe that has just taken the file's place must not hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            _check(status, shown, limit_bytes)
            with os.fdopen(descriptor, "rb", closefd=False) as handle:
                content = handle.read(limit_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataError(f"{shown}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{shown}: {error}") from error
    if not content:
        raise DataError(f"{shown}: empty file")
    if len(content) > limit_bytes:
        raise DataError(f"{shown}: grew beyond {limit_bytes:,} bytes while it was read")
    fresh = abs(time.time_ns() - status.st_ctime_ns) < _TICK_NS
    return ImageFile(content, NO_VERSION if fresh else file_version(status))


def _check(status: os.stat_result, shown: str, limit_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "is a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise DataError(f"{shown}: {what}")
    if status.st_size > limit_bytes:
        raise DataError(
            f"{shown}: {status.st_size:,} bytes, more than the {limit_bytes:,} that are read"
        )
