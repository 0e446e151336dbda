import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from retrieval.metrics import average_precision, expected_average_precision
from training.errors import DataError, UsageError


def loop_ap(similarities, relevant, excluded):
    """One query, by the book: sort by (-similarity, id), walk down, average precision at hits."""
    ids = [i for i in range(len(similarities)) if not excluded[i]]
    ids.sort(key=lambda i: (-similarities[i], i))
    hits, precisions = 0, []
    for rank, i in enumerate(ids, start=1):
        if relevant[i]:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / len(precisions) if precisions else 0.0


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_equals_scikit_learn_without_ties(share):
    rng = np.random.default_rng(1)
    # Distinct float32 values of both signs, so that scikit-learn's handling of ties is not met.
    similarities = np.stack([rng.permutation(301) - 150.0 for _ in range(40)]).astype(np.float32)
    relevant = rng.random(similarities.shape) < share
    relevant[:, 7] = True
    got = average_precision(similarities, relevant)
    want = [average_precision_score(r, s) for r, s in zip(relevant, similarities, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("cells", [1, 97, 1 << 22])
def test_equals_a_plain_loop_with_ties_exclusion_and_any_block_size(levels, cells, monkeypatch):
    monkeypatch.setattr("retrieval.metrics._CELLS_AT_ONCE", cells)
    rng = np.random.default_rng(levels)
    similarities = rng.integers(0, levels, size=(60, 23)) / 4 - 0.5
    relevant = rng.random((60, 23)) < 0.3
    relevant[:3] = False
    excluded = rng.random((60, 23)) < 0.2
    excluded[5] = True
    got = average_precision(similarities, relevant, excluded)
    want = [loop_ap(s, r, e) for s, r, e in zip(similarities, relevant, excluded, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_array_equal(got[:3], 0)
    assert got[5] == 0


def test_one_relevant_item_scores_one_over_its_rank():
    similarities = np.tile(np.arange(5, 0, -1, dtype=np.float32), (5, 1))
    got = average_precision(similarities, np.eye(5, dtype=bool))
    np.testing.assert_allclose(got, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])


def test_ties_go_to_the_lower_id():
    similarities = np.zeros((2, 3), dtype=np.float32)
    relevant = np.array([[True, False, False], [False, False, True]])
    np.testing.assert_allclose(average_precision(similarities, relevant), [1, 1 / 3])


def test_minus_zero_ties_with_zero_and_infinities_are_in_order():
    similarities = np.array([[-0.0, 0.0, -np.inf, np.inf]], dtype=np.float32)
    order = [average_precision(similarities, np.eye(4, dtype=bool)[[i]])[0] for i in range(4)]
    np.testing.assert_allclose(order, [1 / 2, 1 / 3, 1 / 4, 1])


def test_an_excluded_relevant_candidate_does_not_count():
    similarities = np.array([[0.9, 0.5, 0.1]], dtype=np.float32)
    relevant = np.array([[True, False, True]])
    excluded = np.array([[True, False, False]])
    np.testing.assert_allclose(average_precision(similarities, relevant, excluded), [1 / 2])


def test_no_candidates_and_no_queries():
    empty = np.zeros((3, 0), dtype=np.float32)
    np.testing.assert_array_equal(average_precision(empty, empty.astype(bool)), np.zeros(3))
    none = np.zeros((0, 4), dtype=np.float32)
    assert average_precision(none, none.astype(bool)).shape == (0,)


def test_nan_and_wrong_shapes_are_refused():
    similarities = np.array([[0.1, np.nan]])
    with pytest.raises(DataError, match="1 of 2 similarities are NaN"):
        average_precision(similarities, np.ones((1, 2), dtype=bool))
    with pytest.raises(UsageError, match=r"\(1, 3\)"):
        average_precision(np.zeros((1, 2)), np.ones((1, 3), dtype=bool))


@pytest.mark.parametrize(("relevant", "candidates"), [(1, 1), (1, 9), (3, 9), (8, 9), (40, 200)])
def test_chance_equals_monte_carlo(relevant, candidates):
    rng = np.random.default_rng(relevant)
    trials = 20_000
    labels = np.zeros((trials, candidates), dtype=bool)
    labels[:, :relevant] = True
    samples = average_precision(rng.random((trials, candidates), dtype=np.float32), labels)
    (expected,) = expected_average_precision(np.array([relevant]), np.array([candidates]))
    error = samples.std() / np.sqrt(trials)
    assert abs(samples.mean() - expected) <= 4 * error + 1e-12


def test_chance_at_the_ends():
    got = expected_average_precision(np.array([0, 0, 7, 1]), np.array([0, 5, 7, 2]))
    np.testing.assert_allclose(got, [0, 0, 1, 0.75])


@pytest.mark.parametrize(("relevant", "candidates"), [([3], [2]), ([-1], [2]), ([1, 2], [3])])
def test_chance_refuses_impossible_counts(relevant, candidates):
    with pytest.raises(UsageError):
        expected_average_precision(np.array(relevant), np.array(candidates))
