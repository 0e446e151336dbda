"""The gallery file: what the dataset says of every indexed image.

It is written at the end of every build from the dataset and the shards. Labels, items and payload
that were corrected reach the index through it without encoding an image again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.array_file import write_arrays
from indexer.manifest import FileEntry
from indexer.mapped_hdf5 import map_arrays
from indexer.path_list import PathList
from indexer.payload import Column, pack_payload, unpack_payload
from indexer.shard import ShardFile
from indexer.store_file import check_quickly, commit_file, open_file
from training.datasets.dataset import SPLITS
from training.errors import CorruptStoreError
from training.files import temporary_file

_SPLIT_NAMES = np.array(["", *SPLITS])


class Labels:
    """Label states of M images, value by value, two bits each: a filter reads its values alone.

    Args:
        packed: four states a byte [K, M / 4 rounded up] uint8, read-only.
        rows: M.
    """

    def __init__(self, packed: NDArray[np.uint8], rows: int) -> None:
        self.packed, self._rows = packed, rows

    @classmethod
    def of(cls, states: NDArray[np.int8]) -> Labels:
        """Pack label states [M, K] int8 in {-1, 0, +1}."""
        rows, size = states.shape
        codes = np.zeros((size, -(-rows // 4) * 4), dtype=np.uint8)
        codes[:, :rows] = (states + 1).T
        four = codes.reshape(size, -1, 4)
        packed = four[..., 0] | four[..., 1] << 2 | four[..., 2] << 4 | four[..., 3] << 6
        return cls(packed, rows)

    def of_values(self, values: Sequence[int]) -> NDArray[np.int8]:
        """States of some values, by flat index, of all images: [M, n] int8, values side by side in
        memory of their own."""
        out = np.empty((len(values), self._rows), dtype=np.int8)
        for own, value in zip(out, values, strict=True):
            own[:] = _STATES[self.packed[value]].reshape(-1)[: self._rows]
        return out.T

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """States of some images, of all values: [n, K] int8."""
        codes = self.packed[:, rows // 4] >> (2 * (rows % 4)).astype(np.uint8)
        states: NDArray[np.int8] = (codes & 3).astype(np.int8).T - np.int8(1)
        return states


_STATES = ((np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3).astype(np.int8) - np.int8(1)
"""The four states of every byte, [256, 4]."""


@dataclass(frozen=True)
class Gallery:
    """M indexed images, read-only, in place.

    Args:
        rows: row of each image in the dataset, [M] int64.
        labels: what is known of their values.
        split_codes: place of each image's split in `SPLITS`, from 1, or 0 for none, [M] uint8.
        items: number of the item that each image shows [M] int64, -1 unknown; None: all unknown.
        paths: M paths relative to the dataset's root.
        payload: columns of M cells, by name.
    """

    rows: NDArray[np.int64]
    labels: Labels
    split_codes: NDArray[np.uint8]
    items: NDArray[np.int64] | None
    paths: PathList
    payload: dict[str, Column]

    @property
    def splits(self) -> NDArray[np.str_]:
        """`train`, `valid`, `test` or empty, [M] unicode, in new memory."""
        names: NDArray[np.str_] = _SPLIT_NAMES[self.split_codes]
        return names


@dataclass(frozen=True)
class Known:
    """What is known of N images, of which some are in the shards.

    Args:
        labels: label states [N, K] int8.
        splits: `train`, `valid`, `test` or empty, [N] unicode.
        items: numbers of items [N] int64, -1 unknown; None: all unknown.
        payload: columns of N cells, by name.
        numbers: row of each in the dataset [N] int64.
    """

    labels: NDArray[np.int8]
    splits: NDArray[np.str_]
    numbers: NDArray[np.int64]
    items: NDArray[np.int64] | None = None
    payload: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_gallery(
    folder: Path, shards: Sequence[ShardFile], listed: Sequence[NDArray[np.int64]], known: Known
) -> FileEntry:
    """Write and commit the gallery file.

    Args:
        folder: the index.
        shards: the shards, in row order.
        listed: for each shard the rows of `known` that were listed for it.
        known: what the file will say.

    Raises:
        ResourceError: if it cannot be written.
    """
    parts = [own[shard.rows.listed] for shard, own in zip(shards, listed, strict=True)]
    rows = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    paths = PathList.of(path for shard in shards for path in shard.rows.paths)
    own_rows = rows.tolist()
    payload = {n: [cells[row] for row in own_rows] for n, cells in known.payload.items()}
    arrays: dict[str, NDArray[Any]] = {
        "rows": known.numbers[rows],
        "labels": Labels.of(known.labels[rows]).packed,
        "splits": _split_codes(known.splits[rows]),
        "paths": paths.blob,
        "path_offsets": paths.offsets,
    }
    if known.items is not None:
        arrays["items"] = known.items[rows]
    with temporary_file(folder) as temporary:
        places = write_arrays(temporary, arrays | pack_payload(payload))
        return commit_file(temporary, folder, "gallery", ".h5", places)


def open_gallery(folder: Path, entry: FileEntry, verify: bool = True) -> Gallery:
    """Open the gallery file; its content is checked first, unless `verify` is false.

    Raises:
        CorruptStoreError: if it is missing or damaged.
    """
    name = str(folder / entry.name)
    with open_file(folder, entry) as handle:
        if verify:
            check_quickly(folder, entry, handle)
        arrays = map_arrays(handle, name, entry.arrays)
    try:
        return Gallery(
            arrays["rows"],
            Labels(arrays["labels"], len(arrays["rows"])),
            arrays["splits"],
            arrays.get("items"),
            PathList(arrays["paths"], arrays["path_offsets"]),
            unpack_payload(arrays),
        )
    except KeyError as error:
        raise CorruptStoreError(f"{name} is not a gallery file: {error}; build again") from error


def known_of(gallery: Gallery) -> Known:
    """What a gallery file says, for another one."""
    payload = {name: column.cells for name, column in gallery.payload.items()}
    labels = gallery.labels.of_rows(np.arange(len(gallery.rows)))
    return Known(labels, gallery.splits, gallery.rows, gallery.items, payload)


def _split_codes(splits: NDArray[np.str_]) -> NDArray[np.uint8]:
    codes = np.zeros(len(splits), dtype=np.uint8)
    for code, name in enumerate(_SPLIT_NAMES):
        codes[splits == name] = code
    return codes
