"""What each picture of a wardrobe shows, the picture itself, and where its parts are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.wardrobe.cloth import (
    Fabric,
    draw_closure,
    draw_detail,
    fabric_of,
    relief,
    second_ink,
    weave,
)
from benchmarks.wardrobe.draw import (
    SUPERSAMPLE,
    Canvas,
    Cloth,
    Grid,
    Points,
    ink,
    oval,
    points,
    ribbon,
)
from benchmarks.wardrobe.figure import (
    NEUTRAL,
    SHOULDER_X,
    SHOULDER_Y,
    WAIST_Y,
    Layout,
    Pose,
    half_width,
    lay_out,
    sample_pose,
)
from benchmarks.wardrobe.garment import ATTRIBUTES, Garment, sample_garment
from benchmarks.wardrobe.scene import (
    PLAIN,
    Scene,
    draw_background,
    draw_occluder,
    draw_wearer,
    lit,
    sample_scene,
)
from training.errors import UsageError

_ITEM_SIZES = (1, 2, 1, 3)
"""Pictures of successive items, over and over."""

_FIRST = tuple(int(x) for x in np.cumsum((0, *_ITEM_SIZES)))
_BLOCK = 10  # items a block, of which 8 train, 1 valid, 1 test
_GARMENT, _PICTURE, _SPLIT = 1, 2, 3  # streams of random numbers that must not overlap


@dataclass(frozen=True)
class Spec:
    """A garment, how it is worn, and where."""

    garment: Garment
    pose: Pose = NEUTRAL
    scene: Scene = PLAIN


def item_of(index: int) -> tuple[int, int]:
    """Number of the item that picture `index` shows, and which of its pictures this is."""
    rounds, rest = divmod(index, _FIRST[-1])
    within = int(np.searchsorted(_FIRST, rest, side="right")) - 1
    return rounds * len(_ITEM_SIZES) + within, rest - _FIRST[within]


def split_of(seed: int, item: int) -> str:
    """`train`, `valid` or `test`, 8:1:1 in every ten items, so that no item straddles a split."""
    block, within = divmod(item, _BLOCK)
    place = np.random.default_rng([seed, _SPLIT, block]).permutation(_BLOCK)[within]
    return "valid" if place == 0 else "test" if place == 1 else "train"


def sample_spec(seed: int, index: int) -> Spec:
    """Draw what picture `index` of the wardrobe `seed` shows, both 0 or more.

    Pictures of one item share the garment only.
    """
    item, _ = item_of(index)
    garment = sample_garment(np.random.default_rng([seed, _GARMENT, item]))
    rng = np.random.default_rng([seed, _PICTURE, index])
    return Spec(garment, sample_pose(rng), sample_scene(rng, garment.category))


Mask = NDArray[np.bool_]
"""[size, size] bool, true inside the region."""

_WHOLE = ("category", "colour", "pattern", "shape")


def garment_outlines(layout: Layout) -> list[Points]:
    """The outlines that together cover the garment."""
    outlines = [layout.torso, *(s.outline for s in layout.sleeves), *layout.collar]
    return outlines if layout.hood is None else [*outlines, layout.hood]


def regions(spec: Spec, size: int) -> dict[str, Mask]:
    """The mask of every attribute of a spec drawn at `size` pixels, in the order of `ATTRIBUTES`.

    Without sleeves the region of sleeve-shape is that of sleeve-length: the bare arms.
    """
    layout, matrix = lay_out(spec.garment, spec.pose), spec.pose.matrix()
    hem = float(half_width(spec.garment.shape, np.array([layout.hem]))[0]) + 0.03
    arms = [ribbon(line, np.linspace(0.060, 0.040, len(line))) for line in layout.arms]
    sleeves = [sleeve.outline for sleeve in layout.sleeves]
    parts = {
        # Wide enough for two rows of buttons.
        "button": [_band(0.095, layout.opening - 0.01, layout.hem + 0.015)],
        "length": [_band(hem, layout.hem - 0.06, layout.hem + 0.05)],
        "collar-shape": _neck(layout),
        "sleeve-length": arms + sleeves,
        "sleeve-shape": sleeves or arms,
    }
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


def _band(half: float, top: float, low: float) -> Points:
    return points((-half, top), (half, top), (half, low), (-half, low))


def _neck(layout: Layout) -> list[Points]:
    """The neck opening with its edge, and the pieces of the collar."""
    centre = layout.neckline.mean(axis=0)
    opening = (layout.neckline - centre) * (1.2, 1.25) + centre
    collar = [opening, oval((0.0, 0.175), (0.09, 0.045)), *layout.collar]
    return collar if layout.hood is None else [*collar, layout.hood]


_MIDDLE = np.array([0.0, 0.3])


@dataclass(frozen=True)
class Rendered:
    """An RGB picture and the masks of its attributes, see `regions`."""

    image: Image.Image
    masks: dict[str, Mask]


def render(spec: Spec, size: int = 224) -> Rendered:
    """Draw a spec and locate its attributes; errors as of `render_image`."""
    return Rendered(render_image(spec, size), regions(spec, size))


def render_image(spec: Spec, size: int = 224) -> Image.Image:
    """Draw a spec; UsageError if its side is under 16 pixels."""
    if size < 16:
        raise UsageError(f"size is {size} pixels; a garment needs at least 16")
    garment, scene = spec.garment, spec.scene
    layout = lay_out(garment, spec.pose)
    backdrop = draw_background(scene.background, scene.background_seed, size * SUPERSAMPLE)
    canvas = Canvas(backdrop, spec.pose.matrix())
    fabric = fabric_of(garment)
    if layout.hood is not None:
        canvas.cloth(layout.hood, _shaded(fabric, 0.2, 0.7), _MIDDLE, 0.0)
    draw_wearer(canvas, scene, layout.arms)
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
        batwing = garment.sleeve_shape == "batwing-sleeve"
        edge = sleeve.outline[: n + 2] if batwing else sleeve.outline[1 : 2 * n - 1]
        canvas.line(edge, outline, 0.006)
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
