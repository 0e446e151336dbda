"""Naming a new file of an index by its content, and checking a file before anything parses it."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

from indexer.manifest import ArrayPlace, FileEntry
from indexer.open_files import too_many_files
from training.errors import CorruptStoreError
from training.files import commit

_BLOCK = 1 << 20  # bytes read at a time: they stay in the cache for the hash


def describe_file(path: Path, name: str, arrays: tuple[ArrayPlace, ...] = ()) -> FileEntry:
    """The entry of a written file, both hashes in one pass.

    Args:
        path: where it is.
        name: what the entry calls it; `{}` in it becomes the first digits of its SHA-256.
        arrays: what it holds.
    """
    sha256, fast = hashlib.sha256(), xxhash.xxh3_128()
    with path.open("rb") as handle:
        for block in _blocks(handle):
            sha256.update(block)
            fast.update(block)
        size = handle.tell()
    digest = sha256.hexdigest()
    return FileEntry(name.format(digest[:12]), digest, size, fast.hexdigest(), arrays)


def commit_file(
    temporary: Path, folder: Path, stem: str, suffix: str, arrays: tuple[ArrayPlace, ...] = ()
) -> FileEntry:
    """Give a written file its final name `<stem>-<hash><suffix>` below the index's folder.

    The hash in the name lets files of two versions lie side by side until the manifest changes.

    Args:
        temporary: the written file, anywhere on the same file system.
        folder: the index.
        stem: name without hash, relative to `folder`, POSIX separators.
        suffix: e.g. `.h5`.
        arrays: what it holds.
    """
    entry = describe_file(temporary, f"{stem}-{{}}{suffix}", arrays)
    commit(temporary, folder / entry.name)
    return entry


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
        raise CorruptStoreError(
            f"{path} has {size:,} bytes instead of {entry.size:,}; {remedy(folder)}"
        )
    return handle


def check_content(folder: Path, entry: FileEntry, handle: io.BufferedReader) -> None:
    """Compare the SHA-256 of an open file with its entry.

    Raises:
        CorruptStoreError: if the content is not what the manifest promises.
    """
    handle.seek(0)
    found = hashlib.file_digest(handle, "sha256").hexdigest()
    handle.seek(0)
    _compare(folder, entry, "SHA-256", found, entry.sha256)


def check_quickly(folder: Path, entry: FileEntry, handle: io.BufferedReader) -> None:
    """As `check_content` by the quick checksum, where there is one.

    It finds every accident. For files that are mapped and never parsed: what a parser reads has to
    withstand a forger too, and is checked by SHA-256.

    Raises:
        CorruptStoreError: if the content is not what the manifest promises.
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


def check_mapped(folder: Path, entry: FileEntry, content: mmap.mmap) -> None:
    """The same for a file that is mapped into memory.

    Raises:
        CorruptStoreError: if the content is not what the manifest promises.
    """
    _compare(folder, entry, "SHA-256", hashlib.sha256(content).hexdigest(), entry.sha256)


def remedy(folder: Path) -> str:
    """What to do about a damaged file."""
    return f"`retrieve verify {folder} --repair` restores what can be restored"


def _blocks(handle: io.BufferedReader) -> Iterator[memoryview]:
    """The rest of a file; each block is overwritten by the next."""
    buffer = memoryview(bytearray(_BLOCK))
    while count := handle.readinto(buffer):
        yield buffer[:count]


def _compare(folder: Path, entry: FileEntry, how: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise CorruptStoreError(
            f"{folder / entry.name} is damaged ({how} {found[:12]}... instead of "
            f"{wanted[:12]}...); {remedy(folder)}"
        )


def problem_of(folder: Path, entry: FileEntry) -> str | None:
    """What is wrong with a file, by its SHA-256; None if it has what its entry promises."""
    try:
        with open_file(folder, entry) as handle:
            check_content(folder, entry, handle)
    except CorruptStoreError as error:
        return str(error).removesuffix(f"; {remedy(folder)}")
    return None


def is_intact(folder: Path, entry: FileEntry) -> bool:
    """Whether a file is there with the content that its entry promises."""
    return problem_of(folder, entry) is None
