"""Attribute-specific MAP (Table 3) of whatever embeds images under a condition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.protocol import AttributeTask, capped, queries_and_candidates
from retrieval.metrics import (
    Interval,
    average_precision,
    bootstrap_interval,
    expected_average_precision,
)
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError
from training.schema import Condition

Embed = Callable[[Condition, NDArray[np.int64]], NDArray[np.float32]]
"""Condition [K] int8 and dataset rows [M] int64 -> L2-normalised embeddings [M, d] float32."""

Mode = Literal["type", "value"]

_Embeds = tuple[Embed, Embed | None]
"""Of the candidates, and of the queries where that differs."""

_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class MapScore:
    """MAP of one attribute, or of all; MAP, chance and their intervals in percent.

    Args:
        name: the attribute, or `all`.
        map: mean AP over the queries.
        chance: expected MAP of a random ranking, from the label counts.
        lift: `map / chance`; 0 where chance is 0.
        ci: 95 % percentile bootstrap interval of `map`, whole query images resampled.
        queries: number of queries that were ranked.
        queries_available: number before `max_queries`.
        candidates: number of candidates (in leave-one-out the query itself is one of them, and
            takes no part in its own ranking).
        queries_without_relevant: queries that score 0 because nothing is relevant to them.
        map_any: MAP where each image queries once and any shared value is relevant; None unless
            the attribute (of all: any of them) is multi-valued and the mode is `type`.
        chance_any: chance of `map_any`.
    """

    name: str
    map: float
    chance: float
    lift: float
    ci: Interval
    queries: int
    queries_available: int
    candidates: int
    queries_without_relevant: int
    map_any: float | None = None
    chance_any: float | None = None


@dataclass(frozen=True)
class MapReport:
    """MAP over the attributes of one split.

    Args:
        dataset, split, mode, seed: what was measured.
        leave_one_out: whether every image queried all others, rather than published lists.
        all: mean over *all queries* (query-weighted), as published tables print it.
        attribute_mean: plain mean over the attributes, percent.
        attributes: one score an attribute that has queries, in the schema's order.
        unlabelled: attributes left out because no image of the split is labelled in them.
    """

    dataset: str
    split: str
    mode: Mode
    seed: int
    leave_one_out: bool
    all: MapScore
    attribute_mean: float
    attributes: tuple[MapScore, ...]
    unlabelled: tuple[str, ...] = ()


@dataclass(frozen=True)
class _QueryScores:
    """Per query: AP, chance, own row, and whether anything is relevant to it, all [Q]."""

    ap: NDArray[np.float64]
    chance: NDArray[np.float64]
    rows: NDArray[np.int64]
    answerable: NDArray[np.bool_]


def evaluate_attributes(
    dataset: Dataset,
    split: str,
    mode: Mode,
    embed: Embed,
    seed: int = 0,
    max_queries: int | None = None,
    embed_queries: Embed | None = None,
) -> MapReport:
    """Rank each attribute's candidates for each of its queries and average.

    Args:
        dataset: images and labels, with the published lists of the split if there are any.
        split: `train`, `valid`, `test` or `all`.
        mode: `type` conditions on all values of the attribute; `value` on the query's value, so
            that the candidates are embedded once for every value.
        embed: gives the embeddings of rows under a condition; similarity is their dot product. A
            constant gives the chance-level floor, an embedding that ignores the condition the
            floor of unconditioned features.
        seed: of the confidence intervals and of the draw of queries.
        max_queries: rank only about this many queries, the same share of every attribute's but at
            least one. In the mean over all queries each stands for as many of its attribute as it
            was drawn from, so that the mean stays unbiased. None: all.
        embed_queries: gives the queries' embeddings where they are made in another way than the
            candidates', as an index's are. None: `embed`.

    Returns:
        The report. A query with no relevant candidate scores 0 and stays in.

    Raises:
        UsageError: an unknown mode, or `max_queries` < 1.
        DataError: if the split is empty, nothing in it can be a query, or embeddings are not
            finite [M, d].
    """
    if mode not in ("type", "value"):
        raise UsageError(f"unknown mode {mode!r}; use type or value")
    if max_queries is not None and max_queries < 1:
        raise UsageError(f"max_queries must be at least 1, not {max_queries}")
    names = [a.name for a in dataset.schema.attributes]
    tasks = [queries_and_candidates(dataset, split, a) for a in range(len(names))]
    used = [t for t in tasks if t.available]
    if not used:
        raise DataError(
            f"split {split!r} of dataset {dataset.name!r} has no image labelled in any "
            f"attribute ({', '.join(names)}); nothing can be measured"
        )
    available = sum(t.available for t in used)
    share = 1.0 if max_queries is None else min(1.0, max_queries / available)
    if share < 1:
        used = [capped(t, math.ceil(t.available * share), seed) for t in used]

    scores, strict_parts, loose_parts = [], [], []
    for task in used:
        strict, loose = _evaluate_task(dataset, task, mode, (embed, embed_queries))
        strict_parts.append(strict)
        loose_parts.append(loose or strict)  # with one value an image, both readings are one
        scores.append(
            _summary(
                names[task.attribute], strict, loose, task.available, len(task.candidate_rows), seed
            )
        )
    any_multi = any(s.map_any is not None for s in scores)
    everything = _summary(
        "all",
        _pooled(strict_parts),
        _pooled(loose_parts) if any_multi else None,
        available,
        sum(s.candidates for s in scores),
        seed,
        (_weights(used, strict_parts), _weights(used, loose_parts)) if share < 1 else (None, None),
    )
    return MapReport(
        dataset=dataset.name,
        split=split,
        mode=mode,
        seed=seed,
        leave_one_out=used[0].leave_one_out,
        all=everything,
        attribute_mean=float(np.mean([s.map for s in scores])),
        attributes=tuple(scores),
        unlabelled=tuple(n for n in names if n not in {s.name for s in scores}),
    )


def _evaluate_task(
    dataset: Dataset, task: AttributeTask, mode: Mode, embed: _Embeds
) -> tuple[_QueryScores, _QueryScores | None]:
    """Scores of each query, and of each image once with any shared value relevant."""
    schema = dataset.schema
    everyone = np.arange(len(task.query_rows), dtype=np.int64)
    if mode == "type":
        similarities = _Similarities(embed, schema.type_condition(task.attribute), task, everyone)
        strict = _rank(task, everyone, similarities, task.relevant)
        if not schema.multi[task.attribute]:
            return strict, None
        once = np.unique(task.query_rows, return_index=True)[1].astype(np.int64)
        return strict, _rank(task, once, similarities, task.relevant_any)
    parts = []
    for value in np.unique(task.query_values):
        mine = np.flatnonzero(task.query_values == value).astype(np.int64)
        condition = schema.value_condition([schema.offsets[task.attribute] + int(value)])
        similarities = _Similarities(embed, condition, task, mine)
        parts.append(_rank(task, mine, similarities, task.relevant))
    return _pooled(parts), None


class _Similarities:
    """Embeddings of a task's images under one condition; gives similarities block by block."""

    def __init__(
        self, embed: _Embeds, condition: Condition, task: AttributeTask, queries: NDArray[np.int64]
    ) -> None:
        own, of_queries = embed
        if of_queries is None:  # in leave-one-out the queries are candidates too: embed them once
            rows = np.unique(np.concatenate([task.query_rows[queries], task.candidate_rows]))
            self._vectors = self._query_vectors = self._embed(own, condition, rows)
            self._queries = np.searchsorted(rows, task.query_rows)
        else:
            rows, asking = np.unique(task.candidate_rows), np.unique(task.query_rows[queries])
            self._vectors = self._embed(own, condition, rows)
            self._query_vectors = self._embed(of_queries, condition, asking)
            self._queries = np.searchsorted(asking, task.query_rows)
        self._candidates = np.searchsorted(rows, task.candidate_rows)

    def _embed(
        self, embed: Embed, condition: Condition, rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        vectors = np.asarray(embed(condition, rows))
        if vectors.ndim != 2 or len(vectors) != len(rows) or not np.isfinite(vectors).all():
            raise DataError(
                f"embedding {len(rows)} images gave an array of shape {vectors.shape}"
                + ("" if np.isfinite(vectors).all() else " with NaN or infinity in it")
                + "; expected finite [M, d]: check the checkpoint"
            )
        # Sums in float64, rounded once to float32 when ranked: equal vectors then tie exactly,
        # whatever order the BLAS of this machine adds in and wherever they stand in the matrix.
        return vectors.astype(np.float64)

    def of(self, queries: NDArray[np.int64]) -> NDArray[np.float32]:
        """Similarities of the candidates to the given queries of the task, [q, M] float32."""
        product = self._query_vectors[self._queries[queries]] @ self._vectors[self._candidates].T
        return product.astype(np.float32)


def _rank(
    task: AttributeTask,
    queries: NDArray[np.int64],
    similarities: _Similarities,
    relevance: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
) -> _QueryScores:
    ap = np.empty(len(queries))
    counts = np.empty(len(queries), dtype=np.int64)
    pool = np.empty(len(queries), dtype=np.int64)
    step = max(1, _CELLS_AT_ONCE // max(1, len(task.candidate_rows)))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        excluded = task.excluded(queries[block])
        relevant = relevance(queries[block]) & ~excluded
        ap[block] = average_precision(similarities.of(queries[block]), relevant, excluded)
        counts[block] = relevant.sum(axis=1)
        pool[block] = (~excluded).sum(axis=1)
    chance = expected_average_precision(counts, pool)
    return _QueryScores(ap, chance, task.query_rows[queries], counts > 0)


def _pooled(parts: list[_QueryScores]) -> _QueryScores:
    return _QueryScores(
        np.concatenate([p.ap for p in parts]),
        np.concatenate([p.chance for p in parts]),
        np.concatenate([p.rows for p in parts]),
        np.concatenate([p.answerable for p in parts]),
    )


def _weights(tasks: list[AttributeTask], parts: list[_QueryScores]) -> NDArray[np.float64]:
    """How many queries each of the drawn stands for, [Q]."""
    pairs = zip(tasks, parts, strict=True)
    return np.concatenate([np.full(len(p.ap), t.available / len(t.query_rows)) for t, p in pairs])


def _summary(
    name: str,
    strict: _QueryScores,
    loose: _QueryScores | None,
    available: int,
    candidates: int,
    seed: int,
    weights: tuple[NDArray[np.float64] | None, NDArray[np.float64] | None] = (None, None),
) -> MapScore:
    own, of_loose = weights
    interval = bootstrap_interval(100 * strict.ap, strict.rows, own, seed=seed)
    mean, chance = _percent(strict.ap, own), _percent(strict.chance, own)
    return MapScore(
        name=name,
        map=mean,
        chance=chance,
        lift=mean / chance if chance else 0.0,
        ci=interval,
        queries=len(strict.ap),
        queries_available=available,
        candidates=candidates,
        queries_without_relevant=int((~strict.answerable).sum()),
        map_any=None if loose is None else _percent(loose.ap, of_loose),
        chance_any=None if loose is None else _percent(loose.chance, of_loose),
    )


def _percent(shares: NDArray[np.float64], weights: NDArray[np.float64] | None) -> float:
    return 100 * float(np.average(shares, weights=weights))
