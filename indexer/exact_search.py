"""The nearest rows by exact cosines: candidates from any source, compared again in float32.

Whatever finds the candidates, a row's cosine is the same float32 sum and ties go by row, so that
flat, approximate and GPU search give the same scores and the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.faiss_module import load_faiss
from indexer.worker_pool import worker_pool

ROUNDING = 1e-5
"""More than two ways of adding up a cosine in float32 differ by."""

DECIMALS = 6
"""Cosines that differ beyond are ties, broken by row."""

_BEYOND = 64  # candidates beyond the cut, to see whether it falls between equal cosines
_WIDER = 8  # how many times more are asked for where it does
_FEW = 3  # queries that are faster one by one than together
_PICKED_A_THREAD = 2_048  # the same for rows that are read one by one
_BYTES_A_THREAD = 1 << 23  # below that, telling a thread costs more than it saves, if others spin


class CandidateSource(Protocol):
    """Something that names rows which may be the nearest."""

    what: str
    """For a person: `PQ128x4fs`, `fp16 on cuda by torch`."""
    error: float | None
    """Bound on the difference of its cosines to the exact ones; None if there is no bound."""
    refine: int
    """Candidates a hit that are compared exactly, where there is no bound."""
    most: int
    """Candidates that it can name at once."""
    nbytes: int
    """What it takes in memory beyond the flat vectors."""

    def candidates(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines [Q, count] as the source knows them, best first, and rows; -1 for none."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class FlatSource:
    """faiss over the flat vectors, where they lie.

    Args:
        vectors: unit vectors [N, d] float32, contiguous.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.what, self.refine = "Flat", 1
        self.error: float | None = ROUNDING
        self.most, self.nbytes = len(vectors), 0
        self._vectors = vectors

    def candidates(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and rows [Q, count], best first."""
        faiss = load_faiss()
        scores, rows = faiss.knn(queries, self._vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, rows

    def close(self) -> None:
        """Nothing to give back."""


def all_cosines(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines [N] of one query [d] with all rows; the vectors are not copied, aligned or not.

    Args:
        vectors: unit vectors [N, d] float32, contiguous. In a mapped flat file they start at an
            odd byte, which numpy would copy whole before it multiplied.
        query: unit vector [d] float32.
    """
    faiss = load_faiss()
    query = np.ascontiguousarray(query, dtype=np.float32)
    out = np.empty(len(vectors), dtype=np.float32)

    def part(start: int, stop: int) -> None:
        faiss.fvec_inner_products_ny(
            faiss.swig_ptr(out[start:stop]),
            faiss.swig_ptr(query),
            faiss.swig_ptr(vectors[start:stop]),
            vectors.shape[1],
            stop - start,
        )

    _in_threads(part, len(vectors), _BYTES_A_THREAD // (4 * vectors.shape[1]))
    return out


def _in_threads(part: Callable[[int, int], None], count: int, least: int) -> None:
    """Call `part(start, stop)` for 0..count in as many threads as there is work for."""
    threads = min(count // max(least, 1), torch.get_num_threads())
    if threads < 2:
        if count:
            part(0, count)
        return
    bounds = [count * number // threads for number in range(threads + 1)]
    # The first part is this thread's own: it would only wait for the others.
    others = [worker_pool().submit(part, *pair) for pair in pairwise(bounds[1:])]
    part(0, bounds[1])
    for other in others:
        other.result()


def some_cosines(
    vectors: NDArray[np.float32], query: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cosines [M] float32 of one query [d] with some rows, which are read where they lie.

    Args:
        vectors: unit vectors [N, d] float32, contiguous, aligned or not.
        query: unit vector [d] float32.
        rows: M rows, 0..N-1, in the order of the result.
    """
    faiss = load_faiss()
    query = np.ascontiguousarray(query, dtype=np.float32)
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    assert not len(rows) or (rows.min() >= 0 and rows.max() < len(vectors)), "no such row"
    out = np.empty(len(rows), dtype=np.float32)

    def part(start: int, stop: int) -> None:
        faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(out[start:stop]),
            faiss.swig_ptr(query),
            faiss.swig_ptr(vectors),
            faiss.swig_ptr(rows[start:stop]),
            vectors.shape[1],
            1,
            stop - start,
        )

    _in_threads(part, len(rows), _PICKED_A_THREAD)
    return out


def best_of(
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    rows: NDArray[np.int64],
    k: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` best of some rows by exact cosines, best first, ties by row; fewer of fewer rows.

    Args:
        vectors: unit vectors [N, d] float32; only the named rows are read.
        query: unit vector [d] float32.
        rows: candidates, each once, in any order; negative ones stand for none.
        k: at least 1.
    """
    rows = np.sort(rows[rows >= 0])
    # Row by row: the last bits of a product of matrices depend on what else is in it.
    cosines: NDArray[np.float32] = (vectors[rows] * query).sum(1)
    order = np.argsort(-np.round(cosines, DECIMALS), kind="stable")[:k]
    return cosines[order], rows[order]


def search_exactly(
    source: CandidateSource,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` nearest rows of each query, all of them, whatever the source's rounding.

    More candidates are asked for until none beyond them can belong to the best; where the source
    cannot name so many, all rows are compared.

    Args:
        source: its `error` is not None.
        vectors: unit vectors [N, d] float32.
        queries: unit vectors [Q, d] float32.
        k: 1..N.

    Returns:
        Cosines [Q, k] float32 and rows [Q, k] int64, best first, ties by row.
    """
    assert source.error is not None
    total = len(vectors)
    scores = np.empty((len(queries), k), dtype=np.float32)
    found = np.empty((len(queries), k), dtype=np.int64)
    # For one query faiss reads with one thread, and its others wait for each other; ours share out.
    few = isinstance(source, FlatSource) and len(queries) <= _FEW
    pending = np.arange(len(queries))
    count = min(k + _BEYOND, total)
    while len(pending) and count <= source.most and not few:
        near, rows = source.candidates(queries[pending], count)
        unsure = []
        for place, own, candidates in zip(pending.tolist(), near, rows, strict=True):
            # Sources that share rows out may name too few; those queries are asked again.
            if (candidates >= 0).sum() >= k:
                best, which = best_of(vectors, queries[place], candidates, k)
                scores[place], found[place] = best, which
                if count == total or own[-1] + source.error + ROUNDING < best[-1]:
                    continue
            unsure.append(place)
        pending = np.array(unsure, dtype=np.int64)
        if count == total:
            break
        count = min(count * _WIDER, total)
    for place in pending.tolist():
        scores[place], found[place] = _of_all(vectors, queries[place], k)
    return scores, found


def search_approximately(
    source: CandidateSource,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    candidates: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` best of a source's candidates; what it does not name is missed.

    Args:
        source: any.
        vectors: unit vectors [N, d] float32.
        queries: unit vectors [Q, d] float32.
        k: 1..N.
        candidates: how many are compared for each query, at least k.

    Returns:
        Cosines [Q, k] float32 and rows [Q, k] int64, best first, ties by row.
    """
    scores = np.empty((len(queries), k), dtype=np.float32)
    found = np.empty((len(queries), k), dtype=np.int64)
    _, rows = source.candidates(queries, candidates)
    for place, (query, own) in enumerate(zip(queries, rows, strict=True)):
        best, which = best_of(vectors, query, own, k)
        if len(which) < k:  # the lists that were read hold too few
            best, which = _of_all(vectors, query, k)
        scores[place], found[place] = best, which
    return scores, found


def _of_all(
    vectors: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    cosines = all_cosines(vectors, query)
    near = np.flatnonzero(cosines >= np.partition(cosines, -k)[-k] - ROUNDING)
    return best_of(vectors, query, near, k)
