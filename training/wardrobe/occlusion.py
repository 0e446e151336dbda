"""What stands in front of the garment and hides some of it: hair, a bag, an arm, a phone."""

from __future__ import annotations

import numpy as np

from training.wardrobe.canvas import Canvas, ink
from training.wardrobe.curve import points, ribbon, rounded
from training.wardrobe.scene import Scene


def draw_occluder(canvas: Canvas, scene: Scene) -> None:
    """Draw the scene's occluder over the finished figure; nothing for `none`."""
    flip = np.array([scene.occluder_side, 1.0])
    shift = scene.occluder_shift
    if scene.occluder == "hair":
        lock = points(
            (0.045, 0.02),
            (0.090, 0.03),
            (0.112, 0.20),
            (0.128, 0.33 + 0.06 * shift),
            (0.075, 0.35 + 0.06 * shift),
            (0.072, 0.20),
        )
        canvas.polygon(rounded(lock) * flip, scene.hair)
        strand = points((0.080, 0.06), (0.092, 0.20), (0.100, 0.33))
        canvas.line(strand * flip, ink(np.array(scene.hair), 1.4), 0.006)
    elif scene.occluder == "bag":
        leather = np.array(scene.bottom_colour) * 0.6 + np.array([70, 30, 10])
        strap = points((-0.100, 0.178), (0.20, 0.55 + 0.05 * shift))
        canvas.line(strap * flip, ink(leather, 0.85), 0.020)
        low = 0.53 + 0.05 * shift
        bag = points((0.14, low), (0.32, low), (0.335, low + 0.15), (0.125, low + 0.15))
        canvas.polygon(bag * flip, ink(leather))
        flap = points((0.14, low), (0.32, low), (0.31, low + 0.07), (0.15, low + 0.07))
        canvas.polygon(flap * flip, ink(leather, 1.25))
    elif scene.occluder == "arm":
        y = 0.38 + 0.2 * shift
        line = points((0.56, y + 0.09), (0.36, y + 0.02), (0.17, y), (0.10, y + 0.01))
        shadow = ribbon(line + np.array([0.0, 0.008]), np.array([0.046, 0.040, 0.032, 0.026]))
        canvas.polygon(shadow * flip, ink(np.array(scene.skin), 0.6))
        canvas.polygon(ribbon(line, np.array([0.046, 0.040, 0.032, 0.026])) * flip, scene.skin)
        canvas.disc((0.10 * scene.occluder_side, y + 0.01), 0.032, scene.skin)
    elif scene.occluder == "phone":
        x, y = 0.12 + 0.05 * shift, 0.33 + 0.12 * shift
        phone = points((x, y), (x + 0.062, y - 0.01), (x + 0.070, y + 0.10), (x + 0.008, y + 0.11))
        canvas.polygon(phone * flip, (28, 28, 32))
        canvas.disc((float((x + 0.04) * flip[0]), y + 0.115), 0.036, scene.skin)
