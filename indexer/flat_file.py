"""A faiss IndexFlatIP file written row by row, without ever holding all vectors, and mapped.

faiss writes a flat index as a header and the vectors. The header is the one that the installed
faiss serialises for an empty index of that dimension, with two numbers filled in; a test holds
the file to be byte-identical with `faiss.write_index`.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from indexer.faiss_module import load_faiss
from indexer.open_files import map_whole
from training.errors import CorruptStoreError

_NTOTAL_AT = 8  # after the four-character code and the int32 dimension


def flat_header(rows: int, dim: int) -> bytes:
    """What stands before the vectors in the file of an IndexFlatIP of `rows` vectors [dim]."""
    faiss = load_faiss()
    empty = bytearray(faiss.serialize_index(faiss.IndexFlatIP(dim)).tobytes())
    struct.pack_into("<q", empty, _NTOTAL_AT, rows)
    struct.pack_into("<q", empty, len(empty) - 8, rows * dim)  # the vector's length, in floats
    return bytes(empty)


def map_flat(handle: io.BufferedReader, rows: int, dim: int) -> NDArray[np.float32]:
    """The vectors of an open flat file, [rows, dim] float32, where they lie; not parsed by faiss.

    They start at an odd byte, so the array is not aligned: gather rows, or use
    `exact_search.all_cosines`; a product by numpy would copy all of it first. The mapping outlives
    the handle.

    Raises:
        CorruptStoreError: if it is no flat file of that shape.
        ResourceError: too many files are open.
    """
    header = flat_header(rows, dim)
    handle.seek(0)
    if handle.read(len(header)) != header:
        raise CorruptStoreError(
            f"{handle.name} is no flat index of {rows} x {dim} vectors; run build-index again"
        )
    if not rows:
        return np.empty((0, dim), dtype=np.float32)
    try:
        mapped = map_whole(handle)
        vectors = np.frombuffer(mapped, dtype="<f4", count=rows * dim, offset=len(header))
    except ValueError as error:
        raise CorruptStoreError(f"{handle.name} is cut off; run build-index again") from error
    return vectors.reshape(rows, dim)


class FlatFileWriter:
    """Append unit vectors to a new IndexFlatIP file.

    Args:
        path: the file to create.
        rows: M, how many vectors will come.
        dim: d.
    """

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        self._handle = path.open("wb")
        self._handle.write(flat_header(rows, dim))
        self._rows, self._dim, self._written = rows, dim, 0

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Write the next vectors, [any, d] float32, in row order."""
        assert vectors.shape[1:] == (self._dim,), "vectors must be [any, d]"
        self._handle.write(np.ascontiguousarray(vectors, dtype="<f4").data)
        self._written += len(vectors)

    def close(self) -> None:
        """Finish the file; every announced row must have come."""
        self._handle.close()
        assert self._written == self._rows, f"{self._written} of {self._rows} rows were written"

    def __enter__(self) -> FlatFileWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._handle.close()
