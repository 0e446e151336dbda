"""Millions of unit vectors in a mapped file, made from the real embeddings of an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.perturb import perturb_vectors
from indexer.atomic import commit, temporary_file

_CHUNK = 16_384  # rows at a time: 32 MB of 512 floats


def sphere(real: NDArray[np.float32], count: int, path: Path, seed: int = 0) -> NDArray[np.float32]:
    """The first `count` vectors of an endless list: the real ones, then perturbed ones.

    Args:
        real: unit vectors [M, d].
        count: at least 1.
        path: the file; one that is there and long enough is used as it is.
        seed: of the draws.

    Returns:
        [count, d], mapped, read-only.

    Raises:
        ResourceError: if the file cannot be written.
    """
    dim = real.shape[1]
    if not path.is_file() or path.stat().st_size < count * dim * 4:
        with temporary_file(path.parent) as temporary:
            with temporary.open("wb") as handle:
                for start in range(0, count, _CHUNK):
                    rows = np.arange(start, min(start + _CHUNK, count))
                    handle.write(vectors_of(real, rows, seed).data)
            commit(temporary, path)
    return np.memmap(path, np.float32, "r", shape=(count, dim)).view(np.ndarray)


def vectors_of(
    real: NDArray[np.float32], rows: NDArray[np.int64], seed: int
) -> NDArray[np.float32]:
    """Some consecutive vectors of the list, at most `_CHUNK` from a multiple of it: [n, d]."""
    own = torch.from_numpy(real[rows % len(real)])
    generator = np.random.default_rng([seed, int(rows[0])])
    others = torch.from_numpy(real[generator.integers(len(real), size=len(rows))])
    moved = perturb_vectors(own, others, generator).numpy()
    first = rows < len(real)
    moved[first] = real[rows[first]]
    out: NDArray[np.float32] = np.ascontiguousarray(moved)
    return out
