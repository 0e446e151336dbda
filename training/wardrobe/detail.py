"""The marks by which one category is told from another, whatever its cut and cloth.

Each category keeps one or two that show at any length: a print (t-shirt), flap pockets, yoke and
tails (shirt), a sash (dress), a dark waistband (jacket), ribs (sweater), padded rows (vest), storm
flaps and big pockets (coat), a kangaroo pocket and strings (hoodie). Ribs and rows are relief of
the cloth; tails belong to the outline.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.wardrobe.canvas import Canvas, Ink, ink
from training.wardrobe.curve import Points, mirrored, oval, points
from training.wardrobe.layout import Layout
from training.wardrobe.outline import half_width

Rgb = NDArray[np.floating]
"""A colour [3], 0 to 255."""

Draw = Callable[[Canvas, Layout, str, Rgb, Rgb], None]


def draw_detail(
    canvas: Canvas,
    layout: Layout,
    category: str,
    shape: str,
    main: Rgb,
    second: Rgb,
) -> None:
    """Draw the marks of a category.

    Args:
        canvas: drawn upon.
        layout: of the garment.
        category, shape: values of these attributes.
        main, second: colours of the cloth, [3].
    """
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
        canvas.line(
            points((x * 0.11, low + 0.01), (x * half, max(layout.hem - 0.02, low + 0.01))),
            _edge(main),
            0.005,
        )
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
