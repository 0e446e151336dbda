"""How a garment closes: a row of buttons, two rows, a zip, or not at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.wardrobe.canvas import Canvas, ink
from training.wardrobe.curve import points
from training.wardrobe.layout import Layout

_GAP = 0.072  # between buttons


def draw_closure(canvas: Canvas, layout: Layout, button: str, main: NDArray[np.float32]) -> None:
    """Draw a value of the attribute button between the neckline and the hem.

    Args:
        canvas: drawn upon.
        layout: of the garment.
        button: `no-button`, `single-row`, `double-breasted` or `zip`.
        main: colour of the cloth [3], that the buttons stand out from.
    """
    if button == "no-button":
        return
    top, low = layout.opening + 0.012, layout.hem + 0.008
    dark = float(main.sum()) < 330
    seam = ink(main, 0.62) if not dark else ink(main + 62)
    knob = (240, 222, 176) if dark else (48, 38, 34)
    if button == "zip":
        for x, colour in ((0.0, (62, 62, 66)), (0.0, (214, 216, 220))):
            width = 0.038 if colour[0] < 100 else 0.017
            canvas.line(points((x, top), (x, low)), colour, width)
        for y in np.arange(top, low, 0.02):
            canvas.line(points((-0.009, y), (0.009, y)), (96, 98, 104), 0.005)
        canvas.polygon(
            points((-0.018, top), (0.018, top), (0.013, top + 0.055), (-0.013, top + 0.055)),
            (232, 232, 234),
        )
        return
    heights = np.arange(top + 0.022, low - 0.02, _GAP)
    if button == "single-row":
        for x in (-0.034, 0.034):
            canvas.line(points((x, top), (x, low)), seam, 0.007)
        columns: tuple[float, ...] = (0.0,)
    else:
        start = (0.03, top - 0.02)
        canvas.line(points(start, (0.094, top + 0.08), (0.094, low)), seam, 0.007)
        columns = (-0.056, 0.056)
    for y in heights:
        for x in columns:
            canvas.disc((x, float(y)), 0.022, knob)
            canvas.disc((x - 0.005, float(y) - 0.005), 0.008, ink(np.array(knob), 1.35))
