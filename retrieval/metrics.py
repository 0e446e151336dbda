"""Retrieval metrics, pure functions over similarities [Q, M] and relevance [Q, M] bool, and the
share of attention in a region.

Every ranking here is by (-similarity, id), the id being the candidate's column. A float32
similarity is mapped to an unsigned integer of the same order and packed above the id into one
64-bit key; sorting the keys *is* the stable ranking, several times faster than a stable argsort.

Arguments that several functions share:
    similarities: [Q, M] float, higher is nearer; compared at float32.
    relevant: whether each candidate is relevant to each query, [Q, M] bool.
    excluded: candidates that do not take part, relevant or not, [Q, M] bool; None: all take part.
UsageError where shapes differ or k < 1, DataError where a similarity is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError, UsageError

Floats = NDArray[np.float32] | NDArray[np.float64]

_LAST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_CELLS_AT_ONCE = 1 << 22
"""Cells of a block that are sorted, or drawn, at a time: about 150 MB of working memory."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, `low` <= `high`, in the unit of the values."""

    low: float
    high: float


def average_precision(
    similarities: Floats, relevant: NDArray[np.bool_], excluded: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Mean, over *all* relevant candidates, of precision at their rank in the full ranking.

    [Q] float64 in 0..1; 0 for a query without a relevant candidate, and so for M = 0.
    """
    queries, candidates = similarities.shape
    out = np.zeros(queries, dtype=np.float64)
    step = max(1, _CELLS_AT_ONCE // max(1, candidates))
    for start in range(0, max(1, queries), step):  # at least once, so that shapes are checked
        block = slice(start, start + step)
        mask = None if excluded is None else excluded[block]
        keys = sort_keys(similarities[block], relevant[block], mask)
        taking_part = np.full(len(keys), candidates) if mask is None else (~mask).sum(axis=1)
        keys.sort(axis=1)
        # Excluded candidates sort last with an all-ones key: only ranks before them are real.
        hit = (keys & np.uint64(1)).astype(bool) & (np.arange(candidates) < taking_part[:, None])
        query, rank = np.nonzero(hit)
        total = hit.sum(axis=1)
        first = np.cumsum(total) - total
        nth = np.arange(len(query)) - first[query] + 1  # the query's nth relevant candidate
        sums = np.bincount(query, weights=nth / (rank + 1), minlength=len(keys))
        out[block] = sums / np.maximum(total, 1)
    return out


def expected_average_precision(
    relevant: NDArray[np.int64], candidates: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Exact expectation of AP over all random permutations, of R `relevant` among M `candidates` of
    each query, [Q]: the chance figure of EVALUATION.md, [Q] in 0..1, 0 where R = 0.

    With R relevant among M, the candidate at rank i is relevant with probability R/M, and each of
    the i - 1 before it is then relevant with probability (R-1)/(M-1). Summed over the ranks:

        E[AP] = (1/M) * (H_M + (R-1)/(M-1) * (M - H_M)),   H_M = 1 + 1/2 + ... + 1/M

    This is above R/M (5.48 against 5.12 on DARN's category). UsageError unless 0 <= R <= M.
    """
    r = np.asarray(relevant, dtype=np.int64)
    m = np.asarray(candidates, dtype=np.int64)
    if r.shape != m.shape or np.any(r < 0) or np.any(r > m):
        raise UsageError(
            "relevant and candidates must be counts of the same shape with "
            f"0 <= relevant <= candidates, not {r.tolist()[:8]} and {m.tolist()[:8]}"
        )
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, m.max(initial=0) + 1))])[m]
    before = (r - 1) / np.maximum(m - 1, 1)
    return np.where(r > 0, (harmonic + before * (m - harmonic)) / np.maximum(m, 1), 0.0)


def precision_at_k(
    similarities: Floats,
    relevant: NDArray[np.bool_],
    k: int,
    excluded: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Share of the first `k` hits that are relevant, [Q] float64 in 0..1.

    The denominator is always `k`; `precision_ceiling` is what can be reached.
    """
    _check_shape("relevant", relevant, similarities)
    ids = top_k(similarities, k, excluded)
    if similarities.shape[1] == 0:
        return np.zeros(len(ids), dtype=np.float64)
    hit = np.take_along_axis(relevant, np.maximum(ids, 0), axis=1) & (ids >= 0)
    return np.asarray(hit.sum(axis=1) / k, dtype=np.float64)


def precision_ceiling(relevant: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Best precision at `k` with `relevant` [Q] relevant candidates: min(R, k) / k."""
    _check_k(k)
    return np.asarray(np.minimum(relevant, k) / k, dtype=np.float64)


def top_k(
    similarities: Floats, k: int, excluded: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Ids [Q, k] of the first `k` candidates, best first; -1 where fewer take part."""
    _check_k(k)
    keys = sort_keys(similarities, None, excluded)
    if k < keys.shape[1]:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    keys.sort(axis=1)
    ids = np.full((len(keys), k), -1, dtype=np.int64)
    found = ((keys >> np.uint64(1)) & np.uint64(0x7FFF_FFFF)).astype(np.int64)
    ids[:, : keys.shape[1]] = np.where(keys == _LAST, -1, found)
    return ids


def bootstrap_interval(
    values: NDArray[np.float64],
    groups: NDArray[np.int64] | None = None,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile confidence interval of the mean of `values` over queries.

    Whole groups are drawn with replacement, because what belongs to one query image (its queries
    under several attributes) rises and falls together; drawing each query by itself would give too
    narrow an interval. The statistic stays the query-weighted mean.

    `groups` [Q] say what each query belongs to (None: each to itself), `weights` [Q] how many
    queries it stands for (None: one). UsageError without values, or for an argument out of range.
    """
    if len(values) == 0:
        raise UsageError("a confidence interval needs at least one value, got none")
    if resamples < 1 or not 0 < confidence < 1:
        raise UsageError(f"resamples >= 1 and confidence in (0, 1), not {resamples}, {confidence}")
    if groups is None:
        groups = np.arange(len(values), dtype=np.int64)
    if groups.shape != values.shape:
        raise UsageError(f"{len(values)} values but groups of shape {groups.shape}")
    _, member = np.unique(groups, return_inverse=True)
    sums = np.bincount(member, weights=values if weights is None else values * weights)
    counts = np.bincount(member, weights=weights)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples, dtype=np.float64)
    step = max(1, _CELLS_AT_ONCE // len(sums))
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = generator.integers(0, len(sums), size=(stop - start, len(sums)))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def attention_share(alpha: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the attention mass that is inside a region.

    The mass of a cell is spread evenly over it, so a cell counts by the share of it that is region;
    cells need not be whole numbers of pixels. Uniform attention gives the region's share of the
    area: chance.

    Args:
        alpha: attention weights [*, H, W], at least 0, in maps that need not sum to 1.
        mask: the region [S, S'] bool, in the picture as the model saw it.

    Returns:
        [*] float64 in 0..1. UsageError for wrong dimensions, or a map with no mass or with
        negative or non-finite weights.
    """
    weights = np.asarray(alpha, dtype=np.float64)
    if weights.ndim < 2:
        raise UsageError(f"attention weights must be [*, H, W], got shape {weights.shape}")
    if mask.ndim != 2 or mask.size == 0:
        raise UsageError(f"a mask must be [S, S], got shape {mask.shape}")
    mass = weights.sum(axis=(-2, -1))
    if not (np.isfinite(mass).all() and (weights >= 0).all() and (mass > 0).all()):
        raise UsageError("attention weights must be finite, at least 0, and not all 0 in a map")
    rows, columns = map(_covered, weights.shape[-2:], mask.shape)
    cells = rows @ mask.astype(np.float64) @ columns.T  # share of each cell that is region
    return np.asarray(np.minimum((weights * cells).sum(axis=(-2, -1)) / mass, 1.0))


def _covered(cells: int, pixels: int) -> NDArray[np.float64]:
    """Share of each cell's side that each pixel covers, [cells, pixels]; rows sum to 1."""
    edges = np.arange(cells + 1) * (pixels / cells)
    start = np.arange(pixels)
    covered = np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start)
    return np.asarray(np.maximum(covered, 0.0) * (cells / pixels))


def sort_keys(
    similarities: Floats, flags: NDArray[np.bool_] | None, excluded: NDArray[np.bool_] | None
) -> NDArray[np.uint64]:
    """Keys [Q, M] whose ascending order is the ranking; excluded ones are all ones.

    32 bits of descending similarity (-0.0 equals 0.0), 31 bits of id, 1 bit of flag.
    """
    if similarities.ndim != 2:
        raise UsageError(f"similarities must be [Q, M], not of shape {similarities.shape}")
    _check_shape("relevant", flags, similarities)
    _check_shape("excluded", excluded, similarities)
    if np.isnan(similarities).any():
        raise DataError(
            f"{int(np.isnan(similarities).sum())} of {similarities.size} similarities are NaN; "
            "check the embeddings for NaN or zero vectors"
        )
    # Adding 0.0 turns -0.0 into 0.0, whose bits would otherwise differ.
    bits = (similarities.astype(np.float32) + np.float32(0.0)).view(np.uint32)
    # Positive floats sort like their bits and negative ones in reverse; complemented: descending.
    negative = bits >> np.uint32(31) == 1
    descending = np.where(negative, bits, ~(bits | np.uint32(0x8000_0000)))
    keys = descending.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(similarities.shape[1], dtype=np.uint64) << np.uint64(1)
    if flags is not None:
        keys |= flags.astype(np.uint64)
    if excluded is not None:
        keys[excluded] = _LAST
    return keys


def _check_shape(name: str, array: NDArray[np.bool_] | None, similarities: Floats) -> None:
    if array is not None and array.shape != similarities.shape:
        raise UsageError(
            f"{name} is of shape {array.shape}, similarities of shape {similarities.shape}; "
            "both must be [Q, M]"
        )


def _check_k(k: int) -> None:
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
