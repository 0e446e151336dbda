import numpy as np
import pytest

from retrieval.metrics import precision_at_k, precision_ceiling, top_k
from training.errors import UsageError


@pytest.mark.parametrize("k", [1, 3, 17, 30])
def test_top_k_and_precision_equal_a_plain_sort(k):
    rng = np.random.default_rng(k)
    similarities = (rng.integers(-3, 4, size=(50, 17)) / 8).astype(np.float32)
    excluded = rng.random((50, 17)) < 0.3
    relevant = rng.random((50, 17)) < 0.4
    ids = top_k(similarities, k, excluded)
    precision = precision_at_k(similarities, relevant, k, excluded)
    for q in range(50):
        left = [i for i in range(17) if not excluded[q, i]]
        want = sorted(left, key=lambda i: (-similarities[q, i], i))[:k]
        assert ids[q].tolist() == want + [-1] * (k - len(want))
        assert precision[q] == pytest.approx(sum(relevant[q, i] for i in want) / k)


def test_precision_without_candidates_is_zero():
    empty = np.zeros((2, 0), dtype=np.float32)
    np.testing.assert_array_equal(precision_at_k(empty, empty.astype(bool), 10), [0, 0])


def test_ceiling_of_five_relevant_in_ten_is_a_half():
    np.testing.assert_allclose(precision_ceiling(np.array([0, 5, 10, 99]), 10), [0, 0.5, 1, 1])


def test_k_below_one_is_refused():
    with pytest.raises(UsageError, match="not 0"):
        top_k(np.zeros((1, 2)), 0)
    with pytest.raises(UsageError, match="not -1"):
        precision_ceiling(np.array([1]), -1)
