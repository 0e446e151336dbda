"""Presence, combination and order of hits against plain loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.ranking import PRESENCE_WEIGHT, best, combine, presence


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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 10, 39, 40, 41, 1000])
def test_best_sorts_by_score_and_settles_ties_by_place(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    steps = generator.integers(-15, 15, 40)  # few different scores, so many ties
    expected = sorted(range(40), key=lambda place: (-steps[place], place))[:k]
    scores = (steps / 10).astype(np.float32)
    np.testing.assert_array_equal(best(scores, k), expected)
    # Scores that differ in the last bit of float32 are ties too.
    noisy = np.nextafter(scores, generator.choice([-9, 9], 40).astype(np.float32))
    assert (noisy != scores).all()
    np.testing.assert_array_equal(best(noisy, k), expected)


def test_best_of_nothing() -> None:
    assert best(np.zeros(0, dtype=np.float32), 5).tolist() == []
    assert best(np.array([0.5], dtype=np.float32), 5).tolist() == [0]
