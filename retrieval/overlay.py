"""An attention map laid over the picture that it belongs to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRONGEST = 0.8
"""Opacity of the colour where attention is highest: the picture still shows through."""

_PLASMA = np.array(
    [
        *((13, 8, 135), (75, 3, 161), (125, 3, 168), (168, 34, 150), (203, 70, 121)),
        *((229, 107, 93), (248, 148, 65), (253, 195, 40), (240, 249, 33)),
    ],
    dtype=np.float64,
)
"""Nine colours of the map `plasma` (van der Walt and Smith, matplotlib, CC0), 0 to 1 in even steps:
lightness rises evenly, so that no edge appears where the attention has none."""


def overlay(picture: Image.Image, alpha: NDArray[np.floating], offset: float = 0.0) -> Image.Image:
    """Colour a picture where attention is above an even share; the rest stays as it is.

    The map is scaled to its own peak, so pictures compare in where, not in how much: `peak` tells
    that. Where attention is even everywhere: the picture.

    Args:
        picture: RGB, as the model saw it, of any size.
        alpha: attention weights [H, W] over the whole picture, at least 0.
        offset: see `receptive_offset`.
    """
    heat = smooth(strength(alpha), picture.size, offset)
    opacity = (STRONGEST * heat)[:, :, None]
    colours = np.stack(
        [np.interp(heat, np.linspace(0, 1, len(_PLASMA)), channel) for channel in _PLASMA.T], -1
    )
    mixed = (1 - opacity) * np.asarray(picture, dtype=np.float64) + opacity * colours
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def strength(alpha: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far each cell is above an even share of the attention, 1 at the peak: [H, W] in 0..1.

    Zeros for even attention, or none.
    """
    over = np.asarray(alpha, dtype=np.float64)
    over = over - over.mean()
    if over.max() <= 1e-6 * np.abs(alpha).max():
        return np.zeros_like(over)
    scaled: NDArray[np.float64] = np.maximum(over / over.max(), 0.0)
    return scaled


def peak(alpha: NDArray[np.floating]) -> float:
    """The highest weight as a multiple of an even share: 1 for even attention, H W at most."""
    return float(np.max(alpha) / np.mean(alpha))


def receptive_offset(stride: int, side: int) -> float:
    """How far up and left of an even grid's the cells' centres lie, as a share of the side.

    With odd kernels and symmetric padding, as in every backbone here, cell i looks at pixel
    `stride * i`, not at the middle of the i-th stretch of `stride` pixels; the same after cells
    are averaged in groups. Both arguments are in pixels.
    """
    return (stride - 1) / 2 / side


def smooth(
    cells: NDArray[np.float64], size: tuple[int, int], offset: float = 0.0
) -> NDArray[np.float64]:
    """Enlarge a map [H, W] to `size`, width and height, each value at the centre of its cell."""
    height, width = cells.shape
    # Framed by its own edge, so that the part that is moved in has a value.
    framed = Image.fromarray(np.pad(cells, 1, mode="edge").astype(np.float32))
    left, top = 1 + min(offset * width, 1.0), 1 + min(offset * height, 1.0)
    box = (left, top, left + width, top + height)
    enlarged = np.asarray(framed.resize(size, Image.Resampling.BICUBIC, box=box), dtype=np.float64)
    clipped: NDArray[np.float64] = enlarged.clip(0.0, 1.0)  # bicubic overshoots
    return clipped
