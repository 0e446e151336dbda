"""Naming a new file of an index by its content, and checking a file before anything parses it."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

from indexer.manifest import ArrayPlace, FileEntry, remedy
from training.errors import CorruptStoreError, ResourceError
from training.files import commit

try:
    import resource
except ImportError:  # not on Windows, where files are not limited so
    resource = None  # type: ignore[assignment]

_BLOCK = 1 << 20  # bytes read at a time: they stay in the cache for the hash
_OTHERS = 256  # files that a process opens besides
_OPEN_NOW = "/dev/fd"


def commit_file(
    temporary: Path, folder: Path, stem: str, suffix: str, arrays: tuple[ArrayPlace, ...] = ()
) -> FileEntry:
    """Give a written file its final name `<stem>-<hash><suffix>` below the index's folder.

    The hash in the name lets files of two versions lie side by side until the manifest changes.
    """
    sha256, fast = hashlib.sha256(), xxhash.xxh3_128()
    with temporary.open("rb") as handle:
        for block in _blocks(handle):
            sha256.update(block)
            fast.update(block)
        size = handle.tell()
    digest = sha256.hexdigest()
    name = f"{stem}-{digest[:12]}{suffix}"
    commit(temporary, folder / name)
    return FileEntry(name, digest, size, fast.hexdigest(), arrays)


def open_file(folder: Path, entry: FileEntry) -> io.BufferedReader:
    """Open a file of an index and check its size; the caller closes it.

    Raises:
        CorruptStoreError: if it is missing or has another size; the message names it.
        ResourceError: too many files are open.
    """
    path = folder / entry.name
    try:
        handle = path.open("rb")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        damaged = CorruptStoreError(f"{path}: {why}; {remedy(folder)}")
        raise too_many_files(error) or damaged from error
    size = os.fstat(handle.fileno()).st_size
    if size != entry.size:
        handle.close()
        why = f"{size:,} bytes instead of {entry.size:,}"
        raise CorruptStoreError(f"{path} has {why}; {remedy(folder)}")
    return handle


def check_content(folder: Path, entry: FileEntry, handle: io.BufferedReader) -> None:
    """Compare the SHA-256 of an open file with its entry; raises CorruptStoreError."""
    handle.seek(0)
    found = hashlib.file_digest(handle, "sha256").hexdigest()
    handle.seek(0)
    _compare(folder, entry, "SHA-256", found, entry.sha256)


def check_quickly(folder: Path, entry: FileEntry, handle: io.BufferedReader) -> None:
    """As `check_content` by the quick checksum, where there is one.

    It finds every accident. For files that are mapped and never parsed: what a parser reads has to
    withstand a forger too, and is checked by SHA-256.
    """
    if entry.fast is None:
        check_content(folder, entry, handle)
        return
    handle.seek(0)
    found = xxhash.xxh3_128()
    for block in _blocks(handle):
        found.update(block)
    handle.seek(0)
    _compare(folder, entry, "XXH3", found.hexdigest(), entry.fast)


def problem_of(folder: Path, entry: FileEntry) -> str | None:
    """What is wrong with a file, by its SHA-256; None if it has what its entry promises."""
    try:
        with open_file(folder, entry) as handle:
            check_content(folder, entry, handle)
    except CorruptStoreError as error:
        return str(error).removesuffix(f"; {remedy(folder)}")
    return None


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


def too_many_files(error: Exception) -> ResourceError | None:
    """The error that is meant if a file was not opened because too many are; None for others."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceError(
            "too many open files: an index needs two a shard; raise the limit "
            "(ulimit -n), or build with more images a shard (build-index --shard-rows)"
        )
    return None


def _blocks(handle: io.BufferedReader) -> Iterator[memoryview]:
    """The rest of a file; each block is overwritten by the next."""
    buffer = memoryview(bytearray(_BLOCK))
    while count := handle.readinto(buffer):
        yield buffer[:count]


def _compare(folder: Path, entry: FileEntry, how: str, found: str, wanted: str) -> None:
    if found != wanted:
        why = f"{how} {found[:12]}... instead of {wanted[:12]}..."
        raise CorruptStoreError(f"{folder / entry.name} is damaged ({why}); {remedy(folder)}")
