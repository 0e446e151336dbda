"""Which images query which, and what counts as relevant: published lists or leave-one-out.

A query is an image *and one value* that it has. An image with several values of a multi-valued
attribute is several queries in leave-one-out, one a value; a candidate is relevant to a query if it
has that value. The looser reading, each image once and any shared value relevant, is what
`AttributeTask.relevant_any` is for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import Dataset, RetrievalProtocol
from training.errors import DataError


@dataclass(frozen=True)
class AttributeTask:
    """The queries and candidates of one attribute in one split.

    Args:
        attribute: its number; it has V values.
        query_rows: row of the dataset of each query, [Q] int64.
        query_values: value of each query, [Q] int64 in 0..V-1.
        query_sets: all values of each query's image, [Q, V] bool.
        candidate_rows: ascending, [M] int64: ties are broken in this order.
        candidate_values: what relevance to a query's value is judged by, [M, V] bool: of a
            published list the one value that it gives.
        candidate_sets: all values of each candidate's image, [M, V] bool.
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
    attribute queries all others that do; there are no queries where no image is labelled in it.

    Raises:
        DataError: the split has no images.
    """
    check_split(dataset, split)
    where = dataset.schema.slice_of(attribute)
    if split in dataset.protocols:
        return _published(dataset, dataset.protocols[split], attribute, where)
    rows = dataset.rows_of(split)
    sets = dataset.labels[rows, where] == 1
    labelled = sets.any(axis=1)
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
    """Make sure that the split has images.

    Raises:
        DataError: it has none.
    """
    if len(dataset.rows_of(split)) or split in dataset.protocols:
        return
    counts = Counter(str(s) for s in dataset.splits if s)
    known = ", ".join(f"{name} ({count})" for name, count in counts.items())
    raise DataError(
        f"dataset {dataset.name!r} has no images in split {split!r}; "
        + (f"it has {known}" if known else "its images have no splits: use --split all")
    )
