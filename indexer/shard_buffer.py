"""The rows of the shard that is being encoded; the only part of a build that holds maps."""

from __future__ import annotations

import numpy as np

from indexer.encode import EncodedBatch
from indexer.path_list import PathList
from indexer.quantise import QuantisedMaps
from indexer.shard import ShardRows
from training.decoding import ReadImage


class ShardBuffer:
    """Room for the maps of one shard, filled in row order.

    Args:
        capacity: images that are listed for the shard.
        cells: L.
        dim: d.
        values: K.
    """

    def __init__(self, capacity: int, cells: int, dim: int, values: int) -> None:
        self._maps, self._keys = (
            QuantisedMaps(
                np.empty((capacity, cells, dim), np.int8), np.empty((capacity, cells), np.float32)
            )
            for _ in range(2)
        )
        self._predicted = np.empty((capacity, values), np.float16)
        self._encoded = 0
        self.images: list[ReadImage] = []
        """Every listed image so far, rejects included."""

    def add_encoded(self, batch: EncodedBatch) -> None:
        """Append encoded images."""
        where = slice(self._encoded, self._encoded + len(batch.predicted))
        for own, new in ((self._maps, batch.maps), (self._keys, batch.keys)):
            own.values[where] = new.values
            own.scales[where] = new.scales
        self._predicted[where] = batch.predicted
        self._encoded = where.stop

    def rows(self, paths: list[str]) -> ShardRows:
        """What was added, as the content of a shard; `paths` are those listed for it."""
        good = [i for i, image in enumerate(self.images) if not image.reason]
        assert len(good) == self._encoded, "every readable image must have been encoded"
        digests = np.frombuffer(b"".join(self.images[i].digest for i in good), dtype=np.uint8)
        n = self._encoded
        return ShardRows(
            QuantisedMaps(self._maps.values[:n], self._maps.scales[:n]),
            QuantisedMaps(self._keys.values[:n], self._keys.scales[:n]),
            self._predicted[:n],
            digests.reshape(n, 32),
            np.array(good, dtype=np.int32),
            PathList.of(paths[i] for i in good),
        )
