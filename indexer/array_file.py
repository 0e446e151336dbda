"""Writing HDF5 files of contiguous arrays so that a full disk is an error and not a crash.

HDF5 can end the process when a write fails while it closes a file. So the room for the whole file
is tried out first, HDF5 only lays out its few kilobytes of headers, and the arrays are written by
ourselves at the offsets that it names: the mirror image of `mapped_hdf5`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from indexer.manifest import ArrayPlace

_ALIGNMENT = 64  # bytes: every array starts on a cache line, so that float32 views are aligned
_HEADERS = 1 << 16  # bytes reserved for HDF5's own structures


@dataclass(frozen=True)
class ArraySpec:
    """Shape and type of an array to be written; the first axis is its rows."""

    shape: tuple[int, ...]
    dtype: DTypeLike

    @property
    def nbytes(self) -> int:
        """Size of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class ArrayFile:
    """A new HDF5 file of contiguous, uncompressed arrays, written row by row.

    Args:
        path: the file to create.
        specs: the arrays by name.

    Raises:
        OSError: if there is no room for all of it.
    """

    def __init__(self, path: Path, specs: Mapping[str, ArraySpec]) -> None:
        self._specs = dict(specs)
        total = sum(spec.nbytes + _ALIGNMENT for spec in specs.values()) + _HEADERS
        with path.open("wb") as trial:
            _reserve(trial, total)
        self._offsets = _lay_out(path, self._specs)
        self._handle = path.open("r+b")
        try:
            _reserve(self._handle, path.stat().st_size)  # HDF5 left holes
        except OSError:
            self._handle.close()
            raise

    def write(self, name: str, values: NDArray[Any], start: int = 0) -> None:
        """Write rows `start` and on of an array: [any, ...] of its type."""
        spec, offset = self._specs[name], self._offsets[name]
        block = np.ascontiguousarray(values, dtype=spec.dtype)
        assert block.shape[1:] == spec.shape[1:], f"rows of {name} must be {spec.shape[1:]}"
        assert start + len(block) <= spec.shape[0], f"{name} has {spec.shape[0]} rows"
        if offset is None or not block.size:  # an array without elements has no place
            return
        self._handle.seek(offset + start * (spec.nbytes // spec.shape[0]))
        self._handle.write(block.data)

    @property
    def places(self) -> tuple[ArrayPlace, ...]:
        """Where the arrays lie."""
        return tuple(
            ArrayPlace(name, np.dtype(spec.dtype).str, spec.shape, self._offsets[name])
            for name, spec in self._specs.items()
        )

    def close(self) -> None:
        """Finish the file."""
        self._handle.close()

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[ArrayPlace, ...]:
    """Write whole arrays, one dataset each; where they lie. Raises OSError."""
    specs = {name: ArraySpec(array.shape, array.dtype) for name, array in arrays.items()}
    with ArrayFile(path, specs) as file:
        for name, array in arrays.items():
            file.write(name, array)
        return file.places


def _reserve(handle: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(handle.fileno(), 0, max(size, 1))


def _lay_out(path: Path, specs: Mapping[str, ArraySpec]) -> dict[str, int | None]:
    """Create the file with room for the arrays; where each of them starts, None if it is empty."""
    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT) as file:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(h5py.h5d.CONTIGUOUS)
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # so that the place is known
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        how.set_obj_track_times(False)  # equal content gives equal bytes, whenever it is written
        return {
            name: h5py.h5d.create(
                file.id,
                name.encode(),
                h5py.h5t.py_create(np.dtype(spec.dtype)),
                h5py.h5s.create_simple(spec.shape),
                dcpl=how,
            ).get_offset()
            for name, spec in specs.items()
        }
