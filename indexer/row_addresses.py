"""Where in memory the stored maps of rows lie, for kernels that read them in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.shard import StoredMaps
from indexer.store import Rows, Store

Addresses = NDArray[np.uint64]


@dataclass(frozen=True)
class RowAddresses:
    """Addresses [M] of the first byte of each row, valid as long as the store is.

    Args:
        maps: I, [L, d] int8.
        map_scales: its scales, [L] float32.
        keys: P, likewise.
        key_scales: its scales.
    """

    maps: Addresses
    map_scales: Addresses
    keys: Addresses
    key_scales: Addresses

    def __len__(self) -> int:
        return len(self.maps)


def row_addresses(store: Store, rows: Rows) -> RowAddresses:
    """Addresses of rows of the index, in the order of `rows`; nothing is read.

    Who reads there calls `Store.check_rows` first.

    Raises:
        CorruptStoreError: if a shard that holds one of the rows cannot be mapped.
    """
    place = store.locate(rows)
    numbers, which = np.unique(place.shards, return_inverse=True)
    shards = [store.shards[number].stored for number in numbers]

    def of(array_of: Callable[[StoredMaps], NDArray[Any]]) -> Addresses:
        arrays = [array_of(shard) for shard in shards]
        starts = np.array([array.ctypes.data for array in arrays], dtype=np.uint64)
        strides = np.array([array.strides[0] for array in arrays], dtype=np.uint64)
        return starts[which] + strides[which] * place.positions.astype(np.uint64)

    return RowAddresses(
        of(lambda shard: shard.maps.values),
        of(lambda shard: shard.maps.scales),
        of(lambda shard: shard.keys.values),
        of(lambda shard: shard.keys.scales),
    )
