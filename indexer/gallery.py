"""The gallery file: what the dataset says of every indexed image, and what the model predicts.

It is small beside the maps, is written at the end of every build from the dataset and the shards,
and is all that a query needs besides one view. Labels that were corrected reach the index through
it without encoding an image again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.array_file import ArrayFile, ArraySpec
from indexer.atomic import temporary_file
from indexer.manifest import FileEntry
from indexer.mapped_hdf5 import map_arrays
from indexer.path_list import PathList
from indexer.shard import ShardFile
from indexer.store_file import check_content, check_quickly, commit_file, open_file
from training.datasets.dataset import SPLITS
from training.errors import CorruptStoreError

_SPLIT_NAMES = np.array(["", *SPLITS])


@dataclass(frozen=True)
class Gallery:
    """M indexed images, read-only, in place.

    Args:
        rows: row of each image in the dataset, [M] int64.
        labels: label states [M, K] int8.
        splits: `train`, `valid`, `test` or empty, [M] unicode.
        predicted: probability of every value, [M, K] float16.
        digests: SHA-256 of each image file's bytes, [M, 32] uint8.
        paths: M paths relative to the dataset's root.
        checksums: of each row's stored maps, see `row_checksums`, [M] uint64; None in format 1.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int8]
    splits: NDArray[np.str_]
    predicted: NDArray[np.float16]
    digests: NDArray[np.uint8]
    paths: PathList
    checksums: NDArray[np.uint64] | None


def write_gallery(
    folder: Path,
    shards: Sequence[ShardFile],
    listed: Sequence[NDArray[np.int64]],
    labels: NDArray[np.int8],
    splits: NDArray[np.str_],
    numbers: NDArray[np.int64] | None = None,
) -> FileEntry:
    """Write and commit the gallery file, one shard in memory at a time.

    Args:
        folder: the index.
        shards: the shards, in row order.
        listed: for each shard the rows of `labels` and `splits` that were listed for it.
        labels: label states of the whole dataset [N, K] int8.
        splits: splits of the whole dataset [N].
        numbers: row in the dataset of each row of `labels` [N]; its place by default.

    Raises:
        ResourceError: if it cannot be written.
    """
    rows = [own[shard.rows.listed] for shard, own in zip(shards, listed, strict=True)]
    total = sum(len(part) for part in rows)
    paths = PathList.of(path for shard in shards for path in shard.rows.paths)
    specs = {
        "rows": ArraySpec((total,), np.int64),
        "labels": ArraySpec((total, labels.shape[1]), np.int8),
        "splits": ArraySpec((total,), np.uint8),
        "predicted": ArraySpec((total, labels.shape[1]), np.float16),
        "digests": ArraySpec((total, 32), np.uint8),
        "checksums": ArraySpec((total,), np.uint64),
        "paths": ArraySpec(paths.blob.shape, np.uint8),
        "path_offsets": ArraySpec(paths.offsets.shape, np.int64),
    }
    with temporary_file(folder) as temporary:
        with ArrayFile(temporary, specs) as file:
            file.write("paths", paths.blob)
            file.write("path_offsets", paths.offsets)
            start = 0
            for shard, own in zip(shards, rows, strict=True):
                file.write("rows", own if numbers is None else numbers[own], start)
                file.write("labels", labels[own], start)
                file.write("splits", _split_codes(splits[own]), start)
                file.write("predicted", shard.rows.predicted, start)
                file.write("digests", shard.rows.digests, start)
                file.write("checksums", shard.checksums, start)
                start += len(own)
        return commit_file(temporary, folder, "gallery", ".h5", file.places)


def open_gallery(folder: Path, entry: FileEntry, verify: bool = True) -> Gallery:
    """Open the gallery file; its content is checked first, unless `verify` is false.

    Raises:
        CorruptStoreError: if it is missing or damaged.
    """
    name = str(folder / entry.name)
    with open_file(folder, entry) as handle:
        if verify and entry.arrays:  # then nothing of it is parsed
            check_quickly(folder, entry, handle)
        elif verify:
            check_content(folder, entry, handle)
        arrays = map_arrays(handle, name, entry.arrays)
    try:
        return Gallery(
            arrays["rows"],
            arrays["labels"],
            _SPLIT_NAMES[arrays["splits"]],
            arrays["predicted"],
            arrays["digests"],
            PathList(arrays["paths"], arrays["path_offsets"]),
            arrays.get("checksums"),
        )
    except (KeyError, IndexError) as error:
        raise CorruptStoreError(f"{name} is not a gallery file: {error}; build again") from error


def _split_codes(splits: NDArray[np.str_]) -> NDArray[np.uint8]:
    codes = np.zeros(len(splits), dtype=np.uint8)
    for code, name in enumerate(_SPLIT_NAMES):
        codes[splits == name] = code
    return codes
