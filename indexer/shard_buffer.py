"""The rows of the shard that is being written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.encode import EncodedBatch
from indexer.encoded_images import EncodedImages
from indexer.path_list import PathList
from indexer.shard import ShardRows
from training.decoding import ReadImage
from training.descriptor import DescriptorLayout


class ShardBuffer:
    """Room for the descriptors of one shard, one place for every image that is listed for it.

    Args:
        capacity: images that are listed for the shard.
        layout: of the descriptors.
    """

    def __init__(self, capacity: int, layout: DescriptorLayout) -> None:
        self._layout = layout
        self._descriptors = np.zeros((capacity, layout.width), np.uint8)
        self.images: list[ReadImage | None] = [None] * capacity
        """What is known of every listed image, rejects included; None: nothing yet."""

    def add_encoded(self, places: list[int], batch: EncodedBatch) -> None:
        """Put encoded images in their places, [B]."""
        self._descriptors[places] = self._layout.pack(batch.chances, batch.nuance)

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
            here = shards == number
            source = encoded.shard(int(number)).descriptors
            self._descriptors[known[here]] = source[positions[here]]
        for place in known.tolist():
            digest = encoded.digests[images[place]].tobytes()
            self.images[place] = ReadImage(None, "", digest, versions[place])

    def rows(self, paths: list[str]) -> ShardRows:
        """What was added, as the content of a shard; `paths` are those listed for it."""
        images = [image for image in self.images if image is not None]
        assert len(images) == len(self.images), "every listed image must have been added"
        good = [place for place, image in enumerate(images) if not image.reason]
        digests = np.frombuffer(b"".join(images[i].digest for i in good), dtype=np.uint8)
        return ShardRows(
            self._descriptors[good],
            digests.reshape(len(good), 32),
            np.array(good, dtype=np.int32),
            PathList.of(paths[i] for i in good),
        )
