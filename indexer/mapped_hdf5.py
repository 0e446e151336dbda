"""HDF5 files of contiguous, uncompressed arrays that are read in place through a memory map.

Contiguous datasets carry no checksum (HDF5's fletcher32 needs chunks) and dense maps do not
compress: integrity rests on the checksums of files and rows, and speed on reading rows where they
lie. The manifest names the places of all arrays; HDF5's headers are read only where it does not.
"""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from indexer.manifest import ArrayPlace
from indexer.open_files import map_whole
from training.errors import CorruptStoreError

_PLAIN = "biuf"  # kinds of NumPy types


def read_places(handle: io.BufferedReader, name: str) -> tuple[ArrayPlace, ...]:
    """Where the datasets of an open HDF5 file lie, by its headers; only for a checked file.

    Args:
        handle: the file.
        name: what an error calls the file.

    Raises:
        CorruptStoreError: if it is not such a file.
    """
    try:
        with h5py.File(handle, "r") as file:
            for key, item in file.items():
                if item.dtype.kind not in _PLAIN:  # objects: bytes would be taken for pointers
                    raise ValueError(f"the array {key!r} is of the type {item.dtype}")
            return tuple(
                ArrayPlace(key, item.dtype.str, item.shape, item.id.get_offset())
                for key, item in file.items()
            )
    except (OSError, ValueError, AttributeError, TypeError, RuntimeError) as error:
        raise _unreadable(name, error) from error


def map_arrays(
    handle: io.BufferedReader, name: str, places: tuple[ArrayPlace, ...] = ()
) -> dict[str, NDArray[Any]]:
    """Every dataset of an open HDF5 file as a read-only array in place.

    Args:
        handle: the file; it may be closed and even unlinked afterwards, the map lives on.
        name: what an error calls the file.
        places: where the arrays lie; without them the file's headers are read.

    Raises:
        CorruptStoreError: if it is not such a file.
        ResourceError: too many files are open.
    """
    try:
        whole = map_whole(handle)
        return {
            # An array without elements has no place in the file.
            place.name: np.zeros(place.shape, place.dtype)
            if place.offset is None
            else np.ndarray(place.shape, place.dtype, buffer=whole, offset=place.offset)
            for place in places or read_places(handle, name)
        }
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> CorruptStoreError:
    return CorruptStoreError(f"{name} is not a readable store file ({error}); build again")
