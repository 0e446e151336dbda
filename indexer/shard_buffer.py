"""The rows of the shard that is being written; the only part of a build that holds maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.encode import EncodedBatch
from indexer.encoded_images import EncodedImages
from indexer.path_list import PathList
from indexer.quantise import QuantisedMaps
from indexer.shard import ShardRows
from training.decoding import ReadImage


class ShardBuffer:
    """Room for the maps of one shard, one place for every image that is listed for it.

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
        self.images: list[ReadImage | None] = [None] * capacity
        """What is known of every listed image, rejects included; None: nothing yet."""

    def add_encoded(self, places: list[int], batch: EncodedBatch) -> None:
        """Put encoded images in their places, [B]."""
        for own, new in ((self._maps, batch.maps), (self._keys, batch.keys)):
            own.values[places] = new.values
            own.scales[places] = new.scales
        self._predicted[places] = batch.predicted

    def add_copies(
        self,
        encoded: EncodedImages,
        images: NDArray[np.int64],
        versions: list[tuple[int, int]],
    ) -> None:
        """Copy the images that are encoded already, by their numbers [n]; -1: leave its place."""
        known = np.flatnonzero(images >= 0)
        shards, positions = encoded.locate(images[known])
        for number in np.unique(shards):
            source = encoded.shard(int(number))
            here = shards == number
            places, rows = known[here], positions[here]
            for own, old in ((self._maps, source.maps), (self._keys, source.keys)):
                own.values[places] = old.values[rows]
                own.scales[places] = old.scales[rows]
            self._predicted[places] = source.predicted[rows]
        for place in known.tolist():
            digest = encoded.digests[images[place]].tobytes()
            self.images[place] = ReadImage(None, "", digest, versions[place])

    def rows(self, paths: list[str]) -> ShardRows:
        """What was added, as the content of a shard; `paths` are those listed for it.

        Call it once: places of rejects are closed up.
        """
        images = [image for image in self.images if image is not None]
        assert len(images) == len(self.images), "every listed image must have been added"
        good = [place for place, image in enumerate(images) if not image.reason]
        for row, place in enumerate(good):
            if row != place:  # row by row: no second copy of the shard
                for part in (self._maps, self._keys):
                    part.values[row], part.scales[row] = part.values[place], part.scales[place]
                self._predicted[row] = self._predicted[place]
        digests = np.frombuffer(b"".join(images[i].digest for i in good), dtype=np.uint8)
        n = len(good)
        return ShardRows(
            QuantisedMaps(self._maps.values[:n], self._maps.scales[:n]),
            QuantisedMaps(self._keys.values[:n], self._keys.scales[:n]),
            self._predicted[:n],
            digests.reshape(n, 32),
            np.array(good, dtype=np.int32),
            PathList.of(paths[i] for i in good),
        )
