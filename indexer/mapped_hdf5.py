"""HDF5 files of contiguous, uncompressed arrays that are read in place through a memory map.

The manifest names the places of all arrays, so that nothing of a file is parsed; integrity rests on
its checksums of files.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.manifest import ArrayPlace
from indexer.open_files import map_whole
from training.errors import CorruptStoreError


def map_arrays(
    handle: io.BufferedReader, name: str, places: tuple[ArrayPlace, ...]
) -> dict[str, NDArray[Any]]:
    """The arrays of an open HDF5 file, read-only, in place.

    Args:
        handle: the file; it may be closed and even unlinked afterwards, the map lives on.
        name: what an error calls the file.
        places: where the arrays lie.

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
            for place in places
        }
    except (OSError, ValueError, TypeError) as error:
        raise CorruptStoreError(
            f"{name} is not a readable store file ({error}); build again"
        ) from error
