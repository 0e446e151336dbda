"""The labels of a gallery, numbered by the model's schema instead of the dataset's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.schema import Schema, normalise_name


@dataclass(frozen=True)
class AlignedLabels:
    """Label states in the model's numbering.

    Args:
        labels: [N, K of the model] int8; 0 (unknown) where the dataset does not know the value.
        matched: how many of the model's values the dataset has too.
    """

    labels: NDArray[np.int8]
    matched: int


def align_labels(labels: NDArray[np.int8], source: Schema, target: Schema) -> AlignedLabels:
    """Renumber label states [N, K of `source`] int8 by the names of attributes and values."""
    columns = {name: column for column, name in enumerate(_names(source))}
    pairs = [(i, columns[name]) for i, name in enumerate(_names(target)) if name in columns]
    out = np.zeros((len(labels), target.size), dtype=np.int8)
    for to, origin in pairs:
        out[:, to] = labels[:, origin]
    return AlignedLabels(out, len(pairs))


def _names(schema: Schema) -> list[tuple[str, str]]:
    return [
        (normalise_name(attribute.name), normalise_name(value))
        for attribute in schema.attributes
        for value in attribute.values
    ]
