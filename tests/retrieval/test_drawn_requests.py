"""Drawn requests: query vectors that rank as the requests of their kinds do."""

from __future__ import annotations

import numpy as np

from retrieval.query_vector import Asked, draw_requests, formula_of
from training.descriptor import GARMENT, DescriptorLayout
from training.schema import Attribute, Schema

SCHEMA = Schema((Attribute("a", ("x", "y")), Attribute("b", ("u", "v", "w")), Attribute("c", ())))
LAYOUT = DescriptorLayout(SCHEMA.size, ((GARMENT, 20), (0, 8)))


def test_each_kind_is_drawn_and_scores_are_within_0_and_1() -> None:
    rng = np.random.default_rng(0)
    nuance = rng.normal(size=(40, 28))
    for part in (slice(0, 20), slice(20, 28)):
        nuance[:, part] /= np.linalg.norm(nuance[:, part], axis=1, keepdims=True)
    chances = rng.dirichlet(np.ones(SCHEMA.size), 40)
    descriptors = LAYOUT.pack(chances.astype(np.float32), nuance.astype(np.float32))
    weights = draw_requests(LAYOUT, SCHEMA, descriptors, 1)
    assert (weights.shape, weights.dtype) == ((40, LAYOUT.width), np.float32)
    np.testing.assert_array_equal(weights, draw_requests(LAYOUT, SCHEMA, descriptors, 1))
    assert not np.array_equal(weights, draw_requests(LAYOUT, SCHEMA, descriptors, 2))
    own = LAYOUT.chances(descriptors), LAYOUT.nuance_of(descriptors)
    whole = formula_of(LAYOUT, SCHEMA, own[0][4], own[1][4], Asked())
    np.testing.assert_array_equal(weights[4], whole.vector.weights)
    values = weights[:, : SCHEMA.size]
    assert (values[0::4] >= 0).all()
    assert (values[3::4] < 0).any(axis=1).all()  # one is unwanted
    assert ((values[2::4] > 0).any(axis=1)).all()
    for place in range(40):  # unlike each other, so that all are searches of their own
        assert (weights[np.arange(40) != place] != weights[place]).any(axis=1).all()
