"""HDF5 files of contiguous, uncompressed arrays that are read in place through a memory map.

Contiguous datasets carry no checksum (HDF5's fletcher32 needs chunks) and dense maps do not
compress: integrity rests on the SHA-256 in the manifest, and speed on reading rows where they lie.
"""

from __future__ import annotations

import io
import mmap
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from training.errors import CorruptStoreError

_PLAIN = "biuf"  # kinds of NumPy types


def map_arrays(handle: io.BufferedReader, name: str) -> dict[str, NDArray[Any]]:
    """Every dataset of an open HDF5 file as a read-only array in place.

    Args:
        handle: the file; it may be closed and even unlinked afterwards, the map lives on.
        name: what an error calls the file.

    Raises:
        CorruptStoreError: if it is not such a file.
    """
    try:
        with h5py.File(handle, "r") as file:
            layout = {
                key: (item.shape, item.dtype, item.id.get_offset()) for key, item in file.items()
            }
        for key, (_, dtype, _) in layout.items():
            if dtype.kind not in _PLAIN:  # above all objects: bytes would be taken for pointers
                raise ValueError(f"the array {key!r} is of the type {dtype}")
        whole = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return {
            # An array without elements has no place in the file.
            key: np.zeros(shape, dtype)
            if offset is None
            else np.ndarray(shape, dtype, buffer=whole, offset=offset)
            for key, (shape, dtype, offset) in layout.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, RuntimeError) as error:
        raise CorruptStoreError(
            f"{name} is not a readable store file ({error}); build again"
        ) from error
