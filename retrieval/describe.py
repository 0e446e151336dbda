"""Hits in words: paths, known labels, predictions and what became of the requested values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from indexer.store import Store
from retrieval.candidates import Found
from retrieval.hits import Hit, RequestedValue, Verdict
from retrieval.query_vector import QueryVector
from training.descriptor import Floats
from training.schema import Schema, normalise_name

_folded = lru_cache(maxsize=4096)(normalise_name)  # for each hit anew it takes the longest

Requested = Sequence[tuple[int, bool]]
"""Flat index of each named value, and whether it is wanted."""


def describe_hits(
    store: Store, found: Found, likeness: QueryVector, requested: Requested, offset: int
) -> tuple[Hit, ...]:
    """What is known and predicted of rows of the gallery.

    Args:
        store: the gallery.
        found: the rows, best first.
        likeness: to the query.
        requested: the named values.
        offset: hits before the first.
    """
    if len(found.rows) == 0:
        return ()
    schema, items = store.schema, store.items()
    descriptors = store.descriptors_of(found.rows)
    chances = store.layout.chances(descriptors)
    alike = np.clip(likeness.scores(descriptors), 0, 1)
    scores = np.clip(found.scores, 0, 1)
    labels = store.labels_of(found.rows)
    return tuple(
        Hit(
            rank=offset + place + 1,
            score=float(scores[place]),
            likeness=float(alike[place]),
            path=store.root / store.paths[row],
            row=row,
            known=known_values(schema, labels[place]),
            predicted=likely_values(schema, chances[place]),
            requested=judged(schema, requested, labels[place], chances[place]),
            item=None if items is None or items[row] < 0 else int(items[row]),
            payload={
                name: text for name in store.payload if (text := store.payload[name].text(row))
            },
        )
        for place, row in enumerate(found.rows.tolist())
    )


def known_values(schema: Schema, labels: NDArray[np.int8]) -> dict[str, list[str]]:
    """Values that an image is known to have by attribute, from its label states [K]."""
    known: dict[str, list[str]] = {}
    for value in np.flatnonzero(labels == 1).tolist():
        number = int(schema.attribute_of[value])
        own = schema.attributes[number]
        known.setdefault(_folded(own.name), []).append(own.values[value - schema.offsets[number]])
    return known


def likely_values(schema: Schema, chances: Floats) -> dict[str, tuple[str, float]]:
    """The most likely value of each attribute with its probability, from all of them [K]."""
    out = {}
    for number, attribute in enumerate(schema.attributes):
        own = chances[schema.slice_of(number)]
        if len(own):
            top = int(own.argmax())
            out[_folded(attribute.name)] = (attribute.values[top], float(own[top]))
    return out


def judged(
    schema: Schema,
    requested: Requested,
    labels: NDArray[np.int8],
    chances: Floats,
) -> tuple[RequestedValue, ...]:
    """What is known of the requested values in one image, from its label states and
    probabilities, [K] each."""
    out = []
    for value, wanted in requested:
        chance = float(chances[value])
        verdict: Verdict
        if labels[value]:
            verdict = "present" if labels[value] > 0 else "absent"
        else:
            verdict = "predicted" if chance >= 0.5 else "predicted-absent"
        out.append(RequestedValue(schema.value_names[value], wanted, verdict, chance))
    return tuple(out)
