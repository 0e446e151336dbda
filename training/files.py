"""Files that appear whole or not at all: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

from training.errors import DataError, ResourceError

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """A name in `folder` (made if missing) to write to and hand to `commit`; else it is removed.
    Raises ResourceError instead of any OSError within the block."""
    path = folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
    try:
        with as_resource_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
            yield path
    finally:
        with suppress(OSError):  # it must not hide why the block failed
            path.unlink(missing_ok=True)


@contextmanager
def as_resource_error(where: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ResourceError that names the path."""
    try:
        yield
    except OSError as error:
        message = f"cannot write {where if error.filename is None else error.filename}"
        if error.errno == errno.ENOSPC:
            message = f"the disk is full: {message}; free some space, run again"
        else:
            message += f": {(error.strerror or str(error)).lower()}"
        raise ResourceError(message) from error


def commit(temporary: Path, final: Path) -> None:
    """Give a written file its name; after a crash `final` is what it was or the new file, whole."""
    _sync(temporary)
    os.replace(temporary, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file; raises ResourceError."""
    with temporary_file(path.parent) as temporary:
        temporary.write_bytes(content)
        commit(temporary, path)


def remove_temporaries(folder: Path, apart: str) -> None:
    """Remove what killed writers left in `folder` and below, but in the folder `apart` of it; only
    for the holder of the lock."""
    for path in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        if path.relative_to(folder).parts[0] != apart:
            path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def leaves_root(path: str) -> bool:
    """Whether a path, of any characters, is no path inside a folder: empty, absolute (POSIX or
    Windows, with or without a drive), with a `..` part or a NUL character."""
    # Nearly every path ends here, and a dataset has hundreds of thousands of them.
    if path and path[0] not in "/\\" and ".." not in path and ":" not in path and "\0" not in path:
        return False
    windows = PureWindowsPath(path)
    return not path or "\0" in path or bool(windows.anchor) or ".." in windows.parts


def relative_path(path: str, where: str) -> str:
    """`path`, which a label file names at `where` (file and line), as all write it: `./a//b` is
    `a/b`; raises DataError if it `leaves_root`."""
    if leaves_root(path):
        raise DataError(
            f"{where}: {path!r} is not a path inside the dataset's folder; "
            "give it relative to that folder, without '..'"
        )
    if "//" in path or path.startswith("./") or "/./" in path or path.endswith("/"):
        return posixpath.normpath(path)
    return path
