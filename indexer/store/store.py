"""An index that is open for reading: one whole version, its descriptors read where they lie."""

from __future__ import annotations

import io
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.store.files import check_content, open_file
from indexer.store.gallery import Gallery, open_gallery
from indexer.store.manifest import BUILDING_NAME, Committed, FileEntry, Manifest, committed_versions
from indexer.store.shard import ShardFile, open_shards
from training.errors import CorruptStoreError, DataError
from training.images.preprocessing import Preprocessing
from training.schema import Schema


class Store:
    """An open index of M images. Use `open_store`.

    Of each image it has the row in the dataset, the path relative to `root`, where the images were
    when the index was built, and by `payload` the columns that are no attributes. `verify`: files
    are checked before they are read. `lists` is the open file of inverted lists, if there is one;
    `remarks` is what a person should know of how it was opened.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        gallery: Gallery,
        shards: list[ShardFile],
        verify: bool,
        lists: io.BufferedReader | None = None,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.folder, self.manifest, self.gallery = folder, manifest, gallery
        self.shards, self.verify, self.lists, self.remarks = shards, verify, lists, remarks
        self.rows, self.paths, self.payload = gallery.rows, gallery.paths, gallery.payload
        self.root, self.layout = Path(manifest.root), manifest.identity.layout
        if lists is not None:
            weakref.finalize(self, lists.close)
        counts = [shard.rows for shard in manifest.shards if shard.file]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._descriptors: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def labels(self) -> NDArray[np.int8]:
        """Label states of all gallery images [M, K] int8, in new memory."""
        return self.labels_of(np.arange(len(self), dtype=np.int64))

    def labels_of(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """Label states of some images [n, K] int8."""
        return self.gallery.labels.of_rows(rows)

    def states(self, values: Sequence[int]) -> NDArray[np.int8]:
        """Label states of all images for some values, by flat index, [M, n] int8."""
        return self.gallery.labels.of_values(values)

    def labelled(self) -> NDArray[np.int64]:
        """How many images are known to have each value, [K]."""
        counts = [int((self.states([flat]) == 1).sum()) for flat in range(self.schema.size)]
        return np.array(counts, dtype=np.int64)

    def payload_of(self, row: int) -> dict[str, str]:
        """The cells of an image that are not empty, by column."""
        return {name: text for name, own in self.payload.items() if (text := own.text(row))}

    def items(self) -> NDArray[np.int64] | None:
        """Number of the item that each image shows [M] int64, -1 unknown; None: all unknown."""
        return self.gallery.items

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """All descriptors, a shard [n, width] uint8 at a time, read-only, in place."""
        return (shard.rows.descriptors for shard in self.shards)

    def descriptors(self) -> NDArray[np.uint8]:
        """All descriptors [M, width] uint8, read-only; where there are several shards a copy, which
        is kept."""
        if self._descriptors is None:
            self._descriptors = _joined(list(self.blocks()), self.layout.width)
        return self._descriptors

    def descriptors_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A copy of the descriptors of some rows [n] in any order, [n, width] uint8.

        Raises IndexError if a row is not 0..M-1, CorruptStoreError if a shard is damaged.
        """
        if self._descriptors is not None:
            self._check(rows)
            return self._descriptors[rows]
        return self._gathered(rows, "descriptors", self.layout.width)

    def digests_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """SHA-256 of the files of some rows [n], [n, 32] uint8; raises as `descriptors_of`."""
        return self._gathered(rows, "digests", 32)

    def _check(self, rows: NDArray[np.int64]) -> None:
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must be 0..{len(self) - 1}, got {rows.min()}..{rows.max()}")

    def _gathered(self, rows: NDArray[np.int64], name: str, width: int) -> NDArray[np.uint8]:
        self._check(rows)
        out = np.empty((len(rows), width), np.uint8)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in sorted(set(numbers.tolist())):  # np.unique is slow to load
            here = np.flatnonzero(numbers == number)
            out[here] = getattr(self.shards[number].rows, name)[rows[here] - self._starts[number]]
        return out

    def digests(self) -> NDArray[np.uint8]:
        """SHA-256 of each image file's bytes [M, 32] uint8, read-only."""
        return _joined([shard.rows.digests for shard in self.shards], 32)

    @cached_property
    def schema(self) -> Schema:
        """The model's schema; labels, chances and conditions are numbered by it."""
        return Schema.from_json(self.manifest.schema)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How the gallery's images were prepared, and a query has to be."""
        return Preprocessing.from_json(self.manifest.preprocessing)

    def read_model(self, name: str) -> bytes:
        """The content of a file of the copied checkpoint; CorruptStoreError if it is damaged or not
        there."""
        for entry in self.manifest.model_files:
            if entry.name.endswith(f"/{name}"):
                with open_file(self.folder, entry) as handle:
                    content = handle.read()
                if self.verify:
                    check_content(self.folder, entry, io.BytesIO(content))
                return content
        raise CorruptStoreError(f"the index in {self.folder} has no {name}; build it again")

    @property
    def model_folder(self) -> Path:
        """The copied checkpoint, for `load_checkpoint`; CorruptStoreError if it is damaged."""
        if self.verify:
            self.check(self.manifest.model_files)
        return (self.folder / self.manifest.model_files[0].name).parent

    def check(self, files: Sequence[FileEntry] | None = None) -> None:
        """Check the content of files, by default all; CorruptStoreError names the first damaged."""
        for entry in self.manifest.files if files is None else files:
            with open_file(self.folder, entry) as handle:
                check_content(self.folder, entry, handle)


def _joined(parts: list[NDArray[np.uint8]], width: int) -> NDArray[np.uint8]:
    if len(parts) == 1:
        return parts[0]
    whole = np.concatenate(parts) if parts else np.zeros((0, width), np.uint8)
    whole.flags.writeable = False
    return whole


def open_store(folder: Path, verify: bool = True) -> Store:
    """Open an index for reading.

    Every file's size is checked now; its content, with `verify`, when first used. If the manifest
    is damaged, or names files that are gone, the copy of the last good one is read instead, and
    `Store.remarks` says so. All files are held open: a build does not disturb this reader. Raises
    DataError if there is no finished index, and CorruptStoreError if a file is missing or changed.
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
    shards = open_shards(folder, manifest.shards, verify)
    gallery = open_gallery(folder, manifest.gallery, verify)
    remarks = tuple(str(remark) for remark in (trouble, version.remark) if remark is not None)
    search = manifest.search.file
    lists = None if search is None else open_file(folder, search)
    return Store(folder, manifest, gallery, shards, verify, lists, remarks)


def _not_there(folder: Path) -> DataError:
    if (folder / BUILDING_NAME).exists():
        return DataError(
            f"the index in {folder} is not finished; run the same build-index command again, "
            "it goes on where it stopped"
        )
    return DataError(f"no index in {folder}; build one with: retrieve build-index --dataset ...")
