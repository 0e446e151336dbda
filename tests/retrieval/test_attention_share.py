"""Attention mass inside a region, against a slow loop over the pixels of an enlarged map."""

import math

import numpy as np
import pytest

from retrieval.metrics import attention_share
from training.errors import UsageError


def slow_share(alpha: np.ndarray, mask: np.ndarray) -> float:
    """Both maps enlarged by nearest to a common number of pixels, then summed pixel by pixel."""
    tall, wide = (math.lcm(a, m) for a, m in zip(alpha.shape, mask.shape, strict=True))
    inside = total = 0.0
    for y in range(tall):
        for x in range(wide):
            mass = alpha[y * alpha.shape[0] // tall, x * alpha.shape[1] // wide]
            total += mass
            if mask[y * mask.shape[0] // tall, x * mask.shape[1] // wide]:
                inside += mass
    return inside / total


@pytest.mark.parametrize(
    ("grid", "size"),
    [((7, 7), (14, 14)), ((6, 6), (16, 16)), ((3, 5), (10, 7)), ((4, 4), (3, 2)), ((1, 1), (5, 5))],
)
def test_equals_the_slow_loop(grid, size):
    rng = np.random.default_rng(3)
    for _ in range(5):
        alpha, mask = rng.random(grid), rng.random(size) < 0.4
        assert float(attention_share(alpha, mask)) == pytest.approx(slow_share(alpha, mask))


def test_a_batch_is_one_share_a_map():
    rng = np.random.default_rng(4)
    alpha, mask = rng.random((2, 3, 6, 6)).astype(np.float32), rng.random((96, 96)) < 0.2
    shares = attention_share(alpha, mask)
    assert shares.shape == (2, 3)
    for where in np.ndindex(2, 3):
        assert shares[where] == pytest.approx(slow_share(alpha[where].astype(float), mask))


def test_even_attention_is_at_chance_and_a_hot_cell_is_all_in_or_out():
    mask = np.zeros((12, 12), dtype=bool)
    mask[:6, 6:9] = True
    assert attention_share(np.ones((5, 5)), mask) == pytest.approx(mask.mean())
    hot = np.zeros((4, 4))
    hot[0, 2] = 0.3
    assert attention_share(hot, mask) == 1.0
    assert attention_share(hot.T, mask) == 0.0
    assert attention_share(hot, np.zeros((12, 12), dtype=bool)) == 0.0


@pytest.mark.parametrize(
    ("alpha", "mask"),
    [
        (np.zeros((2, 2)), np.ones((4, 4), bool)),
        (np.array([[1.0, -1.0]]), np.ones((4, 4), bool)),
        (np.array([[1.0, np.nan]]), np.ones((4, 4), bool)),
        (np.array([1.0, 2.0]), np.ones((4, 4), bool)),
        (np.ones((2, 2)), np.ones(4, bool)),
        (np.ones((2, 2)), np.ones((0, 4), bool)),
    ],
)
def test_what_is_no_attention_or_no_mask(alpha, mask):
    with pytest.raises(UsageError):
        attention_share(alpha, mask)
