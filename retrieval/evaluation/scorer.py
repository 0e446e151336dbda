"""What evaluation asks of whatever ranks images, scores of a whole split for one request, and what
the hits of a request that names values are measured by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics import top_k
from training.datasets.dataset import Dataset

Values = Sequence[int]
"""Flat indices of values, or numbers of attributes."""

K = 10
"""Hits that are looked at."""

LEAST_RELEVANT = 5
"""So many images have what a combination or a pair of values asks for, or it is not asked."""


class Scorer(Protocol):
    """Scores every image of a split for requests made with one of its images.

    Rows are 0..N-1 of the split's own dataset. Higher is better. The query itself is among the N;
    whoever asks takes it out.
    """

    ranked_by: str
    """How it ranks, in words, for reports."""

    def named(
        self, query: int, wanted: Values, unwanted: Values = (), keep: float | None = None
    ) -> NDArray[np.float32]:
        """Scores [N] for the picture in row `query` and values that hits should have and lack.

        `keep` is the dial, from 0 (change it) to 1 (keep it); None: the default. A scorer without a
        dial ignores it.
        """
        ...

    def whole(self, query: int) -> NDArray[np.float32]:
        """Likeness to the image in row `query` when nothing is named, [N]."""
        return self.named(query, ())

    def kept(self, query: int, attributes: Values) -> NDArray[np.float32]:
        """The likeness that is kept when values of these attributes (by number) are named, [N]."""
        return self.whole(query)


def has_all(dataset: Dataset, rows: NDArray[np.int64], values: Values) -> NDArray[np.bool_]:
    """Whether each row is known to have all the values, [M] bool."""
    states = dataset.labels[np.ix_(rows, np.array(values, dtype=np.int64))]
    return np.asarray((states == 1).all(axis=1))


def first_hits(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first `K` of some rows by (-score, row), fewer if there are fewer; scores are of all."""
    found = top_k(scores[rows][None, :], K)[0]
    return np.asarray(rows[found[found >= 0]])


def kept_share(dataset: Dataset, query: int, rows: NDArray[np.int64], named: Values) -> float:
    """Over the attributes that were not named and are known for both, the share of images whose
    value equals the query's: keep@10 where `rows` are the hits.

    Of a multi-valued attribute one common value is enough. NaN where nothing can be compared.
    """
    schema = dataset.schema
    equal = comparable = 0
    for attribute in set(range(len(schema.attributes))) - set(schema.attribute_of[list(named)]):
        where = schema.slice_of(attribute)
        own = dataset.labels[query, where] == 1
        if own.any():
            has = dataset.labels[rows, where] == 1
            comparable += int(has.any(axis=1).sum())
            equal += int(has[:, own].any(axis=1).sum())
    return equal / comparable if comparable else math.nan


def mean_of_known(figures: NDArray[np.float64]) -> float | None:
    """Mean of those that are not NaN; None if all are."""
    known = figures[~np.isnan(figures)]
    return float(known.mean()) if len(known) else None
