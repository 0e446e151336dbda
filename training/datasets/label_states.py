"""Label states from statements that a row has a value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.schema import Attribute, Schema


def states_from_statements(
    schema: Schema,
    rows: NDArray[np.int64],
    attributes: NDArray[np.int64],
    values: NDArray[np.int64],
    count: int,
) -> NDArray[np.int8]:
    """Mark what is stated, and what follows from it: the attribute's other values are absent.

    Args:
        schema: attributes and values.
        rows: row of each statement [M], 0..count-1.
        attributes: attribute number of each statement [M].
        values: value within the attribute of each statement [M].
        count: N.

    Returns:
        [N, K] int8: +1 for stated values, -1 for the other values of an attribute of which the
        row has a stated one, 0 for attributes about which nothing is stated.
    """
    states = np.zeros((count, schema.size), dtype=np.int8)
    for attribute in range(len(schema.attributes)):
        states[rows[attributes == attribute], schema.slice_of(attribute)] = -1
    # Only now: a row may have several values of one attribute.
    states[rows, np.asarray(schema.offsets, dtype=np.int64)[attributes] + values] = 1
    return states


def with_multi(schema: Schema, states: NDArray[np.int8]) -> Schema:
    """The schema with `multi` set where some row has several values of the attribute.

    Args:
        schema: attributes and values.
        states: label states [N, K] int8.
    """
    return Schema(
        tuple(
            Attribute(
                attribute.name,
                attribute.values,
                bool(np.any((states[:, schema.slice_of(i)] == 1).sum(axis=1) > 1)),
            )
            for i, attribute in enumerate(schema.attributes)
        )
    )
