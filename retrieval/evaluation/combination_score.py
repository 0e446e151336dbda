"""How well images are found by several values at once: `same` and `but` (EVALUATION.md).

`same`: the query image has all the values. `but`: it is known to lack at least one of them. A
candidate is relevant if it has them all; the query itself takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.combinations import Combination, candidate_rows, has_all
from retrieval.evaluation.scorer import Scorer
from retrieval.evaluation.shared_attributes import shared_attributes
from retrieval.metrics import (
    Interval,
    average_precision,
    bootstrap_interval,
    expected_average_precision,
    precision_at_k,
    precision_ceiling,
    top_k,
)
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError

K = 10
"""Hits that are looked at."""


@dataclass(frozen=True)
class SameScore:
    """Scores of queries that have the values. MAP in percent, precision in [0, 1].

    Args:
        map: mean AP, percent.
        chance: expected MAP of a random ranking, percent.
        ci: 95 % bootstrap interval of `map`, whole combinations resampled.
        precision_at_10: mean share of the first 10 hits that have all the values.
        precision_ci: its interval.
        precision_ceiling: what a perfect ranking reaches (5 relevant images allow only 0.5).
        precision_chance: what a random ranking reaches.
        queries: number of queries.
    """

    map: float
    chance: float
    ci: Interval
    precision_at_10: float
    precision_ci: Interval
    precision_ceiling: float
    precision_chance: float
    queries: int


@dataclass(frozen=True)
class ButScore:
    """Scores of queries that lack a value. All in [0, 1].

    Args:
        precision_at_10, precision_ci, precision_ceiling, precision_chance: as in `SameScore`.
        keep_at_10: over the attributes that were not named and are known for both, the share of
            the first 10 hits whose value equals the query's (of a multi-valued attribute: that
            share a value with it); mean over queries. None if no query has such an attribute.
        keep_chance: the same share over all candidates.
        queries: number of queries.
    """

    precision_at_10: float
    precision_ci: Interval
    precision_ceiling: float
    precision_chance: float
    keep_at_10: float | None
    keep_chance: float | None
    queries: int


@dataclass(frozen=True)
class CombinationReport:
    """Both scores, how many combinations and queries they rest on, and what ranked the images."""

    same: SameScore
    but: ButScore
    combinations: int
    queries_per_combination: int
    seed: int
    ranked_by: str


@dataclass(frozen=True)
class CombinationQueries:
    """Rows that query one combination: `same` have all its values, `but` lack at least one."""

    same: NDArray[np.int64]
    but: NDArray[np.int64]


@dataclass(frozen=True)
class _Scores:
    """Per query of one combination: all [q]; `keep` and `keep_chance` are NaN if undefined."""

    ap: NDArray[np.float64]
    chance: NDArray[np.float64]
    precision: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    precision_chance: NDArray[np.float64]
    keep: NDArray[np.float64]
    keep_chance: NDArray[np.float64]
    combination: NDArray[np.int64]


def draw_queries(
    dataset: Dataset, split: str, combination: Combination, count: int, seed: int
) -> CombinationQueries:
    """Draw the queries of one combination among the images whose named values are known.

    Args:
        dataset: images and labels.
        split: the split to search.
        combination: the values.
        count: at most this many of each kind, at least 1.
        seed: with the combination's values it settles the draw, whatever else is drawn.

    Returns:
        Rows of the dataset, ascending.
    """
    rows = candidate_rows(dataset, split, combination.values)
    having = has_all(dataset, rows, combination.values)
    generator = np.random.default_rng([seed, *combination.values])

    def draw(pool: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.sort(generator.choice(pool, size=min(count, len(pool)), replace=False))

    return CombinationQueries(same=draw(rows[having]), but=draw(rows[~having]))


def evaluate_combinations(
    dataset: Dataset,
    split: str,
    scorer: Scorer,
    combinations: Sequence[Combination],
    queries_per_combination: int = 20,
    seed: int = 0,
) -> CombinationReport:
    """Search the split by every combination with queries that have its values and that lack some.

    Args:
        dataset: images and labels.
        split: the split to search.
        scorer: scores the rows of `dataset`; all queries of one combination come together.
        combinations: what to search by, see `draw_combinations`.
        queries_per_combination: at most this many `same` and this many `but` queries of each.
        seed: of the draw of queries and the intervals.

    Returns:
        Means over all queries of all combinations.

    Raises:
        UsageError: without combinations, or with `queries_per_combination` < 1.
        DataError: if no combination has a query of one kind, or scores are not [N] numbers.
    """
    if not combinations or queries_per_combination < 1:
        raise UsageError(
            f"evaluating combinations needs at least one combination and one query of each, "
            f"got {len(combinations)} and {queries_per_combination}"
        )
    same: list[_Scores] = []
    but: list[_Scores] = []
    for number, combination in enumerate(combinations):
        candidates = candidate_rows(dataset, split, combination.values)
        drawn = draw_queries(dataset, split, combination, queries_per_combination, seed)
        for queries, scores in ((drawn.same, same), (drawn.but, but)):
            if len(queries):
                scores.append(_score(dataset, scorer, combination, number, queries, candidates))
    if not same or not but:
        kind = "has" if not same else "is known to lack one of"
        raise DataError(
            f"no image in split {split!r} of dataset {dataset.name!r} {kind} the values of any of "
            f"the {len(combinations)} combinations; draw them from this split"
        )
    return CombinationReport(
        same=_same(_pooled(same), seed),
        but=_but(_pooled(but), seed),
        combinations=len(combinations),
        queries_per_combination=queries_per_combination,
        seed=seed,
        ranked_by=scorer.ranked_by,
    )


def _score(
    dataset: Dataset,
    scorer: Scorer,
    combination: Combination,
    number: int,
    queries: NDArray[np.int64],
    candidates: NDArray[np.int64],
) -> _Scores:
    scores = np.stack(
        [_checked(scorer.named(int(q), combination.values), dataset)[candidates] for q in queries]
    )
    excluded = queries[:, None] == candidates[None, :]
    relevant = has_all(dataset, candidates, combination.values)[None, :] & ~excluded
    total, pool = relevant.sum(axis=1), (~excluded).sum(axis=1)
    keep = np.full((2, len(queries)), np.nan)
    hits = top_k(scores, K, excluded)
    for i, query in enumerate(queries):
        shared = shared_attributes(dataset, int(query), candidates, combination.values)
        keep[:, i] = shared.share(hits[i][hits[i] >= 0]), shared.share(~excluded[i])
    return _Scores(
        ap=average_precision(scores, relevant, excluded),
        chance=expected_average_precision(total, pool),
        precision=precision_at_k(scores, relevant, K, excluded),
        ceiling=precision_ceiling(total, K),
        # Of the first K of a random ranking R/M are relevant; with fewer than K candidates, all R.
        precision_chance=np.minimum(pool, K) / K * total / np.maximum(pool, 1),
        keep=keep[0],
        keep_chance=keep[1],
        combination=np.full(len(queries), number, dtype=np.int64),
    )


def _checked(scores: NDArray[np.float32], dataset: Dataset) -> NDArray[np.float32]:
    if scores.shape != (len(dataset),):
        raise DataError(
            f"ranking {len(dataset)} images gave scores of shape {scores.shape}; "
            "expected one score an image"
        )
    return scores


def _pooled(parts: list[_Scores]) -> _Scores:
    fields = _Scores.__annotations__
    return _Scores(*(np.concatenate([getattr(p, f) for p in parts]) for f in fields))


def _same(scores: _Scores, seed: int) -> SameScore:
    return SameScore(
        map=100 * float(scores.ap.mean()),
        chance=100 * float(scores.chance.mean()),
        ci=bootstrap_interval(100 * scores.ap, scores.combination, seed=seed),
        precision_at_10=float(scores.precision.mean()),
        precision_ci=bootstrap_interval(scores.precision, scores.combination, seed=seed),
        precision_ceiling=float(scores.ceiling.mean()),
        precision_chance=float(scores.precision_chance.mean()),
        queries=len(scores.ap),
    )


def _but(scores: _Scores, seed: int) -> ButScore:
    known = ~np.isnan(scores.keep)
    return ButScore(
        precision_at_10=float(scores.precision.mean()),
        precision_ci=bootstrap_interval(scores.precision, scores.combination, seed=seed),
        precision_ceiling=float(scores.ceiling.mean()),
        precision_chance=float(scores.precision_chance.mean()),
        keep_at_10=float(scores.keep[known].mean()) if known.any() else None,
        keep_chance=float(np.nanmean(scores.keep_chance)) if known.any() else None,
        queries=len(scores.ap),
    )
