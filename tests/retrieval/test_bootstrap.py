import numpy as np
import pytest

from retrieval.metrics import bootstrap_interval
from training.errors import UsageError


def test_equals_a_plain_loop_over_resamples():
    rng = np.random.default_rng(0)
    values, groups = rng.random(40), rng.integers(0, 9, size=40) * 1000
    got = bootstrap_interval(values, groups, seed=5, resamples=200, confidence=0.9)
    names = np.unique(groups)
    drawn = np.random.default_rng(5).integers(0, len(names), size=(200, len(names)))
    means = [np.concatenate([values[groups == names[g]] for g in row]).mean() for row in drawn]
    assert got.low == pytest.approx(np.quantile(means, 0.05))
    assert got.high == pytest.approx(np.quantile(means, 0.95))


def test_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    got = bootstrap_interval(values, seed=0, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert got.low == pytest.approx(values.mean() - half, abs=0.02)
    assert got.high == pytest.approx(values.mean() + half, abs=0.02)


def test_repeated_queries_of_one_image_do_not_narrow_the_interval():
    values = np.random.default_rng(2).random(100)
    alone = bootstrap_interval(values, seed=0)
    repeated = bootstrap_interval(np.repeat(values, 5), np.repeat(np.arange(100), 5), seed=0)
    assert repeated.low == pytest.approx(alone.low)
    assert repeated.high == pytest.approx(alone.high)


def test_a_weight_counts_as_that_many_queries_of_the_same_image():
    rng = np.random.default_rng(4)
    values, groups, times = rng.random(30), rng.integers(0, 9, 30), rng.integers(1, 4, 30)
    weighted = bootstrap_interval(values, groups, times.astype(np.float64), seed=0)
    repeated = bootstrap_interval(np.repeat(values, times), np.repeat(groups, times), seed=0)
    assert weighted.low == pytest.approx(repeated.low)
    assert weighted.high == pytest.approx(repeated.high)


def test_seeded_and_one_value():
    values = np.random.default_rng(3).random(30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    one = bootstrap_interval(np.array([0.25]))
    assert (one.low, one.high) == (0.25, 0.25)


def test_refusals():
    with pytest.raises(UsageError, match="at least one value"):
        bootstrap_interval(np.array([]))
    with pytest.raises(UsageError, match="confidence"):
        bootstrap_interval(np.ones(3), confidence=1.0)
    with pytest.raises(UsageError, match="groups of shape"):
        bootstrap_interval(np.ones(3), np.zeros(2, dtype=np.int64))
