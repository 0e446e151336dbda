"""Cut a dataset into train, valid and test so that no item straddles two of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import SPLITS


def grouped_split(
    groups: NDArray[np.int64],
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> NDArray[np.str_]:
    """Assign every row to a split, all rows of a group to the same one.

    Groups are dealt out from the largest to the smallest, those of one size in an order drawn
    from `seed`, each to the split that stays the least filled; so big items spread like small
    ones and the shares are met as closely as the groups allow.

    Args:
        groups: number of the item of each row [N], any integers.
        shares: shares of train, valid and test, positive.
        seed: seed of the order among groups of one size.

    Returns:
        `train`, `valid` or `test` for each row, [N] unicode. With fewer than ten groups valid and
        test can stay empty: the largest share is served first.
    """
    unique, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(unique))
    order = np.lexsort((shuffled, -sizes))
    quota = [share * len(groups) for share in shares]
    filled = [0, 0, 0]
    split_of_group = np.empty(len(unique), dtype=np.int64)
    for group in order:
        size = int(sizes[group])
        chosen = min(range(3), key=lambda s: (filled[s] + size) / quota[s])
        filled[chosen] += size
        split_of_group[group] = chosen
    return np.array(SPLITS)[split_of_group[inverse.reshape(-1)]]


def numbered(names: list[str]) -> NDArray[np.int64]:
    """Number of each name in order of first appearance; each empty name is one of its own."""
    numbers: dict[str | int, int] = {}
    keys = ((name or row) for row, name in enumerate(names))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
