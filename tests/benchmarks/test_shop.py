"""The shop's baseline against a sort that is written out."""

from __future__ import annotations

import numpy as np

from benchmarks.measured_rows import ShopScorer
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (Attribute("colour", ("red", "blue", "green")), Attribute("trim", ("a", "b"), True))
)


def test_tags_that_fit_come_first_then_the_nearest():
    rng = np.random.default_rng(4)
    chances = rng.random((50, 5)).astype(np.float32)
    features = rng.normal(size=(50, 6)).astype(np.float32)
    scorer = ShopScorer(SCHEMA, chances, features)

    def key(row: int) -> tuple[int, float]:
        fits = int(chances[row, :3].argmax() == 1) + int(chances[row, 3] >= 0.5)
        fits += int(chances[row, 4] < 0.5)
        a, b = features[row], features[7]
        return -fits, -float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    ranked = np.argsort(-scorer.named(7, [1, 3], [4]), kind="stable").tolist()
    assert ranked == sorted(range(50), key=key)
    assert np.array_equal(scorer.kept(7, [0]), scorer.whole(7))
    assert np.argmax(scorer.whole(7)) == 7
