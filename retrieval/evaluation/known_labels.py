"""Which labels a model is told when it predicts the others: a fixed draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.errors import UsageError
from training.schema import Schema

_ROWS_AT_ONCE = 4096


def draw_known_labels(
    labels: NDArray[np.int8], schema: Schema, share: float, seed: int = 0
) -> NDArray[np.int8]:
    """Keep a share of each image's labels and hide the others.

    A single-valued attribute is kept or hidden as a whole: its hidden value could be read off its
    known siblings. Values of a multi-valued attribute are kept one by one. With one seed, what a
    smaller share keeps, a larger one keeps too.

    Args:
        labels: label states [N, K].
        schema: attributes and values.
        share: of the labels, 0..1; where it is no whole number of them, rounded up or down at
            random so that the mean over images is right.
        seed: of the draw.

    Returns:
        Label states [N, K] int8, 0 where hidden.

    Raises:
        UsageError: if `share` is not in 0..1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"the share of known labels must be in 0..1, not {share}")
    unit_of, units = _units(schema)
    generator = np.random.default_rng(seed)
    shown = np.zeros_like(labels)
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        part = labels[start : start + _ROWS_AT_ONCE]
        order = generator.random((len(part), units)).argsort(axis=1).argsort(axis=1)
        rounding = generator.random((len(part), 1))
        kept = order < np.floor(share * units + rounding)
        shown[start : start + len(part)] = np.where(kept[:, unit_of], part, 0)
    return shown


def _units(schema: Schema) -> tuple[NDArray[np.int64], int]:
    """Which values are kept or hidden together: number of each value's unit [K], and how many."""
    unit_of: list[int] = []
    units = 0
    for attribute in schema.attributes:
        count = len(attribute.values)
        unit_of += range(units, units + count) if attribute.multi else [units] * count
        units += count if attribute.multi else 1
    return np.array(unit_of, dtype=np.int64), units
