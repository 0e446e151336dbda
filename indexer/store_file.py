"""Naming a new file of an index by its content, and checking a file before anything parses it."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
from pathlib import Path

from indexer.atomic import commit, file_sha256
from indexer.manifest import FileEntry
from training.errors import CorruptStoreError


def commit_file(temporary: Path, folder: Path, stem: str, suffix: str) -> FileEntry:
    """Give a written file its final name `<stem>-<hash><suffix>` below the index's folder.

    The hash in the name lets files of two versions lie side by side until the manifest changes.

    Args:
        temporary: the written file, anywhere on the same file system.
        folder: the index.
        stem: name without hash, relative to `folder`, POSIX separators.
        suffix: e.g. `.h5`.
    """
    digest = file_sha256(temporary)
    name = f"{stem}-{digest[:12]}{suffix}"
    entry = FileEntry(name, digest, temporary.stat().st_size)
    commit(temporary, folder / name)
    return entry


def open_file(folder: Path, entry: FileEntry) -> io.BufferedReader:
    """Open a file of an index and check its size; the caller closes it.

    Raises:
        CorruptStoreError: if it is missing or has another size; the message names it.
    """
    path = folder / entry.name
    try:
        handle = path.open("rb")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CorruptStoreError(f"{path}: {why}; run build-index again to restore it") from error
    size = os.fstat(handle.fileno()).st_size
    if size != entry.size:
        handle.close()
        raise CorruptStoreError(
            f"{path} has {size:,} bytes instead of {entry.size:,}; "
            "run build-index again to restore it"
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
    _compare(folder, entry, found)


def check_mapped(folder: Path, entry: FileEntry, content: mmap.mmap) -> None:
    """The same for a file that is mapped into memory.

    Raises:
        CorruptStoreError: if the content is not what the manifest promises.
    """
    _compare(folder, entry, hashlib.sha256(content).hexdigest())


def _compare(folder: Path, entry: FileEntry, found: str) -> None:
    if found != entry.sha256:
        raise CorruptStoreError(
            f"{folder / entry.name} is damaged (SHA-256 {found[:12]}... instead of "
            f"{entry.sha256[:12]}...); run build-index again to restore it"
        )


def is_intact(folder: Path, entry: FileEntry) -> bool:
    """Whether a file is there with the content that its entry promises."""
    try:
        with open_file(folder, entry) as handle:
            check_content(folder, entry, handle)
    except CorruptStoreError:
        return False
    return True
