"""The wearer: head, neck, trunk, arms, legs and what is worn below the garment."""

from __future__ import annotations

import numpy as np

from training.wardrobe.canvas import Canvas, Ink, ink
from training.wardrobe.curve import Points, mirrored, oval, points, ribbon, rounded
from training.wardrobe.scene import Scene

_TRUNK = points(
    (0.046, 0.12),
    (0.050, 0.165),
    (0.155, 0.198),
    (0.170, 0.230),
    (0.140, 0.310),
    (0.108, 0.450),
    (0.140, 0.560),
    (0.138, 0.640),
)
_LEG = points(
    (0.002, 0.600), (0.140, 0.580), (0.118, 0.780), (0.082, 0.960), (0.036, 0.960), (0.022, 0.780)
)


def draw_back_hair(canvas: Canvas, scene: Scene) -> None:
    """The hair behind neck and shoulders."""
    length = 0.27 if scene.long_hair else 0.10
    width = 0.105 if scene.long_hair else 0.092
    half = points(
        (0.0, -0.07), (0.09, -0.06), (width, 0.05), (width * 1.04, length), (0.02, length)
    )
    canvas.polygon(rounded(_both(half)), ink(np.array(scene.hair), 0.8))


def draw_lower_body(canvas: Canvas, scene: Scene) -> None:
    """Legs, shoes and bottoms."""
    skin, cloth = scene.skin, scene.bottom_colour
    for leg in (_LEG, mirrored(_LEG)):
        canvas.polygon(rounded(leg, 1), skin)
        centre = leg[3:5].mean(axis=0)
        canvas.polygon(oval((float(centre[0]), 0.975), (0.042, 0.024)), ink(np.array(cloth), 0.55))
    if scene.bottoms == "bare":
        hips = points((0.144, 0.54), (0.146, 0.60), (0.12, 0.66), (0.0, 0.635))
        canvas.polygon(_both(hips), ink(np.array(cloth), 0.8))
        return
    if scene.bottoms == "skirt":
        skirt = points((0.122, 0.475), (0.165, 0.58), (0.205, 0.755), (0.0, 0.765))
        _garment(canvas, _both(skirt), cloth)
        return
    low = 0.71 if scene.bottoms == "shorts" else 0.935
    flare = 0.150 if scene.bottoms == "shorts" else 0.104
    leg = points(
        (0.0, 0.475), (0.122, 0.475), (0.155, 0.575), (flare, low), (0.026, low), (0.004, 0.635)
    )
    for trouser in (leg, mirrored(leg)):
        _garment(canvas, trouser, cloth)


def draw_trunk(canvas: Canvas, scene: Scene) -> None:
    """Trunk and neck."""
    shade = ink(np.array(scene.skin), 0.78)
    canvas.polygon(_both(_TRUNK), scene.skin)
    for side in (-1.0, 1.0):  # collar bones
        canvas.line(points((side * 0.02, 0.202), (side * 0.10, 0.188)), shade, 0.004)
    neck_shadow = points((0.046, 0.118), (0.046, 0.140), (0.0, 0.165))
    canvas.polygon(_both(neck_shadow), shade)


def draw_arms(canvas: Canvas, scene: Scene, arms: tuple[Points, Points]) -> None:
    """Arms and hands."""
    shade = ink(np.array(scene.skin), 0.78)
    for arm in arms:
        outline = ribbon(arm, np.linspace(0.040, 0.023, len(arm)))
        canvas.disc((float(arm[0, 0]), float(arm[0, 1])), 0.040, scene.skin)
        canvas.polygon(outline, scene.skin)
        canvas.line(outline[: len(arm)], shade, 0.004)
        canvas.line(outline[len(arm) :], shade, 0.004)
        reach = arm[-1] + 0.035 * (arm[-1] - arm[-3]) / np.linalg.norm(arm[-1] - arm[-3])
        canvas.disc((float(reach[0]), float(reach[1])), 0.029, scene.skin)


def draw_head(canvas: Canvas, scene: Scene) -> None:
    """Face, ears and the hair that frames them; no features, as on a drawn mannequin."""
    skin = np.array(scene.skin)
    for side in (-1.0, 1.0):
        canvas.polygon(oval((side * 0.073, 0.062), (0.012, 0.020), 10), ink(skin, 0.86))
    face = points((0.0, 0.136), (0.038, 0.128), (0.068, 0.085), (0.074, 0.02), (0.05, -0.05))
    canvas.polygon(rounded(_both(face[::-1])), scene.skin)
    cap = points((-0.078, 0.062), (-0.060, 0.022), (0.018, -0.004), (0.062, 0.022), (0.078, 0.062))
    crown = points((0.090, 0.01), (0.066, -0.075), (-0.066, -0.075), (-0.090, 0.01))
    canvas.polygon(np.concatenate([cap, crown]), scene.hair)


def _garment(canvas: Canvas, outline: Points, colour: Ink) -> None:
    canvas.polygon(outline, colour)
    canvas.line(outline, ink(np.array(colour), 0.72), 0.005, closed=True)


def _both(half: Points) -> Points:
    """A closed outline from its half on the positive side, top to bottom."""
    return np.concatenate([half, mirrored(half)[::-1]])
