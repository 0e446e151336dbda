"""Percentile bootstrap of a mean over queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import UsageError

_DRAWS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A confidence interval, `low` <= `high`, in the unit of the values."""

    low: float
    high: float


def bootstrap_interval(
    values: NDArray[np.float64],
    groups: NDArray[np.int64] | None = None,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile confidence interval of the mean of `values`.

    Whole groups are drawn with replacement, because what belongs to one query image (its queries
    under several attributes) rises and falls together; drawing each query by itself would give too
    narrow an interval. The statistic stays the query-weighted mean: sum over count.

    Args:
        values: one figure a query, [Q] float64.
        groups: what each query belongs to, [Q] int64 (any numbers). None: each for itself.
        weights: how many queries each stands for, [Q] float64 above 0. None: one.
        seed: the same seed gives the same interval.
        resamples: number of bootstrap samples, at least 1.
        confidence: in (0, 1).

    Returns:
        The interval. With one group both ends are the mean.

    Raises:
        UsageError: if there are no values, or an argument is out of range.
    """
    if len(values) == 0:
        raise UsageError("a confidence interval needs at least one value, got none")
    if resamples < 1 or not 0 < confidence < 1:
        raise UsageError(
            f"resamples must be at least 1 and confidence in (0, 1), "
            f"not {resamples} and {confidence}"
        )
    if groups is None:
        groups = np.arange(len(values), dtype=np.int64)
    if groups.shape != values.shape:
        raise UsageError(f"{len(values)} values but groups of shape {groups.shape}")
    _, member = np.unique(groups, return_inverse=True)
    sums = np.bincount(member, weights=values if weights is None else values * weights)
    counts = np.bincount(member, weights=weights)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples, dtype=np.float64)
    step = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = generator.integers(0, len(sums), size=(stop - start, len(sums)))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))
