"""Presence and combination against plain loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.ranking import PRESENCE_WEIGHT, combine, presence


def loop_presence(chances, present, absent, labels=None):
    out = []
    for row in range(len(chances)):
        product = 1.0
        for value, wanted in [(v, True) for v in present] + [(v, False) for v in absent]:
            chance = float(chances[row, value])
            if labels is not None and labels[row, value] != 0:
                chance = 1.0 if labels[row, value] > 0 else 0.0
            product *= chance if wanted else 1.0 - chance
        out.append(product)
    return out


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize(
    ("present", "absent"), [([3], []), ([], [0]), ([1, 4], [2]), ([5, 0, 2], [1, 3]), ([], [])]
)
def test_presence_is_the_product_over_the_named_values(dtype, with_labels, present, absent) -> None:
    generator = np.random.default_rng(len(present) * 7 + len(absent))
    chances = generator.random((40, 6)).astype(dtype)
    labels = generator.integers(-1, 2, (40, 6)).astype(np.int8) if with_labels else None
    before = chances.copy()
    found = presence(chances, present, absent, labels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, loop_presence(chances, present, absent, labels), atol=1e-6)
    np.testing.assert_array_equal(chances, before)  # a mapped store must not be written to


def test_known_labels_settle_presence_whatever_is_predicted() -> None:
    chances = np.array([[0.01, 0.99], [0.99, 0.01]], dtype=np.float32)
    labels = np.array([[1, -1], [0, 0]], dtype=np.int8)
    assert presence(chances, [0], [1], labels)[0] == 1
    assert presence(chances, [1], [], labels)[0] == 0
    np.testing.assert_allclose(presence(chances, [0], [1], labels)[1], 0.99 * 0.99, rtol=1e-5)


def test_combine_adds_the_weighted_presence() -> None:
    generator = np.random.default_rng(1)
    likeness = generator.uniform(-1, 1, 50).astype(np.float32)
    sure = generator.random(50).astype(np.float32)
    expected = [float(a) + PRESENCE_WEIGHT * float(b) for a, b in zip(likeness, sure, strict=True)]
    np.testing.assert_allclose(combine(likeness, sure), expected, atol=1e-6)
    np.testing.assert_array_equal(combine(likeness, None), likeness)
