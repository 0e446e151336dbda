"""How well the other pictures of one product are found: likeness, measured without any label.

Every image with one to four other pictures of its item in the split queries the whole split
(EVALUATION.md, "Same item"). Names of items are noisy, so rows are to be compared with each other,
not with 1. Near ties are what likeness does not tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.attribute_map import Embed, drawn
from retrieval.evaluation.report_grid import UNWRITTEN, shown
from retrieval.evaluation.scorer import Scorer
from training.datasets.dataset import Dataset

OTHERS = (1, 4)
"""So many other pictures of its item a query has, at least and at most."""

MOST_QUERIES = 2000
"""More queries than these are a fixed draw of so many."""

NEAR = 0.01
"""Of similarities scaled to 0..1: as near as this is a tie."""

_TENTH = 10
_BLOCK = 256
_ROUNDING = 1e-5


@dataclass(frozen=True)
class LikenessScore:
    """How high the first other picture of the query's item stands. All in [0, 1].

    mrr is the mean reciprocal rank, hard_mrr that of the half of the queries whose nearest picture
    of the item is least alike by the floor; r1 and r10: the share of the queries where it is the
    first hit, or among the first 10.
    """

    mrr: float = field(metadata=shown("MRR", ".3f"))
    hard_mrr: float = field(metadata=shown("hard MRR", ".3f"))
    r1: float = field(metadata=shown("R@1", ".3f"))
    r10: float = field(metadata=shown("R@10", ".3f"))
    queries: int = field(metadata=shown("queries"))


@dataclass(frozen=True)
class LikenessReport:
    """Likeness of three kinds over the same queries, drawn by `seed` of those available.

    query: without names; kept: what is kept when a value is named, mean over the attributes that
    are known of the query (all, if none is), each named alone; floor: of pooled features.
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

    The dataset's rows are the scorers'; `floor`, of untrained features, settles the hard half too;
    `seed` is of the draw where there are more than `MOST_QUERIES` queries. None if the dataset
    tells no items, or no image has one to four other pictures of its item.
    """
    items = np.arange(len(dataset)) if dataset.items is None else dataset.items
    rows = likeness_queries(items)
    available = len(rows)
    if not available:
        return None
    rows = rows[drawn(available, MOST_QUERIES, seed)]
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


def near_ties(
    dataset: Dataset, embed: Embed, seed: int = 0, embed_queries: Embed | None = None
) -> dict[str, float] | None:
    """Median number of images within 0.01 of the tenth hit's similarity, per 1,000 images: for each
    attribute by name, under its type condition; None with fewer than eleven images.

    Every image queries all others, or a draw by `seed` where there are more than `MOST_QUERIES`;
    the tenth hit is one of those counted. `embed` and `embed_queries` are as of
    `evaluate_attributes`; where any similarity is below 0 they are scaled to 0..1.
    """
    count = len(dataset)
    if count <= _TENTH:
        return None
    rows, queries = np.arange(count), drawn(count, MOST_QUERIES, seed)
    out: dict[str, float] = {}
    for number, attribute in enumerate(dataset.schema.attributes):
        condition = dataset.schema.type_condition(number)
        vectors = embed(condition, rows)
        near: list[NDArray[np.int64]] = []
        lowest = 0.0
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            asking = vectors[block] if embed_queries is None else embed_queries(condition, block)
            similarities = asking @ vectors.T
            lowest = min(lowest, float(similarities.min()))
            similarities[np.arange(len(block)), block] = -np.inf
            tenth = -np.partition(-similarities, _TENTH - 1, axis=1)[:, _TENTH - 1 : _TENTH]
            apart = np.abs(similarities - tenth)
            # Within 0.01 of what is in 0..1 already, and of what is in -1..1 and would be halved.
            near.append(np.stack([(apart <= NEAR).sum(axis=1), (apart <= 2 * NEAR).sum(axis=1)]))
        counts = np.concatenate(near, axis=1)[int(lowest < -_ROUNDING)]
        out[attribute.name] = float(np.median(counts)) * 1000 / (count - 1)
    return out
