"""A shard: what the model saw of about a thousand images. Immutable once committed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.array_file import write_arrays
from indexer.atomic import temporary_file
from indexer.manifest import FileEntry
from indexer.mapped_hdf5 import map_arrays
from indexer.path_list import PathList
from indexer.quantise import QuantisedMaps
from indexer.store_file import check_content, commit_file, open_file
from training.errors import CorruptStoreError


@dataclass(frozen=True)
class ShardRows:
    """The content of a shard, n images in row order.

    Args:
        maps: I, [n, L, d].
        keys: P, likewise.
        predicted: probability of every value, [n, K] float16.
        digests: SHA-256 of each image file's bytes, [n, 32] uint8.
        listed: position of each image among those listed for the shard, [n] int32.
        paths: n paths relative to the dataset's root.
    """

    maps: QuantisedMaps
    keys: QuantisedMaps
    predicted: NDArray[np.float16]
    digests: NDArray[np.uint8]
    listed: NDArray[np.int32]
    paths: PathList

    def __len__(self) -> int:
        return len(self.listed)


def write_shard(folder: Path, number: int, rows: ShardRows) -> FileEntry:
    """Write and commit shard number `number` of the index in `folder`; raises ResourceError."""
    with temporary_file(folder / "shards") as temporary:
        write_arrays(
            temporary,
            {
                "maps": rows.maps.values,
                "map_scales": rows.maps.scales,
                "keys": rows.keys.values,
                "key_scales": rows.keys.scales,
                "predicted": rows.predicted,
                "digests": rows.digests,
                "listed": rows.listed,
                "paths": rows.paths.blob,
                "path_offsets": rows.paths.offsets,
            },
        )
        return commit_file(temporary, folder, f"shards/{number:05d}", ".h5")


class ShardFile:
    """A committed shard, opened at once (so that a later build cannot take it away), read lazily.

    Args:
        folder: the index.
        entry: the shard's file.
        verify: check the SHA-256 before the file is parsed, which happens when `rows` is first
            asked for.

    Raises:
        CorruptStoreError: if the file is missing or has another size.
    """

    def __init__(self, folder: Path, entry: FileEntry, verify: bool = True) -> None:
        self._folder, self._entry, self._verify = folder, entry, verify
        self._handle: io.BufferedReader = open_file(folder, entry)

    @cached_property
    def rows(self) -> ShardRows:
        """The arrays, read-only, in place.

        Raises:
            CorruptStoreError: if the content is not what the manifest promises.
        """
        if self._verify:
            check_content(self._folder, self._entry, self._handle)
        name = str(self._folder / self._entry.name)
        arrays = map_arrays(self._handle, name)
        self._handle.close()  # the memory map keeps the file alive
        try:
            return ShardRows(
                QuantisedMaps(arrays["maps"], arrays["map_scales"]),
                QuantisedMaps(arrays["keys"], arrays["key_scales"]),
                arrays["predicted"],
                arrays["digests"],
                arrays["listed"],
                PathList(arrays["paths"], arrays["path_offsets"]),
            )
        except KeyError as error:
            raise CorruptStoreError(f"{name} lacks the array {error}; build again") from error
