"""The one index over the descriptors: the images whose bytes have the highest inner product.

A source names candidates (ONNX Runtime that reads every descriptor, inverted lists of faiss, or a
GPU); their scores are computed again here, in one way, so that hits and ties do not depend on what
found them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np

from indexer.search.flat import Allowed, FlatBytes, Rows
from indexer.search.lists import open_lists
from indexer.store.manifest import SearchEntry
from indexer.store.store import Store
from training.descriptor import Bytes, Floats

GATHER = 4096
"""Allowed rows up to which each of them is read alone, whatever the index."""

_BEYOND = 64  # candidates more than are wanted, for ties and roundings
_WIDER = 4  # times as many, where these do not settle it
_ROUNDING = 2.0**-24  # of a sum of float32, a summand


class Source(Protocol):
    """What names candidates."""

    def candidates(
        self, weights: Floats, count: int, allowed: Allowed | None
    ) -> tuple[Floats, Rows]:
        """Scores, about, and rows [Q, any >= count or all] in any order; -1: none."""
        ...


class SearchIndex:
    """Search over M = `rows` descriptors; `choice` says in words what searches. Use `open_search`.

    `gather` gives descriptors [n, width] of rows [n]; `every` makes a source that misses none of
    the best, if `source` may.
    """

    def __init__(
        self,
        source: Source,
        gather: Callable[[Rows], Bytes],
        rows: int,
        choice: str,
        every: Callable[[], Source] | None = None,
    ) -> None:
        self._source, self._gather, self._rows = source, gather, rows
        self._every = None if every is None else cache(every)
        self.choice = choice

    def search(
        self, weights: Floats, k: int, allowed: Allowed | None = None, exact: bool = False
    ) -> tuple[Rows, Floats]:
        """The best rows by the inner product of weights with the bytes 0..255 of descriptors.

        For weights of Q queries [Q, width] float32 and k >= 1, of the rows that are allowed [M]
        bool: rows [Q, k] int64 and scores [Q, k] float32, best first, ties by row; -1 and -inf
        where fewer are allowed. `exact` reads every descriptor, also with inverted lists.
        """
        weights = np.ascontiguousarray(weights, dtype=np.float32)
        rows = np.full((len(weights), k), -1, dtype=np.int64)
        scores = np.full((len(weights), k), -np.inf, dtype=np.float32)

        def put(query: int, found: Rows, own: Floats) -> None:
            order = np.lexsort((found, -own))[:k]
            rows[query, : len(order)], scores[query, : len(order)] = found[order], own[order]

        total = self._allowed(allowed)
        if allowed is not None and total <= GATHER:
            few = np.flatnonzero(allowed)
            codes = self._gather(few)
            for query, own in enumerate(weights):
                put(query, few, exact_scores(codes, own))
            return rows, scores
        wanted = min(k, total)
        exact = exact or self._every is None
        pending, count = np.arange(len(weights)), min(wanted + _BEYOND, total)
        while len(pending):
            part = weights[pending]
            # Sums of float32 are wrong by less than this.
            errors = 255 * _ROUNDING * part.shape[1] * np.abs(part).sum(1)
            sure = np.zeros(len(pending), dtype=bool)
            source = self._every() if exact and self._every else self._source
            found = source.candidates(part, count, allowed)
            for place, (about, named) in enumerate(zip(*found, strict=True)):
                near = np.argsort(-about, kind="stable")[:count]
                near = near[named[near] >= 0]
                query = int(pending[place])
                put(query, named[near], self.scores_of(weights[query], named[near]))
                if not exact:
                    sure[place] = rows[query, wanted - 1] >= 0  # else the lists read hold fewer
                else:  # could one that was not named be as good as the last of the best?
                    limit = about[near[-1]] + errors[place]
                    sure[place] = count >= total or limit < scores[query, wanted - 1]
            pending = pending[~sure]
            count, exact = min(count * (_WIDER if exact else 1), total), True
        return rows, scores

    def candidates(self, weights: Floats, count: int, allowed: Allowed | None = None) -> list[Rows]:
        """About the best `count` rows of each query, in any order, as `search` takes them: as their
        source names them, for whoever scores them by more than a vector."""
        total = self._allowed(allowed)
        if allowed is not None and total <= GATHER:
            return [np.flatnonzero(allowed)] * len(weights)
        weights = np.ascontiguousarray(weights, dtype=np.float32)
        count, out = min(count, total), []
        found = self._source.candidates(weights, count, allowed)
        for about, rows in zip(*found, strict=True):
            best = rows[np.argpartition(-about, count - 1)[:count]]
            out.append(best[best >= 0])
        return out

    def _allowed(self, allowed: Allowed | None) -> int:
        return self._rows if allowed is None else int(np.count_nonzero(allowed))

    def scores_of(self, weights: Floats, rows: Rows) -> Floats:
        """Scores [n] float32 of some rows [n] int64 for one query's weights [width] float32."""
        return exact_scores(self._gather(rows), weights)


def exact_scores(codes: Bytes, weights: Floats) -> Floats:
    """Scores [n] float32 of descriptors [n, width] by a query's weights [width]; in float64, row by
    row, so that equal bytes give equal scores, whatever lies beside them."""
    products = codes.astype(np.float64) * weights.astype(np.float64)
    scores: Floats = products.sum(1).astype(np.float32)
    return scores


def open_search(store: Store, device: str = "cpu") -> SearchIndex:
    """Open the search of an index as its build chose it, on a GPU (`cuda`, `cuda:N`) if one is
    named and has room; raises CorruptStoreError."""
    rows, width = len(store), store.layout.width
    choice = in_words(store.manifest.search)
    if device != "cpu":
        from indexer.search.gpu import open_on_gpu  # brings torch

        found = open_on_gpu(store.blocks, rows, width, device)
        if not isinstance(found, str):
            choice = f"flat bytes on {device} by torch"
            return SearchIndex(found, store.descriptors_of, rows, choice)
        choice += f" (on the CPU: {found})"
    if store.lists is None:
        return SearchIndex(FlatBytes([store.descriptors()]), store.descriptors_of, rows, choice)
    lists = open_lists(store.folder, store.manifest.search, store.lists, store.verify)
    return SearchIndex(lists, store.descriptors_of, rows, choice, lambda: FlatBytes(store.blocks()))


def in_words(entry: SearchEntry) -> str:
    """How an index is searched, for a person."""
    if entry.file is None:
        return "flat bytes"
    return (
        f"{entry.factory}, {entry.probes} lists a query, {entry.filtered_probes} with a filter, "
        f"recall {entry.recall:.3f} ({entry.worst_recall:.3f} worst filter)"
    )
