"""The one index over the descriptors: the images whose bytes have the highest inner product.

A source names candidates (every descriptor read by faiss, inverted lists, or a GPU); their scores
are computed again here, in one way, so that hits and ties do not depend on what found them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.flat_bytes import Allowed, Bytes, FlatBytes, Weights
from indexer.gpu_search import open_on_gpu
from indexer.inverted_lists import open_lists
from indexer.manifest import SearchEntry
from indexer.store import Store

GATHER = 4096
"""Allowed rows up to which each of them is read alone, whatever the index."""

_BEYOND = 16  # candidates more than are wanted, for ties and roundings
_WIDER = 4  # times as many, where these do not settle it
_ROUNDING = 2.0**-24  # of a sum of float32, a summand


class Source(Protocol):
    """What names candidates; `exact`: it misses none of the best."""

    exact: bool

    def candidates(
        self, weights: Weights, count: int, allowed: Allowed | None, exact: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores, about, and rows [Q, any >= count or all] in any order; -1: none."""
        ...


class SearchIndex:
    """Search over M descriptors. Use `open_search`.

    Args:
        source: what names candidates.
        gather: descriptors [n, width] of rows [n].
        rows: M.
        choice: in words, what searches.
    """

    def __init__(
        self, source: Source, gather: Callable[[NDArray[np.int64]], Bytes], rows: int, choice: str
    ) -> None:
        self._source, self._gather, self._rows = source, gather, rows
        self.choice = choice

    def search(
        self, weights: Weights, k: int, allowed: Allowed | None = None, exact: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best rows by the inner product of weights with the bytes 0..255 of descriptors.

        Args:
            weights: of Q queries, [Q, width] float32.
            k: how many, at least 1.
            allowed: the rows that may be found [M] bool; all by default.
            exact: read every descriptor, also where there are inverted lists.

        Returns:
            Rows [Q, k] int64 and scores [Q, k] float32, best first, ties by row; -1 and -inf where
            fewer than k rows are allowed.
        """
        weights = np.ascontiguousarray(weights, dtype=np.float32)
        rows = np.full((len(weights), k), -1, dtype=np.int64)
        scores = np.full((len(weights), k), -np.inf, dtype=np.float32)
        total = self._rows if allowed is None else int(np.count_nonzero(allowed))
        if allowed is not None and total <= GATHER:
            few = np.flatnonzero(allowed)
            codes = self._gather(few)
            for query, own in enumerate(weights):
                self._put(rows[query], scores[query], few, _scores(codes, own))
            return rows, scores
        wanted = min(k, total)
        exact = exact or self._source.exact
        pending, count = np.arange(len(weights)), min(wanted + _BEYOND, total)
        while len(pending):
            part = weights[pending]
            about, found = self._source.candidates(part, count, allowed, exact)
            unsure = []
            for place, query in enumerate(pending.tolist()):
                near = np.argsort(-about[place], kind="stable")[:count]
                near = near[found[place][near] >= 0]
                own = self.scores_of(weights[query], found[place][near])
                rows[query], scores[query] = -1, -np.inf
                self._put(rows[query], scores[query], found[place][near], own)
                if exact:
                    # Could one that was not named be as good as the last of the best?
                    error = 255 * _ROUNDING * len(part[place]) * float(np.abs(part[place]).sum())
                    limit = about[place][near[-1]] + error
                    sure = count >= total or limit < scores[query, wanted - 1]
                else:
                    sure = rows[query, wanted - 1] >= 0  # else the lists that were read hold fewer
                if not sure:
                    unsure.append(query)
            pending = np.array(unsure, dtype=np.int64)
            count, exact = min(count * (_WIDER if exact else 1), total), True
        return rows, scores

    def scores_of(self, weights: Weights, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores [n] float32 of some rows [n] int64 for one query's weights [width] float32."""
        return _scores(self._gather(rows), weights)

    @staticmethod
    def _put(
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
        found: NDArray[np.int64],
        own: NDArray[np.float32],
    ) -> None:
        """The best of the found rows into `rows` and `scores` [k]."""
        order = np.lexsort((found, -own))[: len(rows)]
        rows[: len(order)], scores[: len(order)] = found[order], own[order]


def _scores(codes: Bytes, weights: Weights) -> NDArray[np.float32]:
    # In float64 and row by row: equal bytes give equal scores, whatever lies beside them.
    products = codes.astype(np.float64) * weights.astype(np.float64)
    scores: NDArray[np.float32] = products.sum(1).astype(np.float32)
    return scores


def open_search(store: Store, device: str = "cpu") -> SearchIndex:
    """Open the search of an index as its build chose it, on a GPU if one is named and has room.

    Args:
        store: the index.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        CorruptStoreError: a file of the index is damaged.
    """
    rows, width = len(store), store.layout.width
    if device != "cpu":
        found = open_on_gpu(store.blocks, rows, width, device)
        if found.source is not None:
            return SearchIndex(found.source, store.descriptors_of, rows, found.remark)
    entry = store.manifest.search
    source: Source
    if store.lists is None:
        source = FlatBytes(store.blocks(), rows, width)
    else:
        source = open_lists(store.folder, entry, store.lists, store.verify)
    choice = in_words(entry)
    if device != "cpu":
        choice += f" ({found.remark})"
    return SearchIndex(source, store.descriptors_of, rows, choice)


def in_words(entry: SearchEntry) -> str:
    """How an index is searched, for a person."""
    if entry.flat:
        return "flat bytes"
    return (
        f"{entry.factory}, {entry.probes} lists a query, {entry.filtered_probes} with a filter, "
        f"recall {entry.recall:.3f} ({entry.worst_recall:.3f} worst filter)"
    )
