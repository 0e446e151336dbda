"""From a spec to a picture and the regions of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import UsageError
from training.wardrobe.background import draw_background
from training.wardrobe.body import (
    draw_arms,
    draw_back_hair,
    draw_head,
    draw_lower_body,
    draw_trunk,
)
from training.wardrobe.canvas import SUPERSAMPLE, Canvas, Cloth, Grid, ink
from training.wardrobe.closure import draw_closure
from training.wardrobe.curve import points
from training.wardrobe.detail import draw_detail
from training.wardrobe.fabric import Fabric, fabric_of, relief, second_ink, weave
from training.wardrobe.garment import Garment
from training.wardrobe.layout import Layout, lay_out
from training.wardrobe.light import lit
from training.wardrobe.occlusion import draw_occluder
from training.wardrobe.outline import half_width
from training.wardrobe.regions import Mask, regions
from training.wardrobe.scene import Scene
from training.wardrobe.spec import Spec

_MIDDLE = np.array([0.0, 0.3])


@dataclass(frozen=True)
class Rendered:
    """A picture and where its attributes are.

    Args:
        image: RGB, [size, size].
        masks: attribute name -> bool [size, size], see `regions`.
    """

    image: Image.Image
    masks: dict[str, Mask]


def render(spec: Spec, size: int = 224) -> Rendered:
    """Draw a spec and locate its attributes.

    Args:
        spec: what to draw.
        size: side in pixels, at least 16.

    Raises:
        UsageError: if the size is too small.
    """
    layout = lay_out(spec.garment, spec.pose)
    masks = regions(spec.garment, layout, spec.pose.matrix(), size)
    return Rendered(render_image(spec, size), masks)


def render_image(spec: Spec, size: int = 224) -> Image.Image:
    """Draw a spec: `render` without the masks.

    Raises:
        UsageError: if `size` is under 16.
    """
    if size < 16:
        raise UsageError(f"size is {size} pixels; a garment needs at least 16")
    garment, scene = spec.garment, spec.scene
    layout = lay_out(garment, spec.pose)
    backdrop = draw_background(scene.background, scene.background_seed, size * SUPERSAMPLE)
    canvas = Canvas(backdrop, spec.pose.matrix())
    fabric = fabric_of(garment)
    if layout.hood is not None:
        canvas.cloth(layout.hood, _shaded(fabric, 0.2, 0.7), _MIDDLE, 0.0)
    draw_back_hair(canvas, scene)
    draw_trunk(canvas, scene)
    draw_lower_body(canvas, scene)
    draw_arms(canvas, scene, layout.arms)
    draw_head(canvas, scene)
    _draw_garment(canvas, garment, fabric, layout, scene)
    draw_occluder(canvas, scene)
    return lit(canvas.finish(), scene.light)


def _draw_garment(
    canvas: Canvas, garment: Garment, fabric: Fabric, layout: Layout, scene: Scene
) -> None:
    main, second = fabric.inks[0], second_ink(garment)
    outline = _outline_ink(main)
    if garment.collar_shape == "lapel-collar":
        chest = points((-0.085, 0.178), (0.0, 0.205), (0.085, 0.178), (0.05, 0.36), (-0.05, 0.36))
        canvas.polygon(chest, scene.undershirt)
    canvas.cloth(layout.torso, _shaded(fabric, 0.21, 1.0), _MIDDLE, 0.0)
    canvas.line(layout.torso, outline, 0.006, closed=True)
    if garment.shape == "a-line":
        half = float(half_width("a-line", np.array([layout.hem]))[0])
        for x in (-0.6, -0.2, 0.2, 0.6):  # the folds of the flare
            canvas.line(points((0.13 * x, 0.35), (x * half, layout.hem)), ink(main, 0.72), 0.006)
    draw_detail(canvas, layout, garment.category, garment.shape, main, second)
    draw_closure(canvas, layout, garment.button, main)
    _draw_sleeves(canvas, garment, fabric, layout)
    canvas.line(layout.neckline, ink(main, 0.68) if main.sum() > 240 else ink(main + 60), 0.016)
    for number, piece in enumerate(layout.collar):
        tone = 0.86 if garment.collar_shape == "lapel-collar" else 1.0
        canvas.cloth(piece, _shaded(fabric, 0.2, tone * (0.96 + 0.04 * number)), _MIDDLE, 0.35)
        canvas.line(piece, outline, 0.009, closed=True)
    if garment.collar_shape == "turtleneck":
        canvas.line(points((-0.066, 0.142), (0.0, 0.152), (0.066, 0.142)), outline, 0.006)


def _draw_sleeves(canvas: Canvas, garment: Garment, fabric: Fabric, layout: Layout) -> None:
    main = fabric.inks[0]
    raglan = garment.sleeve_shape == "raglan-sleeve"
    plain = second_ink(garment).astype(np.float32)
    for side, sleeve in zip((-1.0, 1.0), layout.sleeves, strict=False):
        cloth = _shaded(fabric, 0.085, 0.96)
        outline = _outline_ink(main)
        if raglan:
            cloth, outline = _plain(plain), _outline_ink(plain)
            yoke = points((0.090, 0.176), (0.180, 0.204), (0.176, 0.300), (0.130, 0.322))
            canvas.cloth(yoke * (side, 1.0), cloth, _MIDDLE, 0.0)
            canvas.line(points((0.090, 0.176), (0.130, 0.322)) * (side, 1.0), outline, 0.008)
        canvas.cloth(sleeve.outline, cloth, sleeve.line[0], sleeve.angle)
        n = len(sleeve.line)
        if garment.sleeve_shape == "batwing-sleeve":
            canvas.line(sleeve.outline[: n + 2], outline, 0.006)
        else:
            canvas.line(sleeve.outline[1 : 2 * n - 1], outline, 0.006)
        canvas.line(sleeve.cuff, outline, 0.010)


def _outline_ink(main: NDArray[np.floating]) -> tuple[int, int, int]:
    """Darker than the cloth; on black cloth a little lighter, or seams would vanish."""
    return ink(main, 0.5) if float(main.sum()) > 200 else ink(np.asarray(main) + 48)


def _shaded(fabric: Fabric, half: float, tone: float) -> Cloth:
    """Cloth that darkens towards the sides of a part of half-width `half`, with soft folds."""

    def cloth(across: Grid, along: Grid) -> NDArray[np.float32]:
        side = across * np.float32(1 / half)
        shade = np.float32(1.04 * tone) - np.float32(0.2 * tone) * np.minimum(side * side, 1.5)
        folds = np.sin(np.float32(21.0) * across + np.float32(9.0) * along)
        shade += np.float32(0.035) * folds
        shade *= relief(fabric.relief, across, along)
        return weave(fabric, across, along) * shade[:, :, None]

    return cloth


def _plain(colour: NDArray[np.float32]) -> Callable[[Grid, Grid], NDArray[np.float32]]:
    """Unpatterned cloth for contrast sleeves."""

    def cloth(across: Grid, along: Grid) -> NDArray[np.float32]:
        shade = np.float32(1.0) - np.float32(12.0) * np.minimum(across * across, 0.012)
        tinted: NDArray[np.float32] = colour * shade[:, :, None]
        return tinted

    return cloth
