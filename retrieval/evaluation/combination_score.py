"""How well images are found by several values at once: `same` and `but` (EVALUATION.md).

`same`: the query image has all the values. `but`: it is known to lack at least one of them. A
candidate is relevant if it has them all; the query itself takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.combinations import (
    Combination,
    K,
    candidate_rows,
    first_hits,
    has_all,
    kept_share,
    mean_of_known,
)
from retrieval.evaluation.report_grid import shown
from retrieval.evaluation.scorer import Scorer
from retrieval.metrics import (
    Interval,
    average_precision,
    bootstrap_interval,
    expected_average_precision,
)
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError


@dataclass(frozen=True)
class CombinationScore:
    """Scores of one kind of queries. MAP in percent, precision and keep in [0, 1].

    Args:
        queries: number of queries.
        precision_at_10: mean share of the first 10 hits that have all the values.
        precision_ci: its interval.
        precision_ceiling: what a perfect ranking reaches (5 relevant images allow only 0.5).
        precision_chance: what a random ranking reaches.
        map: of `same`: mean AP, percent.
        ci: 95 % bootstrap interval of `map`, whole combinations resampled.
        chance: expected MAP of a random ranking, percent.
        keep_at_10: of `but`: over the attributes that were not named and are known for both, the
            share of the first 10 hits whose value equals the query's (of a multi-valued attribute:
            that share a value with it); mean over queries. None if no query has such an attribute.
        keep_chance: the same share over all candidates.
    """

    queries: int = field(metadata=shown("queries"))
    precision_at_10: float = field(metadata=shown("all-values precision@10", ".3f"))
    precision_ci: Interval = field(metadata=shown("95 % CI", ".3f"))
    precision_ceiling: float = field(metadata=shown("best reachable", ".3f"))
    precision_chance: float = field(metadata=shown("chance", ".3f"))
    map: float | None = field(default=None, metadata=shown("MAP, percent", ".2f"))
    ci: Interval | None = field(default=None, metadata=shown("95 % CI", ".2f"))
    chance: float | None = field(default=None, metadata=shown("chance", ".2f"))
    keep_at_10: float | None = field(default=None, metadata=shown("keep@10", ".3f"))
    keep_chance: float | None = field(default=None, metadata=shown("chance", ".3f"))


@dataclass(frozen=True)
class CombinationReport:
    """Both scores, how many combinations and queries they rest on, and what ranked the images."""

    same: CombinationScore
    but: CombinationScore
    combinations: int
    queries_per_combination: int
    seed: int
    ranked_by: str


def draw_queries(
    dataset: Dataset, split: str, combination: Combination, count: int, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Draw the queries of one combination among the images whose named values are known.

    Args:
        dataset: images and labels.
        split: the split to search.
        combination: the values.
        count: at most this many of each kind, at least 1.
        seed: with the combination's values it settles the draw, whatever else is drawn.

    Returns:
        Ascending rows of `same`, which have all its values, and of `but`, which lack at least one.
    """
    rows = candidate_rows(dataset, split, combination.values)
    having = has_all(dataset, rows, combination.values)
    generator = np.random.default_rng([seed, *combination.values])

    def draw(pool: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.sort(generator.choice(pool, size=min(count, len(pool)), replace=False))

    return {"same": draw(rows[having]), "but": draw(rows[~having])}


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
    figures: dict[str, list[tuple[float, ...]]] = {"same": [], "but": []}
    for number, combination in enumerate(combinations):
        candidates = candidate_rows(dataset, split, combination.values)
        drawn = draw_queries(dataset, split, combination, queries_per_combination, seed)
        for kind, queries in drawn.items():
            for query in queries.tolist():
                own = _figures(dataset, scorer, combination.values, query, candidates)
                figures[kind].append((number, *own))
    for kind, what in (("same", "has"), ("but", "is known to lack one of")):
        if not figures[kind]:
            raise DataError(
                f"no image in split {split!r} of dataset {dataset.name!r} {what} the values of any "
                f"of the {len(combinations)} combinations; draw them from this split"
            )
    same, but = (_score(np.array(found).T, seed) for found in figures.values())
    return CombinationReport(
        same=replace(same, keep_at_10=None, keep_chance=None),
        but=replace(but, map=None, ci=None, chance=None),
        combinations=len(combinations),
        queries_per_combination=queries_per_combination,
        seed=seed,
        ranked_by=scorer.ranked_by,
    )


def _figures(
    dataset: Dataset,
    scorer: Scorer,
    values: Sequence[int],
    query: int,
    candidates: NDArray[np.int64],
) -> tuple[float, ...]:
    """Of one query: precision, its ceiling and chance, AP and its chance, keep and its chance."""
    scores = scorer.named(query, values)
    if scores.shape != (len(dataset),):
        raise DataError(
            f"ranking {len(dataset)} images gave scores of shape {scores.shape}; "
            "expected one score an image"
        )
    beside = candidates[candidates != query]
    relevant = has_all(dataset, beside, values)
    hits = first_hits(scores, beside)
    total, pool = relevant.sum(keepdims=True), np.array([len(beside)])
    return (
        has_all(dataset, hits, values).sum() / K,
        min(total[0], K) / K,
        # Of the first K of a random ranking R/M are relevant; with fewer than K candidates, all R.
        min(len(beside), K) / K * total[0] / max(len(beside), 1),
        100 * average_precision(scores[beside][None], relevant[None])[0],
        100 * expected_average_precision(total, pool)[0],
        kept_share(dataset, query, hits, values),
        kept_share(dataset, query, beside, values),
    )


def _score(figures: NDArray[np.float64], seed: int) -> CombinationScore:
    """Means of [8, Q]: the combination of each query, and its figures."""
    combination, precision, ceiling, precision_chance, ap, chance, *keep = figures
    return CombinationScore(
        queries=len(ap),
        precision_at_10=float(precision.mean()),
        precision_ci=bootstrap_interval(precision, combination, seed=seed),
        precision_ceiling=float(ceiling.mean()),
        precision_chance=float(precision_chance.mean()),
        map=float(ap.mean()),
        ci=bootstrap_interval(ap, combination, seed=seed),
        chance=float(chance.mean()),
        keep_at_10=mean_of_known(keep[0]),
        keep_chance=mean_of_known(keep[1]),
    )
