"""In how many attributes images agree with a query: what keep@10 counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import Dataset


@dataclass(frozen=True)
class Shared:
    """Agreement of M images with a query.

    Args:
        equal: attributes with a value in common, [M] int64.
        comparable: attributes known for both, [M] int64.
    """

    equal: NDArray[np.int64]
    comparable: NDArray[np.int64]

    def share(self, where: NDArray[np.int64] | NDArray[np.bool_]) -> float:
        """Of all comparable attributes of the images `where`, the share that is equal.

        Returns:
            0..1; NaN if none is comparable.
        """
        pairs = int(self.comparable[where].sum())
        return int(self.equal[where].sum()) / pairs if pairs else float("nan")


def shared_attributes(
    dataset: Dataset, query: int, rows: NDArray[np.int64], named: Sequence[int]
) -> Shared:
    """Compare images with a query in the attributes that were not named.

    Of a multi-valued attribute one common value is enough.

    Args:
        dataset: images and labels.
        query: row of the query.
        rows: rows of the images, [M].
        named: flat indices whose attributes are left out.
    """
    schema = dataset.schema
    taken = {int(schema.attribute_of[v]) for v in named}
    equal = np.zeros(len(rows), dtype=np.int64)
    comparable = np.zeros(len(rows), dtype=np.int64)
    for attribute in range(len(schema.attributes)):
        where = schema.slice_of(attribute)
        own = dataset.labels[query, where] == 1
        if attribute in taken or not own.any():
            continue
        has = dataset.labels[rows, where] == 1
        comparable += has.any(axis=1)
        equal += has[:, own].any(axis=1)
    return Shared(equal, comparable)
