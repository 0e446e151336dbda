"""Images that committed shards hold, found again by the content of their files.

The same bytes, decoded by the same rule and encoded by the same model, give the same descriptor:
an image that moved in the list, or got another name, is copied instead of encoded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.manifest import FileEntry
from indexer.shard import ShardFile, ShardRows

_OPEN = 4  # shards; an image that moved a little lies in one of two neighbours


class DigestTable:
    """SHA-256 digests by which rows are found.

    Args:
        digests: [N, 32] uint8.
    """

    def __init__(self, digests: NDArray[np.uint8]) -> None:
        self._digests = digests
        keys = _keys(digests)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def find(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The first row [M] int64 that has each of the digests [M, 32]; -1 where none has."""
        if not len(self._order):
            return np.full(len(digests), -1, dtype=np.int64)
        places = np.searchsorted(self._sorted, _keys(digests))
        rows = self._order[np.minimum(places, len(self._order) - 1)]
        # Two digests with equal first bytes are not expected; if so, the second is not found.
        same = (self._digests[rows] == digests).all(axis=1)
        return np.where(same, rows, -1).astype(np.int64)


class EncodedImages:
    """The images of some shards, numbered through. Holds their digests, and few shards open.

    Args:
        folder: the index.
        files: shards whose content has been checked.
    """

    def __init__(self, folder: Path, files: Sequence[FileEntry]) -> None:
        self._folder, self._files = folder, list(files)
        self._open: OrderedDict[int, ShardRows] = OrderedDict()
        found = [np.array(self.shard(number).digests) for number in range(len(self._files))]
        self.digests = np.concatenate(found) if found else np.zeros((0, 32), np.uint8)
        """SHA-256 of each image's file, [N, 32] uint8."""
        self._starts = np.cumsum([0, *map(len, found)])
        self._table = DigestTable(self.digests)

    def __len__(self) -> int:
        return len(self.digests)

    def find(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Numbers [M] int64 of images with these digests [M, 32]; -1 where there is none."""
        return self._table.find(digests)

    def locate(self, images: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shard number and position within it, [M] int64 each, of images by number."""
        shards = np.searchsorted(self._starts, images, side="right") - 1
        return shards, images - self._starts[shards]

    def shard(self, number: int) -> ShardRows:
        """The content of one of the shards."""
        rows = self._open.pop(number, None)
        if rows is None:
            rows = ShardFile(self._folder, self._files[number], verify=False).rows
        self._open[number] = rows
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return rows


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view("<u8")[:, 0]
