"""Cloth: its colours, its pattern and its relief, as functions of the place on the garment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.wardrobe.canvas import Grid
from training.wardrobe.garment import Garment

PALETTE: dict[str, tuple[int, int, int]] = {
    "black": (36, 36, 41),
    "white": (243, 241, 236),
    "grey": (141, 144, 149),
    "red": (196, 36, 44),
    "pink": (244, 158, 190),
    "yellow": (242, 201, 62),
    "green": (44, 128, 78),
    "blue": (44, 90, 182),
    "purple": (122, 66, 158),
    "brown": (118, 76, 46),
}
"""Colour name -> red, green, blue."""

_LEAF = (74, 122, 62)
_PERIODS = {"striped": 0.084, "checked": 0.122, "floral": 0.115, "dotted": 0.078, "zigzag": 0.11}
_PERIODS |= {"argyle": 0.135, "solid": 0.1}
_CONTRAST = 110.0  # least distance of the two colours in RGB, so that a pattern can be seen


@dataclass(frozen=True)
class Fabric:
    """A woven pattern ready to be painted.

    Args:
        pattern: value of the attribute pattern.
        inks: main colour, second colour and two accents, [4, 3] float32, 0 to 255.
        period: of the pattern, figure units.
        phase: offset across and along, periods.
        turned: whether stripes run along.
        relief: `plain`, `knit` or `quilt`.
    """

    pattern: str
    inks: NDArray[np.float32]
    period: float
    phase: tuple[float, float]
    turned: bool
    relief: str


def fabric_of(garment: Garment) -> Fabric:
    """The cloth that a garment is cut from."""
    main = np.clip(np.array(PALETTE[garment.colour]) + np.array(garment.tint), 0, 255)
    second = second_ink(garment)
    accents = [second, second]
    if garment.pattern == "checked":
        accents = [(main + second) / 2, second]
    inks = [main, *accents, np.array(_LEAF)]
    if garment.pattern == "floral":
        inks[2] = np.array(PALETTE["yellow" if garment.second_colour != "yellow" else "brown"])
    elif garment.pattern == "argyle":
        inks[2] = (main + 2.0 * (255.0 if main.sum() < 380 else 0.0)) / 3
    relief = {"sweater": "knit", "vest": "quilt"}.get(garment.category, "plain")
    return Fabric(
        garment.pattern,
        np.array(inks, dtype=np.float32),
        _PERIODS[garment.pattern] * garment.pattern_scale,
        garment.pattern_phase,
        garment.pattern_turned,
        relief,
    )


def second_ink(garment: Garment) -> NDArray[np.float64]:
    """The second colour [3], replaced by white or black where it is too near the main one."""
    main = np.array(PALETTE[garment.colour], dtype=np.float64)
    second = np.array(PALETTE[garment.second_colour], dtype=np.float64)
    if np.linalg.norm(main - second) < _CONTRAST:
        second = np.array(PALETTE["white" if main.sum() < 380 else "black"], dtype=np.float64)
    return second


def weave(fabric: Fabric, across: Grid, along: Grid) -> NDArray[np.float32]:
    """Colours [h, w, 3] float32, 0 to 255, of a cloth at places across and along a part."""
    if fabric.pattern == "solid":
        return np.broadcast_to(fabric.inks[0], (*across.shape, 3))
    if fabric.turned:
        across, along = along, across
    u = across * np.float32(1 / fabric.period) + np.float32(fabric.phase[0])
    v = along * np.float32(1 / fabric.period) + np.float32(fabric.phase[1])
    woven: NDArray[np.float32] = fabric.inks[_WEAVES[fabric.pattern](u, v)]
    return woven


def relief(kind: str, across: Grid, along: Grid) -> Grid:
    """Brightness factor [h, w] of ribs (`knit`), padded rows (`quilt`) or nothing (`plain`)."""
    if kind == "knit":
        return np.where(np.mod(across, 0.042) < 0.015, np.float32(0.66), np.float32(1.05))
    if kind == "quilt":
        row = np.abs(np.sin(np.float32(np.pi / 0.088) * along))
        padded: Grid = np.float32(0.58) + np.float32(0.5) * np.sqrt(row)
        return padded
    return np.ones((1, 1), dtype=np.float32)


def _striped(u: Grid, v: Grid) -> NDArray[np.uint8]:
    return (np.mod(v, 1) < 0.4).astype(np.uint8)


def _checked(u: Grid, v: Grid) -> NDArray[np.uint8]:
    return (np.mod(u, 1) < 0.36).astype(np.uint8) + (np.mod(v, 1) < 0.36).astype(np.uint8)


def _dotted(u: Grid, v: Grid) -> NDArray[np.uint8]:
    row = np.floor(v)
    du, dv = np.mod(u + 0.5 * np.mod(row, 2), 1) - 0.5, v - row - 0.5
    return (du * du + dv * dv < 0.29**2).astype(np.uint8)


def _zigzag(u: Grid, v: Grid) -> NDArray[np.uint8]:
    return (np.mod(v + 0.8 * np.abs(np.mod(u, 1) - 0.5), 1) < 0.42).astype(np.uint8)


def _argyle(u: Grid, v: Grid) -> NDArray[np.uint8]:
    du, dv = np.abs(np.mod(u, 1) - 0.5), np.abs(np.mod(0.75 * v, 1) - 0.5)
    index: NDArray[np.uint8] = (du + dv < 0.43).astype(np.uint8)
    index[np.abs(np.abs(np.mod(u + 0.5, 1) - 0.5) + dv - 0.5) < 0.04] = 2
    return index


def _floral(u: Grid, v: Grid) -> NDArray[np.uint8]:
    row = np.floor(v)
    shifted = u + 0.5 * np.mod(row, 2)
    column = np.floor(shifted)
    luck = np.mod(column * 0.731 + row * 0.417, 1)  # shifts and turns each flower on its own
    du = shifted - column - 0.5 - 0.16 * (luck - 0.5)
    dv = v - row - 0.5 + 0.16 * (luck - 0.5)
    radius = np.sqrt(du * du + dv * dv)
    petals = 0.31 + 0.11 * np.cos(5 * np.arctan2(dv, du) + 6.28 * luck)
    eu, ev = np.mod(shifted + 0.5, 1) - 0.5, dv
    leaf = ((eu + ev) / 0.24) ** 2 + ((eu - ev) / 0.09) ** 2 < 1
    index = np.where(leaf, np.uint8(3), np.uint8(0))
    index[radius < petals] = 1
    index[radius < 0.13] = 2
    return index


_WEAVES = {
    "striped": _striped,
    "checked": _checked,
    "floral": _floral,
    "dotted": _dotted,
    "zigzag": _zigzag,
    "argyle": _argyle,
}
