"""Unit vectors as galleries give them: clusters in a few directions, and noise."""

import numpy as np
from numpy.typing import NDArray


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
