"""Attribute-specific MAP (Table 3) of whatever embeds images under a condition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.report_grid import UNWRITTEN, shown
from retrieval.metrics import (
    Interval,
    average_precision,
    bootstrap_interval,
    expected_average_precision,
)
from training.datasets.dataset import Dataset, RetrievalProtocol
from training.errors import DataError
from training.schema import Condition


@dataclass(frozen=True)
class AttributeTask:
    """The queries and candidates of one attribute of V values in one split.

    Args:
        query_rows, query_values: row of the dataset and value (0..V-1) of each query, [Q] int64.
        candidate_rows: ascending, [M] int64: ties are broken in this order.
        candidate_values: what relevance to a query's value is judged by, [M, V] bool: of a
            published list the one value that it gives.
        query_sets, candidate_sets: all values of each one's image, [Q, V] and [M, V] bool.
        leave_one_out: whether the queries are the candidates, rather than published lists.
        available: number of queries before `capped` took some away.
    """

    attribute: int
    query_rows: NDArray[np.int64]
    query_values: NDArray[np.int64]
    query_sets: NDArray[np.bool_]
    candidate_rows: NDArray[np.int64]
    candidate_values: NDArray[np.bool_]
    candidate_sets: NDArray[np.bool_]
    leave_one_out: bool
    available: int

    def relevant(self, queries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each candidate has the value of each of `queries` (0..Q-1), [q, M] bool."""
        return np.ascontiguousarray(self.candidate_values.T[self.query_values[queries]])

    def relevant_any(self, queries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each candidate shares any value with the image of each query, [q, M] bool."""
        own = self.query_sets[queries].astype(np.float32)
        return np.asarray(own @ self.candidate_sets.T.astype(np.float32) > 0)

    def excluded(self, queries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each candidate is the query's own image, [q, M] bool: it takes no part."""
        return np.asarray(self.query_rows[queries, None] == self.candidate_rows[None, :])


def queries_and_candidates(dataset: Dataset, split: str, attribute: int) -> AttributeTask:
    """The queries and candidates of one attribute: the published lists, else leave-one-out.

    In leave-one-out every image of the split that has at least one known value (+1) of the
    attribute queries all others that are labelled in it; there are no queries where none is.
    DataError if the split has no images.
    """
    check_split(dataset, split)
    where = dataset.schema.slice_of(attribute)
    if split in dataset.protocols:
        return _published(dataset, dataset.protocols[split], attribute, where)
    rows = dataset.rows_of(split)
    states = dataset.labels[rows, where]
    sets, labelled = states == 1, dataset.schema.attributes[attribute].labelled(states)
    rows, sets = rows[labelled], sets[labelled]
    image, value = np.nonzero(sets)
    return AttributeTask(
        attribute, rows[image], value, sets[image], rows, sets, sets, True, len(image)
    )


def _published(
    dataset: Dataset, lists: RetrievalProtocol, attribute: int, where: slice
) -> AttributeTask:
    one_hot = np.eye(where.stop - where.start, dtype=bool)
    asking = np.flatnonzero(lists.queries.attributes == attribute)
    offered = np.flatnonzero(lists.candidates.attributes == attribute)
    offered = offered[np.argsort(lists.candidates.rows[offered], kind="stable")]
    query_rows, rows = lists.queries.rows[asking], lists.candidates.rows[offered]
    query_values = lists.queries.values[asking]
    values = one_hot[lists.candidates.values[offered]]
    # The lists name one value an image; where its labels tell of more, `any` counts those too.
    query_sets = one_hot[query_values] | (dataset.labels[query_rows, where] == 1)
    sets = values | (dataset.labels[rows, where] == 1)
    return AttributeTask(
        attribute, query_rows, query_values, query_sets, rows, values, sets, False, len(query_rows)
    )


def drawn(count: int, most: int, seed: int | list[int]) -> NDArray[np.int64]:
    """The same `most` of the numbers 0..count-1 for one seed, ascending; all if there are fewer."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size=most, replace=False))


def capped(task: AttributeTask, queries: int, seed: int) -> AttributeTask:
    """The task with at most `queries` of its queries, drawn by seed; all candidates stay, and
    `available` stays the number of queries before."""
    if task.available <= queries:
        return task
    keep = drawn(task.available, queries, [seed, task.attribute])
    names = "query_rows", "query_values", "query_sets"
    return replace(task, **{name: getattr(task, name)[keep] for name in names})


def check_split(dataset: Dataset, split: str) -> None:
    """Raise DataError if the split has no images."""
    if len(dataset.rows_of(split)) or split in dataset.protocols:
        return
    counts = Counter(str(s) for s in dataset.splits if s)
    known = ", ".join(f"{name} ({count})" for name, count in counts.items())
    raise DataError(
        f"dataset {dataset.name!r} has no images in split {split!r}; "
        + (f"it has {known}" if known else "its images have no splits: use --split all")
    )


Rows = NDArray[np.int64]

Embed = Callable[[Condition, Rows], NDArray[np.float32]]
"""Condition [K] int8 and dataset rows [M] int64 -> L2-normalised embeddings [M, d] float32."""

Mode = Literal["type", "value"]

_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class MapScore:
    """MAP of one attribute, or of all; MAP, chance and their intervals in percent.

    Args:
        map: mean AP over the queries.
        ci: 95 % percentile bootstrap interval of `map`, whole query images resampled.
        chance: expected MAP of a random ranking, from the label counts.
        lift: `map / chance`; 0 where chance is 0.
        queries, queries_available: after and before `max_queries`.
        candidates: in leave-one-out the query is one of them, and takes no part in its own ranking.
        queries_without_relevant: those that score 0 because nothing is relevant to them.
        map_any, chance_any: where each image queries once and any shared value is relevant; None
            unless the attribute (of all: any) is multi-valued and the mode is `type`.
    """

    map: float = field(metadata=shown("MAP", ".2f"))
    ci: Interval = field(metadata=shown("95 % CI", ".1f"))
    chance: float = field(metadata=shown("chance", ".2f"))
    lift: float = field(metadata=shown("lift", ".2f", "x"))
    queries: int = field(metadata=shown("queries"))
    queries_available: int
    candidates: int = field(metadata=shown("candidates"))
    queries_without_relevant: int = field(metadata=shown("without relevant"))
    map_any: float | None = field(default=None, metadata=shown("MAP any", ".2f"))
    chance_any: float | None = field(default=None, metadata=shown("chance any", ".2f"))


@dataclass(frozen=True)
class MapReport:
    """MAP over the attributes of one split.

    Args:
        leave_one_out: whether every image queried all others, rather than published lists.
        all: mean over *all queries* (query-weighted), as published tables print it.
        attribute_mean: plain mean over the attributes, percent.
        attributes: of each that has queries, in the schema's order, by name.
        unlabelled: attributes left out because no image of the split is labelled in them.
    """

    dataset: str
    split: str
    mode: Mode
    seed: int
    leave_one_out: bool = field(metadata=UNWRITTEN)
    all: MapScore
    attribute_mean: float
    attributes: dict[str, MapScore]
    unlabelled: tuple[str, ...] = ()


class _Scores(NamedTuple):
    """Per query, all [Q]: AP and its chance in percent, the query's row, whether anything is
    relevant to it, and how many of the available queries it stands for."""

    ap: NDArray[np.float64]
    chance: NDArray[np.float64]
    rows: Rows
    answerable: NDArray[np.bool_]
    weights: NDArray[np.float64]

    def mean(self, name: str) -> float:
        return float(np.average(getattr(self, name), weights=self.weights))


def evaluate_attributes(
    dataset: Dataset,
    split: str,
    mode: Mode,
    embed: Embed,
    seed: int = 0,
    max_queries: int | None = None,
    embed_queries: Embed | None = None,
) -> MapReport:
    """Rank each attribute's candidates for each of its queries by dot product, and average.

    A query with no relevant candidate scores 0 and stays in. `seed` is of the intervals and of the
    draw of queries.

    Args:
        mode: `type` conditions on all values of the attribute; `value` on the query's value, so
            that the candidates are embedded once for every value.
        max_queries: rank only about this many queries, the same share of every attribute's but at
            least one; in the mean over all, each stands for as many of its attribute as it was
            drawn from. None: all.
        embed_queries: gives the queries' embeddings where they are made in another way than the
            candidates', as an index's are. None: `embed`.

    Raises:
        DataError: if the split is empty, nothing in it can be a query, or embeddings are not
            finite [M, d].
    """
    names = [a.name for a in dataset.schema.attributes]
    tasks = [queries_and_candidates(dataset, split, a) for a in range(len(names))]
    tasks = [task for task in tasks if task.available]
    if not tasks:
        raise DataError(
            f"split {split!r} of dataset {dataset.name!r} has no image labelled in any "
            f"attribute ({', '.join(names)}); nothing can be measured"
        )
    if max_queries is not None:
        share = min(1.0, max_queries / sum(task.available for task in tasks))
        tasks = [capped(task, math.ceil(task.available * share), seed) for task in tasks]

    parts = [_evaluate_task(dataset, task, mode, embed, embed_queries) for task in tasks]
    scores = {
        names[task.attribute]: _summary(*part, [task], seed)
        for task, part in zip(tasks, parts, strict=True)
    }
    # With one value an image, both readings of relevance are one.
    any_multi = any(loose is not None for _, loose in parts)
    loose = _pooled(strict if loose is None else loose for strict, loose in parts)
    strict = _pooled(strict for strict, _ in parts)
    return MapReport(
        dataset=dataset.name,
        split=split,
        mode=mode,
        seed=seed,
        leave_one_out=tasks[0].leave_one_out,
        all=_summary(strict, loose if any_multi else None, tasks, seed),
        attribute_mean=float(np.mean([score.map for score in scores.values()])),
        attributes=scores,
        unlabelled=tuple(name for name in names if name not in scores),
    )


def _evaluate_task(
    dataset: Dataset, task: AttributeTask, mode: Mode, embed: Embed, embed_queries: Embed | None
) -> tuple[_Scores, _Scores | None]:
    """Scores of each query, and of each image once with any shared value relevant."""
    schema = dataset.schema
    groups = {-1: np.arange(len(task.query_rows))}  # queries by the value that is asked for
    if mode == "value":
        values = np.unique(task.query_values).tolist()
        groups = {value: np.flatnonzero(task.query_values == value) for value in values}
    parts = []
    for value, queries in groups.items():
        condition = schema.type_condition(task.attribute)
        if mode == "value":
            condition = schema.value_condition([schema.offsets[task.attribute] + value])
        similar = _similarities(task, queries, condition, embed, embed_queries)
        parts.append(_rank(task, queries, similar, task.relevant))
    if mode == "value" or not schema.multi[task.attribute]:
        return _pooled(parts), None
    once = np.unique(task.query_rows, return_index=True)[1]
    return parts[0], _rank(task, once, similar, task.relevant_any)


def _similarities(
    task: AttributeTask,
    queries: Rows,
    condition: Condition,
    embed: Embed,
    embed_queries: Embed | None,
) -> Callable[[Rows], NDArray[np.float32]]:
    """What gives the similarities [q, M] of the candidates to some of `queries`."""

    def vectors_of(made_by: Embed, rows: Rows) -> NDArray[np.float64]:
        vectors = np.asarray(made_by(condition, rows))
        if vectors.ndim != 2 or len(vectors) != len(rows) or not np.isfinite(vectors).all():
            raise DataError(
                f"embedding {len(rows)} images gave an array of shape {vectors.shape}"
                + ("" if np.isfinite(vectors).all() else " with NaN or infinity in it")
                + "; expected finite [M, d]: check the checkpoint"
            )
        # Sums in float64, rounded once to float32 when ranked: equal vectors then tie exactly,
        # whatever order the BLAS of this machine adds in and wherever they stand in the matrix.
        return vectors.astype(np.float64)

    asking = np.unique(task.query_rows[queries])
    # In leave-one-out the queries are candidates too: embed them once.
    rows = np.union1d(task.candidate_rows, asking if embed_queries is None else asking[:0])
    vectors = vectors_of(embed, rows)
    if embed_queries is None:
        asking, asked = rows, vectors
    else:
        asked = vectors_of(embed_queries, asking)
    candidates = vectors[np.searchsorted(rows, task.candidate_rows)].T

    def of(some: Rows) -> NDArray[np.float32]:
        own = asked[np.searchsorted(asking, task.query_rows[some])]
        return (own @ candidates).astype(np.float32)

    return of


def _rank(
    task: AttributeTask,
    queries: Rows,
    similar: Callable[[Rows], NDArray[np.float32]],
    relevance: Callable[[Rows], NDArray[np.bool_]],
) -> _Scores:
    ap = np.empty(len(queries))
    counts, pool = np.empty((2, len(queries)), dtype=np.int64)
    step = max(1, _CELLS_AT_ONCE // max(1, len(task.candidate_rows)))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        excluded = task.excluded(queries[block])
        relevant = relevance(queries[block]) & ~excluded
        ap[block] = average_precision(similar(queries[block]), relevant, excluded)
        counts[block] = relevant.sum(axis=1)
        pool[block] = (~excluded).sum(axis=1)
    chance = 100 * expected_average_precision(counts, pool)
    weights = np.full(len(queries), task.available / max(1, len(task.query_rows)))
    return _Scores(100 * ap, chance, task.query_rows[queries], counts > 0, weights)


def _pooled(parts: Iterable[_Scores]) -> _Scores:
    return _Scores(*map(np.concatenate, zip(*parts, strict=True)))


def _summary(
    strict: _Scores, loose: _Scores | None, tasks: list[AttributeTask], seed: int
) -> MapScore:
    mean, chance = strict.mean("ap"), strict.mean("chance")
    return MapScore(
        map=mean,
        ci=bootstrap_interval(strict.ap, strict.rows, strict.weights, seed=seed),
        chance=chance,
        lift=mean / chance if chance else 0.0,
        queries=len(strict.ap),
        queries_available=sum(task.available for task in tasks),
        candidates=sum(len(task.candidate_rows) for task in tasks),
        queries_without_relevant=int((~strict.answerable).sum()),
        map_any=None if loose is None else loose.mean("ap"),
        chance_any=None if loose is None else loose.mean("chance"),
    )
