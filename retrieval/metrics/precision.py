"""Precision among the first k hits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics.ranking import Floats, top_k
from training.errors import UsageError


def precision_at_k(
    similarities: Floats,
    relevant: NDArray[np.bool_],
    k: int,
    excluded: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Share of the first `k` hits that are relevant, ranked by (-similarity, id).

    The denominator is always `k`: with fewer than `k` relevant candidates 1.0 is out of reach, see
    `precision_ceiling`.

    Args:
        similarities: [Q, M] float, compared at float32.
        relevant: [Q, M] bool.
        k: at least 1.
        excluded: candidates that do not take part, [Q, M] bool.

    Returns:
        [Q] float64 in [0, 1].

    Raises:
        UsageError: if `k` < 1 or the shapes differ.
        DataError: if a similarity is NaN.
    """
    if relevant.shape != similarities.shape:
        raise UsageError(
            f"relevant is of shape {relevant.shape}, similarities of shape {similarities.shape}; "
            "both must be [Q, M]"
        )
    ids = top_k(similarities, k, excluded)
    if similarities.shape[1] == 0:
        return np.zeros(len(ids), dtype=np.float64)
    hit = np.take_along_axis(relevant, np.maximum(ids, 0), axis=1) & (ids >= 0)
    return np.asarray(hit.sum(axis=1) / k, dtype=np.float64)


def precision_ceiling(relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Best precision at `k` that any ranking reaches with `relevant` relevant candidates.

    Args:
        relevant: number of relevant candidates of each query, [Q] integers.
        k: at least 1.

    Returns:
        min(R, k) / k, [Q] float64.

    Raises:
        UsageError: if `k` < 1.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    return np.asarray(np.minimum(relevant, k) / k, dtype=np.float64)
