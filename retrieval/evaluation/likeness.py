"""How well the other pictures of one product are found: likeness, measured without any label.

Every image with one to four other pictures of its item in the split queries the whole split
(EVALUATION.md, "Same item"). Names of items are noisy, so rows are to be compared with each other,
not with 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.report_grid import UNWRITTEN, shown
from retrieval.evaluation.scorer import Scorer
from training.datasets.dataset import Dataset
from training.errors import UsageError

OTHERS = (1, 4)
"""So many other pictures of its item a query has, at least and at most."""

MOST_QUERIES = 2000
"""More queries than these are a fixed draw of so many."""


@dataclass(frozen=True)
class LikenessScore:
    """How high the first other picture of the query's item stands. All in [0, 1].

    Args:
        mrr: mean reciprocal rank.
        hard_mrr: the same over the half of the queries whose nearest picture of the item is least
            alike by the floor.
        r1, r10: share of the queries where it is the first hit, or among the first 10.
        queries: number of queries.
    """

    mrr: float = field(metadata=shown("MRR", ".3f"))
    hard_mrr: float = field(metadata=shown("hard MRR", ".3f"))
    r1: float = field(metadata=shown("R@1", ".3f"))
    r10: float = field(metadata=shown("R@10", ".3f"))
    queries: int = field(metadata=shown("queries"))


@dataclass(frozen=True)
class LikenessReport:
    """Likeness of three kinds over the same queries.

    Args:
        query: of a query without names.
        kept: the likeness that is kept when a value is named: mean over the attributes that are
            known of the query (all, if none is), each named alone.
        floor: of pooled backbone features.
        available: queries before the draw.
        seed: of the draw.
    """

    query: LikenessScore
    kept: LikenessScore
    floor: LikenessScore
    available: int = field(metadata=UNWRITTEN)
    seed: int = field(metadata=UNWRITTEN)


def likeness_queries(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows with one to four other rows of the same item, ascending; `items` [N] numbers them."""
    _, inverse, counts = np.unique(items, return_inverse=True, return_counts=True)
    others = counts[inverse.reshape(-1)] - 1
    return np.flatnonzero((others >= OTHERS[0]) & (others <= OTHERS[1])).astype(np.int64)


def evaluate_likeness(
    dataset: Dataset, scorer: Scorer, floor: Scorer, seed: int = 0
) -> LikenessReport | None:
    """Rank the whole dataset for every query and look where its item comes first.

    Args:
        dataset: the split, with items; its rows are the scorers'.
        scorer: what is measured.
        floor: scores of untrained features, which also settle the hard half.
        seed: of the draw where there are more than `MOST_QUERIES` queries.

    Returns:
        None if no image has one to four other pictures of its item.

    Raises:
        UsageError: the dataset does not tell items.
    """
    if dataset.items is None:
        raise UsageError(f"{dataset.name} does not say which images show one item")
    items = dataset.items
    rows = likeness_queries(items)
    available = len(rows)
    if not available:
        return None
    if available > MOST_QUERIES:
        generator = np.random.default_rng(seed)
        rows = np.sort(generator.choice(rows, size=MOST_QUERIES, replace=False))

    nearest = [float(floor.whole(q)[_others(items, q)].max()) for q in rows.tolist()]
    hard = np.argsort(nearest, kind="stable")[: max(1, len(rows) // 2)]

    def measure(scores_of: Callable[[int], Sequence[NDArray[np.float32]]]) -> LikenessScore:
        """Means over the queries of the means over each query's rankings."""
        found = [np.array([_first_rank(s, items, q) for s in scores_of(q)]) for q in rows.tolist()]
        reciprocal = np.array([(1 / ranks).mean() for ranks in found])
        return LikenessScore(
            mrr=float(reciprocal.mean()),
            hard_mrr=float(reciprocal[hard].mean()),
            r1=float(np.mean([(ranks <= 1).mean() for ranks in found])),
            r10=float(np.mean([(ranks <= 10).mean() for ranks in found])),
            queries=len(rows),
        )

    schema = dataset.schema

    def kept(query: int) -> list[NDArray[np.float32]]:
        known = np.unique(schema.attribute_of[dataset.labels[query] == 1])
        named = known if len(known) else np.arange(len(schema.attributes))
        return [scorer.kept(query, [attribute]) for attribute in named.tolist()]

    return LikenessReport(
        query=measure(lambda q: [scorer.whole(q)]),
        kept=measure(kept),
        floor=measure(lambda q: [floor.whole(q)]),
        available=available,
        seed=seed,
    )


def _first_rank(scores: NDArray[np.float32], items: NDArray[np.int64], query: int) -> int:
    """Rank, from 1, of the first other row of the query's item by (-score, row) beside it."""
    others = _others(items, query)
    first = others[np.argmax(scores[others])]  # the lowest row among equals
    ahead = (scores > scores[first]) | ((scores == scores[first]) & (np.arange(len(items)) < first))
    ahead[query] = False
    return 1 + int(ahead.sum())


def _others(items: NDArray[np.int64], query: int) -> NDArray[np.int64]:
    rows = np.flatnonzero(items == items[query])
    return np.asarray(rows[rows != query])
