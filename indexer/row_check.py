"""Checking stored maps when they are first read: each row once a process, not the gigabytes around.

A damaged row is found before anything is computed from it, by whatever head reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.row_checksums import RowBytes
from indexer.shard import ShardFile
from indexer.store_file import remedy
from indexer.worker_pool import worker_pool
from training.errors import CorruptStoreError

_A_THREAD = 256  # rows that are worth handing to another thread: 13 MB at 49 x 512


class RowCheck:
    """Which rows of an index are known to be sound; any thread may ask.

    Args:
        folder: the index.
        shards: of the index, in row order.
        starts: first row of each shard, and the number of rows: [shards + 1] int64.
        checksums: of all rows, [M] uint64.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[ShardFile],
        starts: NDArray[np.int64],
        checksums: NDArray[np.uint64],
    ) -> None:
        self._folder, self._shards = folder, shards
        self._starts, self._checksums = starts, checksums
        self._sound = np.zeros(len(checksums), dtype=np.bool_)
        self._all_sound = not len(checksums)
        self._left = len(checksums)  # rows that are unknown, or fewer
        self._lock = threading.Lock()

    def __call__(self, rows: NDArray[np.int64]) -> None:
        """Check those of the rows [any] int64 that have not been checked.

        Raises:
            CorruptStoreError: at the first damaged one; the message names its shard.
        """
        fresh = self._unknown(rows)
        if not len(fresh):
            return
        expected = self._checksums[fresh].tolist()
        shards = np.searchsorted(self._starts, fresh, side="right") - 1
        for number in np.unique(shards).tolist():
            stored = self._shards[number].stored
            content = RowBytes(stored.maps, stored.keys)
            first = int(self._starts[number])
            for place in np.flatnonzero(shards == number).tolist():
                row = int(fresh[place])
                if content.checksum(row - first) != expected[place]:
                    raise self._damaged(number, row)
        # Two threads may have checked the same row; both say the same of it.
        self._sound[fresh] = True
        with self._lock:
            self._left -= len(fresh)
            if self._left <= 0:  # a row that two threads checked was counted twice: look
                self._all_sound = bool(self._sound.all())

    def in_parallel(self, rows: NDArray[np.int64]) -> None:
        """The same on all cores, where that is worth while."""
        fresh = self._unknown(rows)
        threads = min(torch.get_num_threads(), len(fresh) // _A_THREAD)
        if threads < 2:
            self(fresh)
            return
        for _ in worker_pool().map(self, np.array_split(fresh, threads)):
            pass

    def knows(self, rows: NDArray[np.int64]) -> bool:
        """Whether all of the rows have been found sound."""
        return self._all_sound or bool(self._sound[rows].all())

    def _unknown(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows[:0] if self._all_sound else rows[~self._sound[rows]]

    def _damaged(self, number: int, row: int) -> CorruptStoreError:
        return CorruptStoreError(
            f"{self._shards[number].path} is damaged (row {row - int(self._starts[number])} does "
            f"not match its checksum); {remedy(self._folder)}"
        )
