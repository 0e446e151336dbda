"""Descriptors as evaluation ranks them are as the engine ranks them."""

from __future__ import annotations

import numpy as np

from retrieval.evaluation.scorer import DescriptorScorer
from retrieval.query_vector import Asked, formula_of
from training.descriptor import GARMENT, DescriptorLayout
from training.schema import Attribute, Schema

SCHEMA = Schema((Attribute("pattern", ("floral", "striped")), Attribute("colour", ("red", "blue"))))
LAYOUT = DescriptorLayout(4, ((0, 4), (1, 4), (GARMENT, 8)))


def _scorer() -> tuple[DescriptorScorer, np.ndarray]:
    draws = np.random.default_rng(1)
    chances = draws.dirichlet((1, 1), size=(30, 2)).reshape(30, 4).astype(np.float32)
    parts = [draws.standard_normal((30, size)) for _, size in LAYOUT.groups]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    descriptors = LAYOUT.pack(chances, np.concatenate(unit, 1).astype(np.float32))
    return DescriptorScorer(LAYOUT, SCHEMA, descriptors), descriptors


def test_scores_are_those_of_query_vectors() -> None:
    scorer, descriptors = _scorer()
    chances, nuance = LAYOUT.chances(descriptors)[7], LAYOUT.nuance_of(descriptors)[7]
    for wanted, unwanted, keep in (([1], [], None), ([0], [3], 0.2), ([], [], None)):
        formula = formula_of(LAYOUT, SCHEMA, chances, nuance, Asked(wanted, unwanted, keep=keep))
        got = scorer.named(7, wanted, unwanted, keep)
        np.testing.assert_allclose(got, formula.scores(descriptors), atol=1e-5)
    np.testing.assert_array_equal(scorer.whole(7), scorer.named(7, []))
    assert int(scorer.whole(7).argmax()) == 7
    # What is kept when a pattern is named is what the dial's end asks for alone.
    np.testing.assert_allclose(scorer.kept(7, [0]), scorer.named(7, [1], keep=1.0), atol=1e-6)


def test_under_a_type_condition_rows_rank_as_by_like() -> None:
    scorer, descriptors = _scorer()
    rows = np.array([3, 7, 20])
    condition = SCHEMA.type_condition(1)
    got = scorer.embed_queries(condition, rows) @ scorer.embed(condition, np.arange(30)).T
    for place, row in enumerate(rows):
        chances, nuance = LAYOUT.chances(descriptors)[row], LAYOUT.nuance_of(descriptors)[row]
        formula = formula_of(LAYOUT, SCHEMA, chances, nuance, Asked(like=[1]))
        expected = formula.scores(descriptors)
        assert np.array_equal(np.argsort(-got[place], kind="stable"), np.argsort(-expected))
