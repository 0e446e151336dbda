"""An index that is open for reading: one whole version, its maps read where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.committed import Committed, committed_versions
from indexer.gallery import Gallery, open_gallery
from indexer.manifest import BUILDING_NAME, Manifest, ViewEntry
from indexer.path_list import PathList
from indexer.quantise import QuantisedMaps, dequantise
from indexer.row_check import RowCheck
from indexer.shard import ShardFile, open_shards
from indexer.store_file import check_content, open_file
from training.errors import CorruptStoreError, DataError
from training.preprocessing import Preprocessing
from training.schema import Schema

Rows = NDArray[np.int64] | slice
"""Rows of the index, 0..M-1: positions in any order, or a slice."""


@dataclass(frozen=True)
class Place:
    """Where rows [M] int64 lie: shard number [M] int64 and position within it [M] int64."""

    rows: NDArray[np.int64]
    shards: NDArray[np.int64]
    positions: NDArray[np.int64]


class Store:
    """An open index of M images. Use `open_store`.

    Args:
        folder: the index.
        manifest: the version to read.
        gallery: labels, paths and predictions.
        shards: the stored maps, in row order.
        verify: whether files are checked before they are read, and rows of maps when they are.
        remarks: what a person should know of how it was opened.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        gallery: Gallery,
        shards: list[ShardFile],
        verify: bool,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.folder, self.manifest, self.gallery = folder, manifest, gallery
        self.shards, self.verify, self.remarks = shards, verify, remarks
        counts = [shard.rows for shard in manifest.shards if shard.file]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._row_check: RowCheck | None = None
        if verify and gallery.checksums is not None:
            self._row_check = RowCheck(folder, shards, self._starts, gallery.checksums)

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each image in the dataset, [M] int64."""
        return self.gallery.rows

    @property
    def paths(self) -> PathList:
        """M image paths relative to `root`."""
        return self.gallery.paths

    @property
    def root(self) -> Path:
        """The folder of the images when the index was built; it may have moved since."""
        return Path(self.manifest.root)

    def labels(self) -> NDArray[np.int8]:
        """Label states of the gallery images [M, K] int8, read-only."""
        return self.gallery.labels

    def predicted(self) -> NDArray[np.float16]:
        """The model's probability of every value [M, K] float16, read-only."""
        return self.gallery.predicted

    @property
    def dim(self) -> int:
        """d, the length of an embedding."""
        return self.manifest.identity.dim

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of the stored maps."""
        return self.manifest.identity.grid

    @cached_property
    def schema(self) -> Schema:
        """The model's schema; labels, predictions and conditions are numbered by it."""
        return Schema.from_json(self.manifest.schema)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How the gallery's images were prepared, and a query has to be."""
        return Preprocessing.from_json(self.manifest.preprocessing)

    @property
    def model_folder(self) -> Path:
        """The copied checkpoint, for `training.checkpoint.load_checkpoint`.

        Raises:
            CorruptStoreError: if one of its files is damaged.
        """
        for entry in self.manifest.model_files if self.verify else ():
            with open_file(self.folder, entry) as handle:
                check_content(self.folder, entry, handle)
        return (self.folder / self.manifest.model_files[0].name).parent

    def view(self, key: str) -> ViewEntry | None:
        """The manifest's entry of the view with that key."""
        return next((view for view in self.manifest.views if view.key == key), None)

    def locate(self, rows: Rows) -> Place:
        """Shard and position of rows of the index; for kernels that read the shards in place.

        Raises:
            IndexError: if a row is not in 0..M-1.
        """
        wanted = self._positions(rows)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows must be 0..{len(self) - 1}, got {wanted.min()}..{wanted.max()}")
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        return Place(wanted, shards, wanted - self._starts[shards])

    def let_go(self, start: int, stop: int) -> None:
        """Take shards that end in rows start+1..stop out of memory; for who passes over all rows.

        Pages of mapped files are the system's to take back, but count as this process' until then.
        """
        ends = self._starts[1:]
        first, last = np.searchsorted(ends, [start, stop], side="right")
        for shard in self.shards[first:last]:
            shard.let_go()

    def check_rows(self, rows: Rows) -> None:
        """Check the stored maps of rows that this process has not checked before.

        Everything that reads `shards[...].stored` calls this first, in the thread that reads: what
        was hashed is in the cache then. An index of format 1 has no checksums of rows; there the
        whole shard was checked when it was opened.

        Raises:
            CorruptStoreError: if one of them is damaged; the message names the shard.
        """
        if self._row_check is not None:
            self._row_check(self._positions(rows))

    def checked(self, rows: NDArray[np.int64]) -> bool:
        """Whether `check_rows` has nothing to do for rows [any] int64."""
        return self._row_check is None or self._row_check.knows(rows)

    def _positions(self, rows: Rows) -> NDArray[np.int64]:
        return np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)

    def quantised(
        self, rows: Rows, out: tuple[QuantisedMaps, QuantisedMaps] | None = None
    ) -> tuple[QuantisedMaps, QuantisedMaps]:
        """A copy of the stored maps and keys of some rows, [M, L, d] int8 with scales [M, L].

        Only the shards that hold the rows are touched, and the rows checked.

        Args:
            rows: which.
            out: where to; new memory by default.

        Raises:
            CorruptStoreError: if one of the rows is damaged.
        """
        place = self.locate(rows)
        if self._row_check is not None:
            self._row_check.in_parallel(place.rows)
        maps, keys = out or (self._room(len(place.shards)), self._room(len(place.shards)))
        for number in np.unique(place.shards):
            stored = self.shards[number].stored
            where = np.flatnonzero(place.shards == number)
            own = place.positions[where]
            for copy, source in ((maps, stored.maps), (keys, stored.keys)):
                copy.values[where] = source.values[own]
                copy.scales[where] = source.scales[own]
        return maps, keys

    def _room(self, rows: int) -> QuantisedMaps:
        cells = self.grid[0] * self.grid[1]
        return QuantisedMaps(
            np.empty((rows, cells, self.dim), np.int8), np.empty((rows, cells), np.float32)
        )

    def maps(self, rows: Rows, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
        """Stored maps of some rows: I and P, both float32 [M, d, H, W] on `device`."""
        maps, keys = self.quantised(rows)
        return dequantise(maps, self.grid, device), dequantise(keys, self.grid, device)

    def check(self) -> None:
        """Check the content of every file of this version.

        Raises:
            CorruptStoreError: naming the first that is damaged.
        """
        for entry in self.manifest.files:
            with open_file(self.folder, entry) as handle:
                check_content(self.folder, entry, handle)


def open_store(folder: Path, verify: bool = True) -> Store:
    """Open an index for reading.

    Every file's size is checked now; its content when it is first used: the stored maps row by
    row, so that a query does not wait for gigabytes of them. `Store.check` reads all files. If the
    manifest is damaged, or names files that are gone, the copy of the last good one is read
    instead, and `Store.remarks` says so. All files are held open: a build that replaces the index
    does not disturb this reader.

    Args:
        folder: the index.
        verify: check contents before they are used.

    Raises:
        DataError: if there is no finished index.
        CorruptStoreError: if a file is missing, has another size, or its content was changed.
    """
    while True:
        found: list[Committed] = []
        trouble: CorruptStoreError | None = None
        for version in committed_versions(folder):
            found.append(version)
            try:
                return _open(folder, version, verify, trouble)
            except CorruptStoreError as error:
                trouble = trouble or error
        if trouble is None:
            raise _not_there(folder)
        # A build that finished between the two reads has taken the old version's files away.
        if list(committed_versions(folder)) == found:
            raise trouble


def _open(
    folder: Path, version: Committed, verify: bool, trouble: CorruptStoreError | None
) -> Store:
    manifest = version.manifest
    if manifest.gallery is None:
        raise _not_there(folder)
    shards = open_shards(folder, manifest.shards, verify, len(manifest.views))
    gallery = open_gallery(folder, manifest.gallery, verify)
    remarks = [] if version.remark is None else [version.remark]
    if trouble is not None:
        remarks.insert(0, str(trouble))
    return Store(folder, manifest, gallery, shards, verify, tuple(remarks))


def _not_there(folder: Path) -> DataError:
    if (folder / BUILDING_NAME).exists():
        return DataError(
            f"the index in {folder} is not finished; run the same build-index command again, "
            "it goes on where it stopped"
        )
    return DataError(f"no index in {folder}; build one with: retrieve build-index --dataset ...")
