"""Version 0.1's scores against its formula written out."""

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval.evaluation.scoring import BY_LIKENESS, EarlierScorer
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("colour", ("red", "blue")),
        Attribute("fit", ("slim", "loose")),
        Attribute("x", ("y",)),
    )
)


class Bank:
    """Twelve images whose embeddings depend on the condition."""

    rows = np.arange(12)
    model = SimpleNamespace(dim=4)

    def __init__(self):
        self.base = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
        self.chances = np.random.default_rng(1).random((12, 5)).astype(np.float32)

    def embed(self, condition, rows):
        turned = self.base + np.random.default_rng(condition + 1).normal(size=4)
        unit = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        return unit[rows].astype(np.float32)

    def predict(self, rows):
        return self.chances[rows]


def cosine(bank, condition, query):
    vectors = bank.embed(np.array(condition, dtype=np.int8), bank.rows)
    return vectors @ vectors[query]


COLOUR, FIT, X, NONE = [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0] * 5


def test_the_three_questions():
    bank = Bank()
    scorer = EarlierScorer(bank, SCHEMA)
    for query in (3, 7, 3):
        np.testing.assert_allclose(scorer.whole(query), cosine(bank, NONE, query), atol=1e-6)
        kept = (cosine(bank, COLOUR, query) + cosine(bank, X, query)) / 2
        np.testing.assert_allclose(scorer.kept(query, [1]), kept, atol=1e-6)
        assert not scorer.kept(query, [0, 1, 2]).any()

        conditioned = cosine(bank, [0, 1, -1, 0, 0], query)
        has = bank.chances[query, 1] * (1 - bank.chances[query, 2])
        present = bank.chances[:, 1] * (1 - bank.chances[:, 2])
        likeness = (has * conditioned + cosine(bank, X, query)) / (has + 1)
        found = scorer.named(query, [1], [2])
        np.testing.assert_allclose(found, likeness + (1 + 2 * has) * present, atol=1e-5)
        np.testing.assert_array_equal(scorer.named(query, [1], [2], keep=0.3), found)
    assert "weight of 4" in EarlierScorer(bank, SCHEMA, 4.0).ranked_by


def test_likeness_alone_asks_no_head():
    bank = Bank()
    bank.predict = lambda rows: pytest.fail("nothing has taught the heads")
    scorer = EarlierScorer(bank, SCHEMA, None)
    conditioned = cosine(bank, [1, 0, 0, -1, 0], 5)
    np.testing.assert_allclose(scorer.named(5, [0], [3]), conditioned, atol=1e-6)
    assert scorer.ranked_by == BY_LIKENESS
