"""The category of each row, where the schema has an attribute of that name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.schema import Schema, normalise_name

CATEGORY_NAMES = ("category", "clothes-category")
"""Normalised names of the attribute that is the category of a garment."""


@dataclass(frozen=True)
class Categories:
    """Categories as `Dataset` holds them.

    Args:
        category: category of each row [N] int64, -1 unknown.
        names: names of the categories, C of them.
        notes: a remark on rows of several categories, if there are any.
    """

    category: NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def category_of(schema: Schema, labels: NDArray[np.int8], paths: Sequence[str]) -> Categories:
    """Category of each row and the names of the categories, from the attribute so called.

    Args:
        schema: attributes and values.
        labels: label states [N, K] int8.
        paths: image path of each row, N of them.

    Returns:
        -1 for a row without a category, or with several. A schema without a category attribute, or
        with one of which no row has a single value, gives -1 everywhere and no names.
    """
    folded = [normalise_name(a.name) for a in schema.attributes]
    notes: tuple[str, ...] = ()
    for number in (folded.index(n) for n in CATEGORY_NAMES if n in folded):
        states = labels[:, schema.slice_of(number)] == 1
        counts = states.sum(axis=1)
        several = np.flatnonzero(counts > 1)
        if len(several):
            notes = (
                f"{schema.attributes[number].name!r}: images of several values, whose category "
                f"counts as unknown: {len(several):,}, first {paths[several[0]]!r}",
            )
        if np.any(counts == 1):
            category = np.where(counts == 1, states.argmax(axis=1), -1).astype(np.int64)
            return Categories(category, schema.attributes[number].values, notes)
    return Categories(np.full(len(labels), -1, dtype=np.int64), (), notes)
