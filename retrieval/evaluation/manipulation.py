"""Manipulation by its published protocol (ADDE; Hou et al., ICCV 2021): "this, but black".

Gallery: the images of a split whose compared attributes are all known, the query's own among them.
Queries: every image, compared attribute and value that the image lacks for which some image has
exactly the resulting labels; a fixed draw of them. Of an attribute with several values at once the
whole set is replaced by the new value, and sets match if they are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.attribute_map import drawn
from retrieval.evaluation.report_grid import INLINE, shown
from retrieval.evaluation.scorer import K, Scorer
from retrieval.metrics import top_k
from training.datasets.dataset import Dataset

TOP = 30
"""Hits that Top-30 and NDCG@30 look at."""

QUERIES = 2000
"""At most so many queries, a fixed draw."""

DIAL = tuple(n / 10 for n in range(11))
"""Points of the dial's curve."""


@dataclass(frozen=True)
class ManipulationScore:
    """One point of the dial. Top-30 and NDCG in percent, the two at 10 in [0, 1].

    Args:
        keep: the dial, 0..1; None: the default.
        top30: queries with a hit among 30 whose compared labels all are the target's.
        ndcg: gain 2^r - 1, discount 1 / log2(rank + 1), over the same with r = 1; r is the share of
            compared attributes that match the target.
        ndcg_target: the same, r = 1 where the changed attribute matches, else 0.
        ndcg_others: the same, r = share of the other attributes.
        changed_p10: share of the first 10 hits beside the query that match in the changed one.
        keep10: share of the other attributes of these hits that match.
    """

    keep: float | None
    top30: float = field(metadata=shown("Top-30", ".1f"))
    ndcg: float = field(metadata=shown("NDCG@30", ".1f"))
    ndcg_target: float = field(metadata=shown("target", ".1f"))
    ndcg_others: float = field(metadata=shown("others", ".1f"))
    changed_p10: float = field(metadata=shown("changed P@10", ".3f"))
    keep10: float = field(metadata=shown("keep@10", ".3f"))


@dataclass(frozen=True)
class ManipulationReport:
    """What a request gets that does not turn the dial, and the dial's curve in order; names of the
    compared attributes, size of the gallery, queries after and before the draw by `seed`."""

    default: ManipulationScore = field(metadata=INLINE)
    curve: tuple[ManipulationScore, ...]
    attributes: tuple[str, ...]
    images: int
    queries: int
    queries_available: int
    seed: int
    ranked_by: str


@dataclass(frozen=True)
class ManipulationTask:
    """What is asked of whom.

    Args:
        attributes: numbers of the compared attributes, A of them.
        rows: the gallery's, ascending, [G] int64.
        sets: which set of values each has, [G, A] int64; equal numbers, equal sets.
        query, changed: place of each query's image in `rows`, and of the changed attribute in
            `attributes`, [Q] int64.
        value: flat index of the value asked for, [Q] int64.
        target: the sets that are looked for, [Q, A] int64.
        available: queries before the draw.
    """

    attributes: tuple[int, ...]
    rows: NDArray[np.int64]
    sets: NDArray[np.int64]
    query: NDArray[np.int64]
    changed: NDArray[np.int64]
    value: NDArray[np.int64]
    target: NDArray[np.int64]
    available: int


def compared_attributes(dataset: Dataset) -> tuple[int, ...]:
    """Numbers of the attributes that are known of at least half of the images."""
    schema = dataset.schema
    has = dataset.labels == 1
    counts = [has[:, schema.slice_of(n)].any(axis=1).sum() for n in range(len(schema.attributes))]
    return tuple(n for n, count in enumerate(counts) if count and 2 * count >= len(dataset))


def manipulation_task(dataset: Dataset, queries: int = QUERIES, seed: int = 0) -> ManipulationTask:
    """Gallery and queries of a split: at most `queries` of them, drawn by `seed`, ordered by the
    value asked for; none where fewer than two attributes are compared or no target is there."""
    schema = dataset.schema
    attributes = compared_attributes(dataset)
    blocks = [dataset.labels[:, schema.slice_of(n)] == 1 for n in attributes]
    known = np.all([block.any(axis=1) for block in blocks], axis=0) if blocks else np.zeros(0, bool)
    rows = np.flatnonzero(known).astype(np.int64)
    sets = np.zeros((len(rows), len(attributes)), dtype=np.int64)
    found = [np.zeros((4, 0), dtype=np.int64)]  # image, flat value, attribute, number of its set
    for place, block in enumerate(blocks):
        sets[:, place] = np.unique(block[rows], axis=0, return_inverse=True)[1].reshape(-1)
    for place, attribute in enumerate(attributes if len(attributes) > 1 else ()):
        block, own = blocks[place][rows], sets[:, place]
        alone = np.flatnonzero(block.sum(axis=1) == 1)
        number_of = dict(np.stack([block[alone].argmax(axis=1), own[alone]], axis=1).tolist())
        rest = np.unique(np.delete(sets, place, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        there = np.zeros((rest.max(initial=-1) + 1, own.max(initial=-1) + 1), dtype=bool)
        there[rest, own] = True
        for value, number in number_of.items():
            flat = schema.offsets[attribute] + value
            asking = np.flatnonzero(there[rest, number] & ~block[:, value])
            found.append(np.stack(np.broadcast_arrays(asking, flat, place, number)))
    every = np.concatenate(found, axis=1)
    every = every[:, np.lexsort((every[1], every[0]))]
    available = every.shape[1]
    every = every[:, drawn(available, queries, seed)]
    query, value, changed, number = every[:, np.lexsort((every[0], every[1]))]
    target = sets[query]
    target[np.arange(len(query)), changed] = number
    return ManipulationTask(attributes, rows, sets, query, changed, value, target, available)


def evaluate_manipulation(
    dataset: Dataset, scorer: Scorer, seed: int = 0, dial: Sequence[float] = DIAL
) -> ManipulationReport | None:
    """Ask for one other value of every query, at every point of the dial (each 0..1).

    The dataset's rows are the scorer's; requests of one value come together, of one query within
    them; `seed` is of the draw of queries. None if no request has a target in the gallery.
    """
    task = manipulation_task(dataset, seed=seed)
    if not len(task.query):
        return None
    points = (None, *dial)
    totals = np.zeros((len(points), 6))
    for number in range(len(task.query)):
        row, value = int(task.rows[task.query[number]]), int(task.value[number])
        scores = np.stack([scorer.named(row, [value], keep=k)[task.rows] for k in points])
        totals += _measure(task, number, scores)
    means = (totals / len(task.query)).tolist()
    default, *curve = (ManipulationScore(k, *mean) for k, mean in zip(points, means, strict=True))
    return ManipulationReport(
        default=default,
        curve=tuple(curve),
        attributes=tuple(dataset.schema.attributes[n].name for n in task.attributes),
        images=len(task.rows),
        queries=len(task.query),
        queries_available=task.available,
        seed=seed,
        ranked_by=scorer.ranked_by,
    )


def _measure(
    task: ManipulationTask, number: int, scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The six figures of one query, [P, 6], for scores of the gallery at P points [P, G]."""
    matches = task.sets == task.target[number]  # [G, A]
    changed = int(task.changed[number])
    target, whole = matches[:, changed], matches.mean(axis=1)
    others = np.delete(matches, changed, axis=1).mean(axis=1)
    ranked = top_k(scores, min(max(TOP, K + 1), scores.shape[1]))  # [P, n]
    hits = ranked[:, :TOP]
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))

    def ndcg(r: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
        gain = 2.0 ** r[hits].astype(np.float64) - 1
        return np.asarray(100 * (gain @ discount) / discount.sum())

    own = ranked == task.query[number]
    first = np.argsort(own, axis=1, kind="stable")[:, : min(K, scores.shape[1] - 1)]
    beside = np.take_along_axis(ranked, first, axis=1)  # the first K without the query
    top = 100.0 * (whole[hits] == 1).any(axis=1)
    first_ten = target[beside].sum(axis=1) / K, others[beside].mean(axis=1)
    return np.stack([top, ndcg(whole), ndcg(target), ndcg(others), *first_ten], axis=1)
