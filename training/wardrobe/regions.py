"""Where each attribute is to be seen: one mask an attribute.

Category, colour, pattern and shape are read off the whole garment; the others off a part of it.
A region is that of the part itself: what an occluder hides still belongs to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.wardrobe.curve import Points, oval, points, ribbon
from training.wardrobe.garment import Garment
from training.wardrobe.layout import Layout
from training.wardrobe.outline import half_width
from training.wardrobe.vocabulary import ATTRIBUTES

Mask = NDArray[np.bool_]
"""[size, size] bool, true inside the region."""

_WHOLE = ("category", "colour", "pattern", "shape")


def garment_outlines(layout: Layout) -> list[Points]:
    """The outlines that together cover the garment."""
    outlines = [layout.torso, *(s.outline for s in layout.sleeves), *layout.collar]
    return outlines if layout.hood is None else [*outlines, layout.hood]


def regions(garment: Garment, layout: Layout, matrix: Points, size: int) -> dict[str, Mask]:
    """The mask of every attribute.

    Args:
        garment: whose attributes they are.
        layout: its geometry.
        matrix: `Pose.matrix()`, [2, 3].
        size: side of the picture in pixels.

    Returns:
        Attribute name -> mask, in the order of `ATTRIBUTES`. Without sleeves the region of
        sleeve-shape is that of sleeve-length: the bare arms.
    """
    parts = {
        "button": [_strip(layout)],
        "length": [_hem(garment, layout)],
        "collar-shape": _neck(layout),
        "sleeve-length": [_arm(line) for line in layout.arms] + [s.outline for s in layout.sleeves],
    }
    parts["sleeve-shape"] = [s.outline for s in layout.sleeves] or parts["sleeve-length"]
    whole = rasterise(garment_outlines(layout), matrix, size)
    return {
        name: whole.copy() if name in _WHOLE else rasterise(parts[name], matrix, size)
        for name in ATTRIBUTES
    }


def rasterise(outlines: list[Points], matrix: Points, size: int) -> Mask:
    """The union of closed outlines in figure units as a mask [size, size]."""
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    for outline in outlines:
        xy = size * (outline @ matrix[:, :2].T + matrix[:, 2])
        draw.polygon(xy.ravel().tolist(), fill=1)
    return np.asarray(image, dtype=np.uint8).astype(bool)


def _strip(layout: Layout) -> Points:
    """The middle of the front, wide enough for two rows of buttons."""
    top, low = layout.opening - 0.01, layout.hem + 0.015
    return points((-0.095, top), (0.095, top), (0.095, low), (-0.095, low))


def _hem(garment: Garment, layout: Layout) -> Points:
    """A band about the hem, a little wider than the garment."""
    half = float(half_width(garment.shape, np.array([layout.hem]))[0]) + 0.03
    top, low = layout.hem - 0.06, layout.hem + 0.05
    return points((-half, top), (half, top), (half, low), (-half, low))


def _neck(layout: Layout) -> list[Points]:
    """The neck opening with its edge, and the pieces of the collar."""
    centre = layout.neckline.mean(axis=0)
    opening = (layout.neckline - centre) * (1.2, 1.25) + centre
    collar = [opening, oval((0.0, 0.175), (0.09, 0.045)), *layout.collar]
    return collar if layout.hood is None else [*collar, layout.hood]


def _arm(line: Points) -> Points:
    return ribbon(line, np.linspace(0.060, 0.040, len(line)))
