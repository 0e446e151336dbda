"""A view that is open for searching: flat vectors, and what finds candidates in them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from indexer.approximate import HITS, ApproximateSource, read_index
from indexer.committed import read_committed
from indexer.exact_search import (
    CandidateSource,
    FlatSource,
    all_cosines,
    search_approximately,
    search_exactly,
    some_cosines,
)
from indexer.flat_file import map_flat
from indexer.manifest import ViewEntry
from indexer.open_files import map_whole
from indexer.store import Store
from indexer.store_file import check_mapped, check_quickly, open_file
from training.errors import CorruptStoreError, UsageError

_RANDOM = 8  # a row read on its own costs about as much as so many in sequence


class View:
    """The gallery's embeddings under one condition, searched exactly or by candidates.

    Nothing of faiss is opened before the first search, and a forked child opens its own. Threads
    may share a view. A child that is forked after a search of several threads hangs in the next
    one, as OpenMP's threads do not survive a fork: start such processes by `spawn`.

    Args:
        key: short hash of the condition.
        name: the condition in words.
        vectors: unit vectors [N, d] float32, contiguous: mapped from a flat file, or computed.
        open_source: opens what finds candidates; None searches the vectors whole.
    """

    def __init__(
        self,
        key: str,
        name: str,
        vectors: NDArray[np.float32],
        open_source: Callable[[], CandidateSource] | None = None,
    ) -> None:
        self.key, self.name = key, name
        self._vectors: NDArray[np.float32] | None = vectors
        self._open_source = open_source
        self._source: CandidateSource | None = None
        self._pid, self._opening = os.getpid(), threading.Lock()
        self._moved = False

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Unit vectors [N, d] float32, read-only where they are mapped; not aligned then."""
        assert self._vectors is not None, "the view is closed"
        return self._vectors

    @property
    def nbytes(self) -> int:
        """Size of the vectors and of what has been opened beside them."""
        return self.vectors.nbytes + (self._source.nbytes if self._source is not None else 0)

    @property
    def source(self) -> CandidateSource:
        """What finds candidates, opened now if it was not; raises CorruptStoreError."""
        if self._pid != os.getpid():  # what another thread held at the fork stays held
            self._source, self._opening, self._pid = None, threading.Lock(), os.getpid()
        with self._opening:
            if self._source is None:
                opened = self._open_source
                self._source = FlatSource(self.vectors) if opened is None else opened()
            return self._source

    def search(
        self, queries: NDArray[np.float32], k: int, exact: bool = False, rough: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest rows of some queries.

        Args:
            queries: unit vectors [Q, d] float32.
            k: how many, at least 1; at most N are returned.
            exact: compare all rows even where there is an approximate index.
            rough: let an approximate index name no more candidates than for ten hits: the tenth is
                as sure to be found as without, those beyond are less so.

        Returns:
            Exact cosines [Q, min(k, N)] float32 and rows [Q, min(k, N)] int64, best first; equal
            cosines, to 6 decimals, by row.

        Raises:
            UsageError: k < 1.
            CorruptStoreError: the approximate index is damaged.
        """
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        k = min(k, len(self))
        if k == 0 or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        source = FlatSource(self.vectors) if exact and not self._moved else self.source
        if exact and source.error is None:
            source = FlatSource(self.vectors)
        if source.error is not None:
            return search_exactly(source, self.vectors, queries, k)
        wanted = max(k, HITS * source.refine) if rough else max(k, HITS) * source.refine
        if wanted * _RANDOM >= len(self) or wanted > source.most:  # to read all costs less
            return search_exactly(FlatSource(self.vectors), self.vectors, queries, k)
        return search_approximately(source, self.vectors, queries, k, wanted)

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines [N] float32 of one query [d] with all rows, in row order."""
        return all_cosines(self.vectors, query)

    def scores_of(self, rows: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines [M] float32 of one query [d] with M rows, in the order given."""
        return some_cosines(self.vectors, query, rows)

    def use(self, open_source: Callable[[], CandidateSource | None]) -> None:
        """Find candidates with something else from now on, such as a GPU; with what it had if None
        is opened."""
        before, vectors = self._open_source, self.vectors  # not the view: it could not be freed

        def opened() -> CandidateSource:
            source = open_source()
            if source is not None:
                return source
            return FlatSource(vectors) if before is None else before()

        if self._source is not None:
            self._source.close()
        self._source, self._open_source, self._moved = None, opened, True

    def close(self) -> None:
        """Give back the source and the mapping; arrays that were handed out stay valid."""
        if self._source is not None:
            self._source.close()
        self._source, self._open_source, self._vectors = None, None, None


def open_view(store: Store, key: str) -> View | None:
    """Open a view of the index; None if the index has none for that condition.

    Its files are checked before anything parses them, the approximate index when it is first
    searched. They are held open: a build that replaces the index does not disturb the view.

    Args:
        store: the open index.
        key: `views.condition_key` of the condition.

    Raises:
        CorruptStoreError: if a file is missing or damaged.
    """
    entry = store.view(key)
    if entry is None:
        return None
    try:
        with open_file(store.folder, entry.file) as handle:
            if store.verify:
                check_quickly(store.folder, entry.file, handle)
            vectors = map_flat(handle, len(store), store.dim)
        return View(entry.key, entry.name, vectors, _approximate(store, entry))
    except CorruptStoreError:
        # A finished build has replaced this version: its maps are still held open, its views not.
        replaced = not (store.folder / entry.file.name).exists()
        now = read_committed(store.folder) if replaced else None
        if now is not None and now.manifest != store.manifest:
            return None
        raise


def _approximate(store: Store, view: ViewEntry) -> Callable[[], CandidateSource] | None:
    entry = view.approximate
    if entry is None:
        return None
    with open_file(store.folder, entry.file) as handle:
        content = map_whole(handle)

    def read() -> CandidateSource:
        if store.verify:
            check_mapped(store.folder, entry.file, content)
        index = read_index(content, store.folder / entry.file.name, len(store), store.dim)
        return ApproximateSource(index, entry.factory, entry.refine, entry.nprobe, entry.file.size)

    return read
