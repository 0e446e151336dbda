"""How much of an attention map lies in a region whose outline is known in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.errors import UsageError


def attention_share(alpha: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the attention mass that is inside a region.

    The mass of a cell is spread evenly over the cell, so a cell counts by the share of it that is
    region. Uniform attention therefore gives the region's share of the area: chance.

    Args:
        alpha: attention weights [*, H, W], at least 0, in maps that need not sum to 1.
        mask: the region [S, S'] bool, in the picture as the model saw it.

    Returns:
        [*] float64 in 0..1, one share a map (0-dimensional for one map).

    Raises:
        UsageError: wrong dimensions, or a map with no mass or with negative or non-finite weights.
    """
    weights = np.asarray(alpha, dtype=np.float64)
    if weights.ndim < 2:
        raise UsageError(f"attention weights must be [*, H, W], got shape {weights.shape}")
    mass = weights.sum(axis=(-2, -1))
    if not (np.isfinite(mass).all() and (weights >= 0).all() and (mass > 0).all()):
        raise UsageError("attention weights must be finite, at least 0, and not all 0 in a map")
    cells = cell_shares(mask, (weights.shape[-2], weights.shape[-1]))
    shares: NDArray[np.float64] = (weights * cells).sum(axis=(-2, -1)) / mass
    return np.asarray(np.minimum(shares, 1.0))


def cell_shares(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Share of each cell of a grid laid over a picture that is region.

    Args:
        mask: [S, S'] bool; cells need not be whole numbers of pixels.
        grid: (H, W) cells.

    Returns:
        [H, W] float64 in 0..1.

    Raises:
        UsageError: if the mask is not a picture of at least one pixel.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise UsageError(f"a mask must be [S, S], got shape {mask.shape}")
    rows, columns = _overlap(grid[0], mask.shape[0]), _overlap(grid[1], mask.shape[1])
    shares: NDArray[np.float64] = rows @ mask.astype(np.float64) @ columns.T
    return shares


def _overlap(cells: int, pixels: int) -> NDArray[np.float64]:
    """Share of each cell's side that each pixel covers, [cells, pixels]; rows sum to 1."""
    edges = np.arange(cells + 1) * (pixels / cells)
    left, right = edges[:-1, None], edges[1:, None]
    start = np.arange(pixels)
    covered = np.minimum(right, start + 1) - np.maximum(left, start)
    shares: NDArray[np.float64] = np.maximum(covered, 0.0) * (cells / pixels)
    return shares
