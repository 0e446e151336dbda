"""A shard: the descriptors of a thousand images or more. Immutable once committed."""

from __future__ import annotations

import io
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.store.files import (
    allow_open_files,
    check_content,
    commit_file,
    map_arrays,
    open_file,
    write_arrays,
)
from indexer.store.gallery import PathList
from indexer.store.manifest import FileEntry, ShardEntry
from training.errors import CorruptStoreError
from training.files import temporary_file

SHARD_ROWS = 1024
"""Images a shard, at least: what an interrupted build loses at most."""

_MOST_SHARDS = 1024  # each is two open files
_OPEN = 2  # files of a shard: itself and its mapping


def rows_a_shard(images: int) -> int:
    """How many images of a gallery go into one shard: a power of two, 1,024 at least."""
    rows = SHARD_ROWS
    while rows * _MOST_SHARDS < images:
        rows *= 2
    return rows


@dataclass(frozen=True)
class ShardRows:
    """The content of a shard, n images in row order; paths are relative to the dataset's root."""

    descriptors: NDArray[np.uint8]  # [n, width]
    digests: NDArray[np.uint8]  # [n, 32], SHA-256 of each image file's bytes
    listed: NDArray[np.int32]  # [n], position among the images listed for the shard
    paths: PathList

    def __len__(self) -> int:
        return len(self.listed)


def write_shard(folder: Path, number: int, rows: ShardRows) -> FileEntry:
    """Write and commit shard number `number` of the index in `folder`; raises ResourceError."""
    arrays = {name: getattr(rows, name) for name in ("descriptors", "digests", "listed")}
    arrays |= {"paths": rows.paths.blob, "path_offsets": rows.paths.offsets}
    with temporary_file(folder / "shards") as temporary:
        places = write_arrays(temporary, arrays)
        return commit_file(temporary, folder, f"shards/{number:05d}", ".h5", places)


def open_shards(folder: Path, entries: Sequence[ShardEntry], verify: bool) -> list[ShardFile]:
    """The shards of an index that hold images; raises as `ShardFile`."""
    files = [entry.file for entry in entries if entry.file is not None]
    allow_open_files(_OPEN * len(files))
    return [ShardFile(folder, file, verify) for file in files]


class ShardFile:
    """A committed shard, opened at once (so that a later build cannot take it away), read lazily.

    With `verify` its content is checked before `rows` are first given out. Raises as `open_file`.
    """

    def __init__(self, folder: Path, entry: FileEntry, verify: bool = True) -> None:
        self._folder, self._entry, self._verify = folder, entry, verify
        self._handle: io.BufferedReader = open_file(folder, entry)
        self._reading = threading.Lock()
        weakref.finalize(self, self._handle.close)

    @property
    def rows(self) -> ShardRows:
        """The arrays, read-only, in place; CorruptStoreError if they are damaged."""
        with self._reading:  # a shard is hashed once, whatever number of threads asks for it
            return self._rows

    @cached_property
    def _rows(self) -> ShardRows:
        path = self._folder / self._entry.name
        if self._verify:
            check_content(self._folder, self._entry, self._handle, quickly=True)
        arrays = map_arrays(self._handle, str(path), self._entry.arrays)
        try:
            paths = PathList(arrays["paths"], arrays["path_offsets"])
            return ShardRows(arrays["descriptors"], arrays["digests"], arrays["listed"], paths)
        except KeyError as error:
            raise CorruptStoreError(f"{path} lacks the array {error}; build again") from error
