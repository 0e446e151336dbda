"""A checksum of every stored image: 64 bits of XXH3 over the bytes of its maps.

XXH3 finds every accident (a random change passes once in 1.8e19) at the speed of memory. It is no
protection from a forger: the manifest's SHA-256 is, for files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from indexer.quantise import QuantisedMaps


class RowBytes:
    """The bytes of some images' I, its scales, P and its scales, for `checksum`.

    Args:
        maps: I, [n, L, d] int8 with scales [n, L], contiguous.
        keys: P, likewise.
    """

    def __init__(self, maps: QuantisedMaps, keys: QuantisedMaps) -> None:
        arrays: tuple[NDArray[Any], ...] = (maps.values, maps.scales, keys.values, keys.scales)
        self._count = len(maps.values)
        # A view without elements cannot be cast; there is no row to ask for then.
        self._parts = [
            (np.ascontiguousarray(array).data.cast("B"), array.nbytes // len(array))
            for array in arrays
            if array.size
        ]

    def __len__(self) -> int:
        return self._count

    def checksum(self, row: int) -> int:
        """Of one image, 0..2**64-1: each part's hash is the seed of the next."""
        value = 0
        for content, length in self._parts:
            value = xxh3_64_intdigest(content[row * length : (row + 1) * length], value)
        return value


def row_checksums(maps: QuantisedMaps, keys: QuantisedMaps) -> NDArray[np.uint64]:
    """Checksums [n] uint64 of n images.

    Args:
        maps: I, [n, L, d] int8 with scales [n, L].
        keys: P, likewise.
    """
    rows = RowBytes(maps, keys)
    return np.fromiter(map(rows.checksum, range(len(rows))), np.uint64, len(rows))
