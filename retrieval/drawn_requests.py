"""Requests as people may make them, drawn from a gallery: what recall is measured with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.query_vector import formula_of
from training.descriptor import Bytes, DescriptorLayout, Floats
from training.schema import Schema


def draw_requests(
    layout: DescriptorLayout, schema: Schema, descriptors: Bytes, seed: int
) -> Floats:
    """Query vectors of pictures, each with a request of its own.

    A quarter each: no name; attributes to compare by; one to three values of different attributes
    that are wanted; the same with the first of them unwanted. The dial is anywhere in 0..1.

    Args:
        layout: of the descriptors.
        schema: attributes and values.
        descriptors: of the pictures [Q, width].
        seed: of the draw.

    Returns:
        Weights [Q, width] float32.
    """
    random = np.random.default_rng(seed)
    chances, nuance = layout.chances(descriptors), layout.nuance_of(descriptors)
    weights = np.zeros((len(descriptors), layout.width), dtype=np.float32)
    named = [number for number, own in enumerate(schema.attributes) if own.values]
    for place in range(len(weights)):
        kind = place % 4
        attributes = random.permutation(named)[: 1 + random.integers(3)]
        values = [_value_of(schema, int(number), random) for number in attributes]
        weights[place] = formula_of(
            layout,
            schema,
            chances[place],
            nuance[place],
            wanted=values if kind == 2 else values[1:] if kind == 3 else (),
            unwanted=values[:1] if kind == 3 else (),
            like=attributes.tolist() if kind == 1 else (),
            keep=float(random.random()),
        ).vector.weights
    return weights


def _value_of(schema: Schema, attribute: int, random: np.random.Generator) -> int:
    where: NDArray[np.int64] = np.arange(schema.size)[schema.slice_of(attribute)]
    return int(random.choice(where))
