"""The category of each row, where the schema has an attribute of that name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.schema import Schema, normalise_name

CATEGORY_NAMES = ("category", "clothes-category")
"""Normalised names of the attribute that is the category of a garment."""


def category_of(
    schema: Schema, labels: NDArray[np.int8]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Category of each row and the names of the categories, from the attribute so called.

    Args:
        schema: attributes and values.
        labels: label states [N, K] int8.

    Returns:
        [N] int64 with -1 for unknown, and C names. A schema without a category attribute, or
        with one of which a row has several values, gives -1 everywhere and no names.
    """
    folded = [normalise_name(a.name) for a in schema.attributes]
    for number in (folded.index(n) for n in CATEGORY_NAMES if n in folded):
        states = labels[:, schema.slice_of(number)] == 1
        if not np.any(states.sum(axis=1) > 1):
            known = states.any(axis=1)
            category = np.where(known, states.argmax(axis=1), -1).astype(np.int64)
            return category, schema.attributes[number].values
    return np.full(len(labels), -1, dtype=np.int64), ()
