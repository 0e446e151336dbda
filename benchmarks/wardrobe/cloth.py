"""Cloth: colours, pattern and relief by the place on the garment; details and closures on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.wardrobe.draw import Canvas, Grid, Ink, Points, ink, mirrored, oval, points
from benchmarks.wardrobe.figure import Layout, half_width
from benchmarks.wardrobe.garment import Garment

# fmt: off
PALETTE: dict[str, tuple[int, int, int]] = {
    "black": (36, 36, 41), "white": (243, 241, 236), "grey": (141, 144, 149),
    "red": (196, 36, 44), "pink": (244, 158, 190), "yellow": (242, 201, 62),
    "green": (44, 128, 78), "blue": (44, 90, 182), "purple": (122, 66, 158),
    "brown": (118, 76, 46),
}
# fmt: on
"""Colour name -> red, green, blue."""

_LEAF = (74, 122, 62)
_PERIODS = {"striped": 0.084, "checked": 0.122, "floral": 0.115, "dotted": 0.078, "zigzag": 0.11}
_PERIODS |= {"argyle": 0.135, "solid": 0.1}
_CONTRAST = 110.0  # least distance of the two colours in RGB, so that a pattern can be seen


@dataclass(frozen=True)
class Fabric:
    """A woven pattern ready to be painted.

    `inks` are main colour, second colour and two accents, [4, 3] float32, 0 to 255; `period` in
    figure units, `phase` in periods across and along; `turned`: stripes run along; `relief`:
    `plain`, `knit` or `quilt`.
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


def _below(share: float, place: NDArray[np.floating]) -> NDArray[np.uint8]:
    inside: NDArray[np.uint8] = (np.mod(place, 1) < share).astype(np.uint8)
    return inside


def _dotted(u: Grid, v: Grid) -> NDArray[np.uint8]:
    row = np.floor(v)
    du, dv = np.mod(u + 0.5 * np.mod(row, 2), 1) - 0.5, v - row - 0.5
    return (du * du + dv * dv < 0.29**2).astype(np.uint8)


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


_WEAVES: dict[str, Callable[[Grid, Grid], NDArray[np.uint8]]] = {
    "striped": lambda u, v: _below(0.4, v),
    "checked": lambda u, v: _below(0.36, u) + _below(0.36, v),
    "floral": _floral,
    "dotted": _dotted,
    "zigzag": lambda u, v: _below(0.42, v + 0.8 * np.abs(np.mod(u, 1) - 0.5)),
    "argyle": _argyle,
}


Rgb = NDArray[np.floating]
"""A colour [3], 0 to 255."""

Draw = Callable[[Canvas, Layout, str, Rgb, Rgb], None]


def draw_detail(
    canvas: Canvas, layout: Layout, category: str, shape: str, main: Rgb, second: Rgb
) -> None:
    """Draw the marks of a category on a garment of a shape and two colours."""
    if category in _DETAILS:
        _DETAILS[category](canvas, layout, shape, main, second)


def _edge(main: Rgb) -> Ink:
    """A line that shows on the cloth: darker on light cloth, lighter on dark."""
    return ink(main, 0.55) if float(main.sum()) > 240 else ink(main + 75)


def _pair(canvas: Canvas, piece: Points, fill: Ink, edge: Ink) -> None:
    for one in (piece, mirrored(piece)):
        canvas.polygon(one, fill)
        canvas.line(one, edge, 0.006, closed=True)


def _band(layout: Layout, shape: str, top: float, low: float) -> Points:
    """A closed band across the torso between two heights."""
    half = half_width(shape, np.array([top, low])) + 0.004
    return points((-half[0], top), (half[0], top), (half[1], low), (-half[1], low))


def _t_shirt(canvas: Canvas, layout: Layout, shape: str, main: Rgb, second: Rgb) -> None:
    # Below the neckline and above the hem, as large as fits.
    radius = max(0.035, min(0.074, (layout.hem - layout.opening) / 2 - 0.008))
    y = max(0.365, layout.opening + radius + 0.006)
    y = min(y, layout.hem - radius - 0.004)
    canvas.disc((0.0, y), radius, _edge(main))
    canvas.disc((0.0, y), 0.9 * radius, ink(second))
    star = oval((0.0, y), (0.76 * radius, 0.76 * radius), 10)
    star[1::2] = 0.45 * (star[1::2] - (0.0, y)) + (0.0, y)
    canvas.polygon(star, ink(main))


def _shirt(canvas: Canvas, layout: Layout, shape: str, main: Rgb, second: Rgb) -> None:
    edge, fill = _edge(main), ink(main, 0.84)
    pocket = points((0.045, 0.318), (0.120, 0.318), (0.120, 0.392), (0.083, 0.408), (0.045, 0.392))
    _pair(canvas, pocket, fill, edge)
    flap = points((0.042, 0.312), (0.123, 0.312), (0.123, 0.330), (0.083, 0.346), (0.042, 0.330))
    _pair(canvas, flap, ink(main, 0.64), edge)
    for side in (-1.0, 1.0):
        canvas.line(points((side * 0.172, 0.248), (side * 0.10, 0.256)), edge, 0.005)


def _dress(canvas: Canvas, layout: Layout, shape: str, main: Rgb, second: Rgb) -> None:
    top = min(0.425, layout.hem - 0.06)
    low = min(top + 0.045, layout.hem)
    canvas.polygon(_band(layout, shape, top, low), ink(second))
    canvas.line(_band(layout, shape, top, low), ink(second, 0.6), 0.005, closed=True)
    half = float(half_width(shape, np.array([layout.hem]))[0])
    for x in (-0.75, -0.38, 0.38, 0.75):  # gathers of the skirt
        foot = max(layout.hem - 0.02, low + 0.01)
        canvas.line(points((x * 0.11, low + 0.01), (x * half, foot)), _edge(main), 0.005)
    knot = (0.075, (top + low) / 2)
    for dx, dy in ((-0.05, 0.035), (0.05, 0.035), (-0.028, 0.105), (0.028, 0.11)):
        x, y = knot
        loop = points((x, y - 0.012), (x + dx, y + dy - 0.02), (x + dx * 1.2, y + dy + 0.012))
        canvas.polygon(np.concatenate([loop, points((x, y + 0.012))]), ink(second, 0.86))
    canvas.disc(knot, 0.017, ink(second, 0.65))


def _jacket(canvas: Canvas, layout: Layout, shape: str, main: Rgb, second: Rgb) -> None:
    dark = _edge(main)
    band = _band(layout, shape, layout.hem - 0.05, layout.hem + 0.016)
    canvas.polygon(band, dark)
    for sleeve in layout.sleeves:
        cuff = np.concatenate(
            [sleeve.cuff, sleeve.cuff[::-1] - 0.16 * (sleeve.line[-1] - sleeve.line[-4])]
        )
        canvas.polygon(cuff, dark)
        canvas.line(sleeve.cuff, dark, 0.026)
    y = min(layout.hem - 0.15, 0.45)
    welt = points((0.062, y + 0.085), (0.108, y), (0.124, y + 0.008), (0.078, y + 0.093))
    _pair(canvas, welt, dark, dark)
    for side in (-1.0, 1.0):  # epaulettes
        tab = points((0.105, 0.176), (0.172, 0.198), (0.172, 0.226), (0.105, 0.206)) * (side, 1.0)
        canvas.polygon(tab, dark)


def _sweater(canvas: Canvas, layout: Layout, shape: str, main: Rgb, second: Rgb) -> None:
    edge = _edge(main)
    canvas.line(_band(layout, shape, layout.hem - 0.045, layout.hem - 0.045), edge, 0.007)
    for sleeve in layout.sleeves:
        canvas.line(sleeve.cuff - 0.12 * (sleeve.line[-1] - sleeve.line[0]), edge, 0.007)


def _coat(canvas: Canvas, layout: Layout, shape: str, main: Rgb, second: Rgb) -> None:
    edge = _edge(main)
    storm = points((0.106, 0.236), (0.166, 0.226), (0.164, 0.325), (0.112, 0.365), (0.072, 0.340))
    _pair(canvas, storm, ink(main, 0.80), edge)
    y = min(layout.hem - 0.11, 0.50)
    if y > 0.36:
        pocket = points((0.050, y), (0.145, y), (0.145, y + 0.095), (0.050, y + 0.095))
        _pair(canvas, pocket, ink(main, 0.80), edge)
        flap = points((0.045, y - 0.004), (0.150, y - 0.004), (0.150, y + 0.03), (0.045, y + 0.03))
        _pair(canvas, flap, ink(main, 0.58), edge)


def _hoodie(canvas: Canvas, layout: Layout, shape: str, main: Rgb, second: Rgb) -> None:
    edge = _edge(main)
    low = min(layout.hem - 0.025, 0.56)
    pocket = points((0.060, low - 0.115), (0.118, low - 0.045), (0.118, low), (0.0, low))
    pouch = np.concatenate([pocket, mirrored(pocket)[::-1]])
    canvas.polygon(pouch, ink(main, 0.70))
    canvas.line(pouch, edge, 0.007, closed=True)
    for side in (-1.0, 1.0):
        y = min(layout.opening, 0.30)  # a deep neckline has them hang from its sides
        canvas.line(points((side * 0.034, y), (side * 0.038, y + 0.12)), (236, 234, 228), 0.016)
        canvas.disc((side * 0.038, y + 0.122), 0.013, (120, 120, 124))


_DETAILS: dict[str, Draw] = {
    "t-shirt": _t_shirt,
    "shirt": _shirt,
    "dress": _dress,
    "jacket": _jacket,
    "sweater": _sweater,
    "coat": _coat,
    "hoodie": _hoodie,
}


_GAP = 0.072  # between buttons


def draw_closure(canvas: Canvas, layout: Layout, button: str, main: NDArray[np.float32]) -> None:
    """Draw a value of the attribute button between the neckline and the hem, to stand out from
    cloth of the colour `main` [3]."""
    if button == "no-button":
        return
    top, low = layout.opening + 0.012, layout.hem + 0.008
    dark = float(main.sum()) < 330
    seam = ink(main, 0.62) if not dark else ink(main + 62)
    knob = (240, 222, 176) if dark else (48, 38, 34)
    if button == "zip":
        canvas.line(points((0.0, top), (0.0, low)), (62, 62, 66), 0.038)
        canvas.line(points((0.0, top), (0.0, low)), (214, 216, 220), 0.017)
        for y in np.arange(top, low, 0.02):
            canvas.line(points((-0.009, y), (0.009, y)), (96, 98, 104), 0.005)
        puller = points((-0.018, top), (0.018, top), (0.013, top + 0.055), (-0.013, top + 0.055))
        canvas.polygon(puller, (232, 232, 234))
        return
    if button == "single-row":
        for x in (-0.034, 0.034):
            canvas.line(points((x, top), (x, low)), seam, 0.007)
        columns: tuple[float, ...] = (0.0,)
    else:
        start = (0.03, top - 0.02)
        canvas.line(points(start, (0.094, top + 0.08), (0.094, low)), seam, 0.007)
        columns = (-0.056, 0.056)
    for y in np.arange(top + 0.022, low - 0.02, _GAP):
        for x in columns:
            canvas.disc((x, float(y)), 0.022, knob)
            canvas.disc((x - 0.005, float(y) - 0.005), 0.008, ink(np.array(knob), 1.35))
