"""HDF5 files of contiguous arrays: written so that a full disk is an error and not a crash, and
read in place through a memory map.

HDF5 can end the process when a write fails while it closes a file. So the room for the whole file
is tried out first, HDF5 only lays out its few kilobytes of headers, and the arrays are written by
ourselves at the offsets that it names. The manifest names them too: nothing of a file is parsed to
read it, and integrity rests on its checksums of files.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from indexer.manifest import ArrayPlace
from indexer.store_file import too_many_files
from training.errors import CorruptStoreError

_ALIGNMENT = 64  # bytes: every array starts on a cache line, so that float32 views are aligned
_HEADERS = 1 << 16  # bytes reserved for HDF5's own structures


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
    """The arrays of an open file, which errors call `name`, read-only, in place.

    The file may be closed and even unlinked afterwards, the map lives on.

    Raises:
        CorruptStoreError: if it is not such a file.
        ResourceError: too many files are open.
    """
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
