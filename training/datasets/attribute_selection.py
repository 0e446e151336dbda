"""A dataset restricted to some of its attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import Dataset, RetrievalList, RetrievalProtocol
from training.schema import Schema


def select_attributes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Keep the named attributes, in the order of the names.

    Labels lose the other columns; published lists keep the statements about kept attributes,
    renumbered. Rows without any label left stay. The category is not touched.

    Raises:
        UsageError: an unknown attribute; the message lists the nearest names.
    """
    kept = list(dict.fromkeys(dataset.schema.attribute(name) for name in names))
    new_number = np.full(len(dataset.schema.attributes), -1, dtype=np.int64)
    new_number[kept] = np.arange(len(kept))
    columns = [np.arange(dataset.schema.size)[dataset.schema.slice_of(a)] for a in kept]
    return replace(
        dataset,
        schema=Schema(tuple(dataset.schema.attributes[a] for a in kept)),
        labels=dataset.labels[:, np.concatenate(columns)],
        protocols={
            split: RetrievalProtocol(
                _renumbered(protocol.queries, new_number),
                _renumbered(protocol.candidates, new_number),
            )
            for split, protocol in dataset.protocols.items()
        },
    )


def _renumbered(listed: RetrievalList, new_number: NDArray[np.int64]) -> RetrievalList:
    kept = new_number[listed.attributes] >= 0
    return RetrievalList(
        listed.rows[kept], new_number[listed.attributes[kept]], listed.values[kept]
    )
