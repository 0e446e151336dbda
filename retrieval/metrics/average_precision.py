"""Average precision over the full ranking, the AP of Table 3's MAP."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics.ranking import Floats, sort_keys

_CELLS_AT_ONCE = 1 << 22
"""Cells of a [Q, M] block that are sorted at a time: bounds the working memory to about 150 MB."""


def average_precision(
    similarities: Floats,
    relevant: NDArray[np.bool_],
    excluded: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """AP of each query: the mean, over *all* its relevant candidates, of precision at their rank.

    The ranking is the full one by (-similarity, id), where the id is the candidate's column.

    Args:
        similarities: [Q, M] float, higher is nearer; compared at float32.
        relevant: whether each candidate is relevant to each query, [Q, M] bool.
        excluded: candidates that do not take part, relevant or not, [Q, M] bool: the query itself
            in leave-one-out. None: all take part.

    Returns:
        AP [Q] float64 in [0, 1]; 0 for a query without a relevant candidate, and so for M = 0.

    Raises:
        UsageError: if the shapes differ.
        DataError: if a similarity is NaN.
    """
    queries, candidates = similarities.shape
    out = np.zeros(queries, dtype=np.float64)
    step = max(1, _CELLS_AT_ONCE // max(1, candidates))
    for start in range(0, max(1, queries), step):  # at least once, so that shapes are checked
        block = slice(start, start + step)
        mask = None if excluded is None else excluded[block]
        out[block] = _average_precision_block(similarities[block], relevant[block], mask)
    return out


def _average_precision_block(
    similarities: Floats, relevant: NDArray[np.bool_], excluded: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    keys = sort_keys(similarities, relevant, excluded)
    taking_part = np.full(len(keys), keys.shape[1]) if excluded is None else (~excluded).sum(axis=1)
    keys.sort(axis=1)
    # Excluded candidates sort last with an all-ones key: only ranks before them are real.
    hit = (keys & np.uint64(1)).astype(bool) & (np.arange(keys.shape[1]) < taking_part[:, None])
    query, rank = np.nonzero(hit)
    total = hit.sum(axis=1)
    first = np.cumsum(total) - total
    nth = np.arange(len(query)) - first[query] + 1  # this is the query's nth relevant candidate
    sums = np.bincount(query, weights=nth / (rank + 1), minlength=len(keys))
    return np.asarray(sums / np.maximum(total, 1), dtype=np.float64)
