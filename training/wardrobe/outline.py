"""The outline of a garment's torso: necklines, sides by shape, hem by length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.wardrobe.curve import Points, points

NECK_X, NECK_Y = 0.058, 0.165
SHOULDER_X, SHOULDER_Y = 0.178, 0.205
ARMPIT_Y, WAIST_Y = 0.31, 0.45

HEM_Y = {
    "cropped": 0.43,
    "hip-length": 0.565,
    "thigh-length": 0.685,
    "knee-length": 0.805,
    "ankle-length": 0.92,
}
"""Length -> y of the hem, figure units."""

_SIDE_Y = (ARMPIT_Y, WAIST_Y, 0.58, 0.81, 0.95)
_SIDES = {
    "slim-fit": (0.150, 0.118, 0.152, 0.135, 0.125),
    "straight-fit": (0.160, 0.162, 0.170, 0.176, 0.180),
    "a-line": (0.146, 0.192, 0.262, 0.345, 0.385),
    "loose-fit": (0.202, 0.224, 0.222, 0.206, 0.196),
}
"""Shape -> half-width of the garment at `_SIDE_Y`."""

_NECKLINES = {
    "round-neckline": ("arc", 0.088, 0.075),
    "v-neckline": ("v", 0.090, 0.165),
    "shirt-collar": ("v", 0.066, 0.065),
    "turtleneck": ("arc", 0.058, 0.012),
    "hood": ("arc", 0.078, 0.055),
    "lapel-collar": ("v", 0.078, 0.215),
    "square-neckline": ("square", 0.098, 0.100),
    "boat-neckline": ("arc", 0.146, 0.030),
}
"""Collar shape -> form, half-width at the shoulder seam, depth below it."""


def half_width(shape: str, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-width of a garment of `shape` at heights `y` [n] at or below the armpit, [n]."""
    return np.interp(y, _SIDE_Y, _SIDES[shape])


def neckline(collar: str) -> Points:
    """The edge of the neck opening, [n, 2] from left to right."""
    form, half, depth = _NECKLINES[collar]
    top = NECK_Y + (half - NECK_X) / (SHOULDER_X - NECK_X) * (SHOULDER_Y - NECK_Y)
    if form == "v":
        return points((-half, top), (0.0, top + depth), (half, top))
    if form == "square":
        low = top + depth
        return points((-half, top), (-0.93 * half, low), (0.93 * half, low), (half, top))
    angle = np.linspace(0.0, np.pi, 13)
    return np.column_stack([-half * np.cos(angle), top + depth * np.sin(angle)])


def torso(shape: str, length: str, collar: str, tails: bool) -> Points:
    """The closed outline of the garment without sleeves and collar, [n, 2].

    Args:
        shape: value of the attribute shape.
        length: value of length.
        collar: value of collar-shape.
        tails: whether the hem is cut in shirt tails, lower at front than at the sides.
    """
    hem = HEM_Y[length]
    y = np.linspace(ARMPIT_Y, hem, 9)
    side = np.column_stack([half_width(shape, y), y])
    half = float(side[-1, 0])
    x = np.linspace(half, -half, 27)[1:-1]
    sag = 0.018 * (1 - (x / half) ** 2)
    if tails:
        # High at the sides, so that the tails show at any length.
        sag = 0.045 * np.cos(np.pi * (np.abs(x) / half) ** 1.5)
        side[-1, 1] -= 0.045
    elif shape == "a-line":
        sag = sag + 0.011 * np.cos(np.pi * 5 * x / half)  # a flared hem falls in waves
    bottom = np.column_stack([x, hem + sag])
    shoulder = points((SHOULDER_X, SHOULDER_Y), (0.165, 0.26))
    right = np.concatenate([shoulder, side])
    left = (right * np.array([-1.0, 1.0]))[::-1]
    return np.concatenate([neckline(collar), right, bottom, left])
