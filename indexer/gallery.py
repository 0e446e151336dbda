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
from indexer.atomic import temporary_file
from indexer.manifest import FileEntry
from indexer.mapped_hdf5 import map_arrays
from indexer.path_list import PathList
from indexer.payload import Column, pack_payload, unpack_payload
from indexer.shard import ShardFile
from indexer.store_file import check_quickly, commit_file, open_file
from training.datasets.dataset import SPLITS
from training.errors import CorruptStoreError

_SPLIT_NAMES = np.array(["", *SPLITS])


@dataclass(frozen=True)
class Gallery:
    """M indexed images, read-only, in place.

    Args:
        rows: row of each image in the dataset, [M] int64.
        labels: label states [M, K] int8.
        split_codes: place of each image's split in `SPLITS`, from 1, or 0 for none, [M] uint8.
        items: number of the item that each image shows [M] int64, -1 unknown; None: all unknown.
        paths: M paths relative to the dataset's root.
        payload: columns of M cells, by name.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int8]
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
        "labels": known.labels[rows],
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
            arrays["labels"],
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
    return Known(gallery.labels, gallery.splits, gallery.rows, gallery.items, payload)


def _split_codes(splits: NDArray[np.str_]) -> NDArray[np.uint8]:
    codes = np.zeros(len(splits), dtype=np.uint8)
    for code, name in enumerate(_SPLIT_NAMES):
        codes[splits == name] = code
    return codes
