"""A shard: what the model saw of about a thousand images. Immutable once committed."""

from __future__ import annotations

import io
import mmap
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.array_file import write_arrays
from indexer.atomic import temporary_file
from indexer.manifest import FileEntry, ShardEntry
from indexer.mapped_hdf5 import map_arrays, read_places
from indexer.open_files import allow_open_files
from indexer.path_list import PathList
from indexer.quantise import QuantisedMaps
from indexer.row_checksums import row_checksums
from indexer.store_file import check_content, commit_file, open_file
from training.errors import CorruptStoreError

_OPEN = 2  # files of a shard: itself and its mapping; of a view: its vectors and its index


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


@dataclass(frozen=True)
class StoredMaps:
    """I and P of a shard's images, [n, L, d] each, read-only, in place."""

    maps: QuantisedMaps
    keys: QuantisedMaps


def write_shard(folder: Path, number: int, rows: ShardRows) -> FileEntry:
    """Write and commit shard number `number` of the index in `folder`; raises ResourceError."""
    with temporary_file(folder / "shards") as temporary:
        places = write_arrays(
            temporary,
            {
                "maps": rows.maps.values,
                "map_scales": rows.maps.scales,
                "keys": rows.keys.values,
                "key_scales": rows.keys.scales,
                "checksums": row_checksums(rows.maps, rows.keys),
                "predicted": rows.predicted,
                "digests": rows.digests,
                "listed": rows.listed,
                "paths": rows.paths.blob,
                "path_offsets": rows.paths.offsets,
            },
        )
        return commit_file(temporary, folder, f"shards/{number:05d}", ".h5", places)


def name_places(folder: Path, entries: Sequence[ShardEntry]) -> tuple[ShardEntry, ...]:
    """Entries of shards with the places of their arrays, which format 1 did not record.

    Args:
        folder: the index.
        entries: of shards that were checked: their headers are parsed.
    """

    def named(entry: ShardEntry) -> ShardEntry:
        if entry.file is None or entry.file.arrays:
            return entry
        with open_file(folder, entry.file) as handle:
            places = read_places(handle, str(folder / entry.file.name))
        return replace(entry, file=replace(entry.file, arrays=places))

    return tuple(map(named, entries))


def open_shards(
    folder: Path, entries: Sequence[ShardEntry], verify: bool, views: int = 0
) -> list[ShardFile]:
    """The shards of an index that hold images; see `ShardFile`.

    Args:
        folder: the index.
        entries: of its shards.
        verify: as for `ShardFile`.
        views: that may be opened beside them, for which room is made too.

    Raises:
        CorruptStoreError: a file is missing or has another size.
        ResourceError: too many files are open.
    """
    files = [entry.file for entry in entries if entry.file is not None]
    allow_open_files(_OPEN * (len(files) + views))
    return [ShardFile(folder, file, verify) for file in files]


class ShardFile:
    """A committed shard, opened at once (so that a later build cannot take it away), read lazily.

    Args:
        folder: the index.
        entry: the shard's file.
        verify: check the SHA-256 before `rows` are first given out.

    Raises:
        CorruptStoreError: if the file is missing or has another size.
    """

    def __init__(self, folder: Path, entry: FileEntry, verify: bool = True) -> None:
        self._folder, self._entry, self._verify = folder, entry, verify
        self.path = folder / entry.name
        self._handle: io.BufferedReader = open_file(folder, entry)
        weakref.finalize(self, self._handle.close)
        self._mapping = threading.Lock()
        self._mapped: dict[str, NDArray[Any]] | None = None

    @cached_property
    def stored(self) -> StoredMaps:
        """The maps alone, where the manifest says that they lie: nothing is parsed.

        Their content is **not** checked; `Store.check_rows` does that, row by row. Without a place
        in the manifest (format 1) they are those of `rows`.

        Raises:
            CorruptStoreError: if the file is not as the manifest promises.
        """
        if not self._entry.arrays:
            return StoredMaps(self.rows.maps, self.rows.keys)
        arrays = self._arrays
        try:
            return StoredMaps(
                QuantisedMaps(arrays["maps"], arrays["map_scales"]),
                QuantisedMaps(arrays["keys"], arrays["key_scales"]),
            )
        except KeyError as error:
            raise self._lacks(error) from error

    def let_go(self) -> None:
        """Take what was read of `stored` out of this process' memory; it can be read again.

        The arrays stay valid: the file's pages come back from the system's cache or the disk. Does
        nothing where the system has no such request.
        """
        if "stored" not in self.__dict__ or not hasattr(mmap, "MADV_DONTNEED"):
            return
        for array in (self.stored.maps.values, self.stored.keys.values):
            if isinstance(array.base, mmap.mmap):  # never memory of its own, which would be lost
                array.base.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def checksums(self) -> NDArray[np.uint64]:
        """Checksum of each row's maps [n] uint64; computed now for a shard of format 1.

        Raises:
            CorruptStoreError: as `rows`.
        """
        rows = self.rows
        known = self._arrays.get("checksums")
        return row_checksums(rows.maps, rows.keys) if known is None else known

    @cached_property
    def rows(self) -> ShardRows:
        """The arrays, read-only, in place.

        Raises:
            CorruptStoreError: if the content is not what the manifest promises.
        """
        if self._verify:
            check_content(self._folder, self._entry, self._handle)
        arrays = self._arrays
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
            raise self._lacks(error) from error

    @property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Mapped once and for all: kernels know rows by their addresses."""
        with self._mapping:
            if self._mapped is None:
                self._mapped = map_arrays(self._handle, str(self.path), self._entry.arrays)
            return self._mapped

    def _lacks(self, name: KeyError) -> CorruptStoreError:
        return CorruptStoreError(f"{self.path} lacks the array {name}; build again")
