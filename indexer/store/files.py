"""Files of an index: named by their content, checked before use, and arrays mapped from them."""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from indexer.store.manifest import ArrayPlace, FileEntry, remedy
from training.errors import CorruptStoreError, ResourceError
from training.files import commit

try:
    import resource
except ImportError:  # not on Windows, where files are not limited so
    resource = None  # type: ignore[assignment]

_OTHERS = 256  # files that a process opens besides
_OPEN_NOW = "/dev/fd"
_ALIGNMENT = 64  # bytes: every array starts on a cache line, so that float32 views are aligned
_HEADERS = 1 << 16  # bytes reserved for HDF5's own structures


def commit_file(
    temporary: Path, folder: Path, stem: str, suffix: str, arrays: tuple[ArrayPlace, ...] = ()
) -> FileEntry:
    """Give a written file its final name `<stem>-<hash><suffix>` below the index's folder.

    The hash in the name lets files of two versions lie side by side until the manifest changes.
    """
    with temporary.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        size = handle.tell()
        handle.seek(0)
        fast = hashlib.file_digest(handle, xxhash.xxh3_128).hexdigest()
    name = f"{stem}-{sha256[:12]}{suffix}"
    commit(temporary, folder / name)
    return FileEntry(name, sha256, size, fast, arrays)


def open_file(folder: Path, entry: FileEntry) -> io.BufferedReader:
    """Open a file of an index, for the caller to close.

    Raises CorruptStoreError, naming it, if it is missing or has another size than its entry, and
    ResourceError if too many files are open.
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


def check_content(
    folder: Path, entry: FileEntry, handle: io.BufferedIOBase, quickly: bool = False
) -> None:
    """Compare the SHA-256 of an open file with its entry; raises CorruptStoreError.

    `quickly` compares the quick checksum, where there is one, which finds every accident: for files
    that are mapped and never parsed. What a parser reads has to withstand a forger too.
    """
    handle.seek(0)
    if quickly and entry.fast is not None:
        found = hashlib.file_digest(handle, xxhash.xxh3_128).hexdigest()
        _compare(folder, entry, "XXH3", found, entry.fast)
    else:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
        _compare(folder, entry, "SHA-256", found, entry.sha256)
    handle.seek(0)


def problem_of(folder: Path, entry: FileEntry) -> str | None:
    """What is wrong with a file, by its SHA-256; None if it has what its entry promises."""
    try:
        with open_file(folder, entry) as handle:
            check_content(folder, entry, handle)
    except CorruptStoreError as error:
        return str(error).removesuffix(f"; {remedy(folder)}")
    return None


def allow_open_files(count: int) -> None:
    """Let this process open so many files more: the soft limit is raised, if it is too low, as far
    as the hard one lets it. What is opened beyond fails then, with a ResourceError."""
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


def _compare(folder: Path, entry: FileEntry, how: str, found: str, wanted: str) -> None:
    if found != wanted:
        why = f"{how} {found[:12]}... instead of {wanted[:12]}..."
        raise CorruptStoreError(f"{folder / entry.name} is damaged ({why}); {remedy(folder)}")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[ArrayPlace, ...]:
    """Write arrays, one uncompressed dataset each; where they lie. Raises OSError."""
    with path.open("wb") as trial:
        _reserve(trial, sum(a.nbytes + _ALIGNMENT for a in arrays.values()) + _HEADERS)
    places = _lay_out(path, arrays)
    with path.open("r+b") as handle:
        _reserve(handle, path.stat().st_size)  # HDF5 left holes
        for place in places:
            if place.offset is not None:
                handle.seek(place.offset)
                handle.write(np.ascontiguousarray(arrays[place.name]).data)
    return places


def map_arrays(
    handle: io.BufferedReader, name: str, places: tuple[ArrayPlace, ...]
) -> dict[str, NDArray[Any]]:
    """The arrays of an open file, which errors call `name`, read-only, in place: the map lives on
    when it is closed or unlinked. Raises CorruptStoreError; ResourceError: too many are open."""
    try:
        whole = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return {
            place.name: np.zeros(place.shape, place.dtype)
            if place.offset is None
            else np.ndarray(place.shape, place.dtype, buffer=whole, offset=place.offset)
            for place in places
        }
    except (OSError, ValueError, TypeError) as error:
        damaged = f"{name} is not a readable store file ({error}); build again"
        raise too_many_files(error) or CorruptStoreError(damaged) from error


def _reserve(handle: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(handle.fileno(), 0, max(size, 1))


def _lay_out(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[ArrayPlace, ...]:
    """Create the file with room for the arrays; an array without elements has no place."""
    import h5py  # to write; nothing that is read is parsed

    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT) as file:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(h5py.h5d.CONTIGUOUS)
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # so that the place is known
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        how.set_obj_track_times(False)  # equal content gives equal bytes, whenever it is written
        out = []
        for name, array in arrays.items():
            kind, shape = h5py.h5t.py_create(array.dtype), h5py.h5s.create_simple(array.shape)
            made = h5py.h5d.create(file.id, name.encode(), kind, shape, dcpl=how)
            out.append(ArrayPlace(name, array.dtype.str, array.shape, made.get_offset()))
        return tuple(out)
