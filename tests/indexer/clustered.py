"""Unit vectors as galleries give them: clusters in a few directions, and noise."""

import numpy as np
from numpy.typing import NDArray

from indexer.view import View


def clustered(rows: int, dim: int = 32, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors [rows, dim] float32."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, dim))
    vectors = centres[random.integers(0, 20, rows)] + random.normal(size=(rows, dim)) * 0.7
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def brute(
    vectors: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best by sorting (-rounded cosine, row), the slow and obvious way."""
    cosines = (vectors * query).sum(1)
    rounded = np.round(cosines, 6).tolist()
    rows = sorted(range(len(vectors)), key=lambda row: (-rounded[row], row))[:k]
    return cosines[rows], np.array(rows)


def assert_is_brute(view: View, queries: NDArray[np.float32], k: int) -> None:
    """Rows and cosines are those of sorting, to the last bit."""
    scores, rows = view.search(queries, k)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    for query, own, found in zip(queries, scores, rows, strict=True):
        expected, which = brute(view.vectors, query, k)
        np.testing.assert_array_equal(found, which)
        np.testing.assert_array_equal(own, expected)
