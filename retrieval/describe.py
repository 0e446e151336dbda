"""Hits in words: paths, known labels, predictions and what became of the requested values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.store import Store
from retrieval.hits import Hit, RequestedValue, Verdict
from training.schema import Schema, normalise_name

Requested = Sequence[tuple[int, bool]]
"""Flat index of each named value, and whether it is wanted."""


def describe_hit(
    store: Store, rank: int, row: int, alike: float, score: float, requested: Requested
) -> Hit:
    """What is known and predicted of one row of the gallery."""
    schema = store.schema
    labels = np.asarray(store.labels()[row])
    probabilities = np.asarray(store.predicted()[row], dtype=np.float32)
    known: dict[str, list[str]] = {}
    for number, attribute in enumerate(schema.attributes):
        own = labels[schema.slice_of(number)]
        if (own == 1).any():
            names = [attribute.values[i] for i in np.flatnonzero(own == 1)]
            known[normalise_name(attribute.name)] = names
    return Hit(
        rank=rank,
        score=score,
        likeness=alike,
        path=store.root / store.paths[row],
        row=row,
        known=known,
        predicted=likely_values(schema, probabilities),
        requested=judged(schema, requested, labels, probabilities),
    )


def likely_values(
    schema: Schema, probabilities: NDArray[np.float32]
) -> dict[str, tuple[str, float]]:
    """The most likely value of each attribute with its probability, from all of them [K]."""
    out = {}
    for number, attribute in enumerate(schema.attributes):
        own = probabilities[schema.slice_of(number)]
        if len(own):
            top = int(own.argmax())
            out[normalise_name(attribute.name)] = (attribute.values[top], float(own[top]))
    return out


def judged(
    schema: Schema,
    requested: Requested,
    labels: NDArray[np.int8],
    probabilities: NDArray[np.float32],
) -> tuple[RequestedValue, ...]:
    """What is known of the requested values in one image, from its label states and
    probabilities, [K] each."""
    out = []
    for value, wanted in requested:
        chance = float(probabilities[value])
        verdict: Verdict
        if labels[value]:
            verdict = "present" if labels[value] > 0 else "absent"
        else:
            verdict = "predicted" if chance >= 0.5 else "predicted-absent"
        out.append(RequestedValue(schema.value_names[value], wanted, verdict, chance))
    return tuple(out)
