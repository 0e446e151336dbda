"""Box and landmarks of a garment in a picture, as DeepFashion annotates them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.wardrobe.curve import Points, points
from training.wardrobe.layout import Layout, lay_out
from training.wardrobe.outline import SHOULDER_X, SHOULDER_Y, WAIST_Y, half_width
from training.wardrobe.regions import garment_outlines, rasterise
from training.wardrobe.spec import Spec

LANDMARKS = ("collar", "sleeve", "waistline", "hem")
"""Each is a pair: first the picture's left, then its right."""


@dataclass(frozen=True)
class Located:
    """Where a garment is in a picture.

    Args:
        box: x1 y1 x2 y2 of the garment in pixels, inclusive.
        landmarks: of each pair in `LANDMARKS` two entries (visibility, x, y): visibility 0 in the
            picture, 2 cut off by its edge (x and y are then clipped). An occluder in front of a
            landmark is not taken into account, so 1 does not occur.
    """

    box: tuple[int, int, int, int]
    landmarks: tuple[tuple[int, int, int], ...]


def locate(spec: Spec, size: int) -> Located:
    """Work out the box and the eight landmarks of a spec drawn at `size` pixels."""
    layout, matrix = lay_out(spec.garment, spec.pose), spec.pose.matrix()
    y, x = np.nonzero(rasterise(garment_outlines(layout), matrix, size))
    box = (int(x.min()), int(y.min()), int(x.max()), int(y.max()))
    places = size * (_landmarks(layout, spec.garment.shape) @ matrix[:, :2].T + matrix[:, 2])
    marks = []
    for place in places:
        cut = bool(np.any(place < 0) or np.any(place > size - 1))
        px, py = np.clip(np.rint(place), 0, size - 1).astype(int).tolist()
        marks.append((2 if cut else 0, px, py))
    return Located(box, tuple(marks))


def _landmarks(layout: Layout, shape: str) -> Points:
    """Eight points [8, 2]; a sleeveless garment's sleeves end at its shoulders."""
    waist = min(WAIST_Y, layout.hem)
    half_waist, half_hem = half_width(shape, np.array([waist, layout.hem])).tolist()
    shoulders = points((-SHOULDER_X, SHOULDER_Y), (SHOULDER_X, SHOULDER_Y))
    cuffs = [sleeve.cuff.mean(axis=0) for sleeve in layout.sleeves]
    return np.concatenate(
        [
            layout.neckline[[0, -1]],
            np.stack(cuffs) if cuffs else shoulders,
            points((-half_waist, waist), (half_waist, waist)),
            points((-half_hem, layout.hem), (half_hem, layout.hem)),
        ]
    )
