"""Requests as people may make them, drawn from a gallery: what recall is measured with."""

from __future__ import annotations

import numpy as np

from retrieval.query_vector import Asked, formula_of
from training.descriptor import Bytes, DescriptorLayout, Floats
from training.schema import Schema


def draw_requests(
    layout: DescriptorLayout, schema: Schema, descriptors: Bytes, seed: int
) -> Floats:
    """Query vectors [Q, width] float32 of pictures [Q, width], each with a request of its own.

    A quarter each: no name; attributes to compare by; one to three values of different attributes
    that are wanted; the same with the first of them unwanted. The dial is anywhere in 0..1.
    """
    random = np.random.default_rng(seed)
    chances, nuance = layout.chances(descriptors), layout.nuance_of(descriptors)
    weights = np.zeros((len(descriptors), layout.width), dtype=np.float32)
    named = [number for number, own in enumerate(schema.attributes) if own.values]
    for place in range(len(weights)):
        attributes = random.permutation(named)[: 1 + random.integers(3)].tolist()
        flat = [np.arange(schema.size)[schema.slice_of(number)] for number in attributes]
        values = [int(random.choice(own)) for own in flat]
        keep = float(random.random())
        asked = (
            Asked(keep=keep),
            Asked(like=attributes, keep=keep),
            Asked(values, keep=keep),
            Asked(values[1:], values[:1], keep=keep),
        )[place % 4]
        formula = formula_of(layout, schema, chances[place], nuance[place], asked)
        weights[place] = formula.vector.weights
    return weights
