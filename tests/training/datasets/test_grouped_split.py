"""Cutting by group."""

import numpy as np
import pytest

from training.datasets.labels import grouped_split


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together_and_shares_are_met(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.zipf(1.6, 2000).clip(max=150).astype(np.int64)
    splits = grouped_split(groups, seed=seed)
    for group in np.unique(groups):
        assert len(set(splits[groups == group])) == 1
    largest = np.unique(groups, return_counts=True)[1].max()
    for name, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert abs((splits == name).sum() - share * len(groups)) <= max(largest, 2)


def test_single_rows_are_cut_exactly_and_by_seed() -> None:
    groups = np.arange(100)
    splits = grouped_split(groups)
    assert [(splits == s).sum() for s in ("train", "valid", "test")] == [80, 10, 10]
    assert (grouped_split(groups) == splits).all()
    assert (grouped_split(groups, seed=1) != splits).any()


def test_a_giant_goes_to_train_and_few_groups_leave_the_rest_empty() -> None:
    giant = grouped_split(np.array([0] * 90 + list(range(1, 11))))
    assert set(giant[:90]) == {"train"}
    assert set(giant) == {"train", "valid", "test"}
    assert grouped_split(np.array([4, 4, 4])).tolist() == ["train"] * 3
    assert grouped_split(np.array([], dtype=np.int64)).tolist() == []
