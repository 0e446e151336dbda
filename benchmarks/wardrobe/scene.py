"""What is around the garment: wearer, background, light and what stands in front of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.wardrobe.draw import (
    Canvas,
    Ink,
    Points,
    ink,
    mirrored,
    oval,
    points,
    ribbon,
    rounded,
)

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

# fmt: off
SKINS: tuple[Colour, ...] = (
    (244, 214, 192), (232, 190, 160), (205, 156, 122), (160, 112, 82), (112, 76, 56),
)
HAIRS: tuple[Colour, ...] = (
    (36, 28, 26), (74, 48, 34), (128, 84, 48), (206, 168, 104), (150, 62, 38),
)
BOTTOM_COLOURS: tuple[Colour, ...] = (
    (52, 62, 88), (92, 118, 152), (42, 42, 46), (186, 170, 142), (104, 108, 92), (222, 220, 214),
)
# fmt: on
BOTTOMS = ("trousers", "skirt", "shorts", "bare")
BACKGROUNDS = ("plain", "gradient", "studio", "clutter", "street")
OCCLUDERS = ("none", "hair", "bag", "arm", "phone")


@dataclass(frozen=True)
class Light:
    """How the finished picture is lit: overall brightness, its change from left to right and from
    top to bottom, factors of red, green and blue, deviation of the noise in 8-bit steps."""

    gain: float
    slope: tuple[float, float]
    cast: tuple[float, float, float]
    noise: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """Everything in the picture but the garment and the pose.

    Args:
        background: one of `BACKGROUNDS`; `background_seed` draws its details.
        skin, hair, bottom_colour, undershirt: colours.
        bottoms: one of `BOTTOMS`, worn below the garment.
        long_hair: whether hair falls behind the shoulders.
        occluder: one of `OCCLUDERS`, on side `occluder_side` (-1 left, 1 right), moved by
            `occluder_shift` (0 to 1).
        light: see `Light`.
    """

    background: str
    background_seed: int
    skin: Colour
    hair: Colour
    long_hair: bool
    bottoms: str
    bottom_colour: Colour
    undershirt: Colour
    occluder: str
    occluder_side: int
    occluder_shift: float
    light: Light


PLAIN = Scene(
    background="studio",
    background_seed=0,
    skin=SKINS[1],
    hair=HAIRS[1],
    long_hair=False,
    bottoms="trousers",
    bottom_colour=BOTTOM_COLOURS[0],
    undershirt=(236, 234, 228),
    occluder="none",
    occluder_side=1,
    occluder_shift=0.5,
    light=Light(1.0, (0.0, 0.0), (1.0, 1.0, 1.0), 0.0, 0),
)
"""Nothing in the way and even light: for figures in documents and tests."""


def sample_scene(rng: np.random.Generator, category: str) -> Scene:
    """Draw a scene; the category only decides what may be worn below (a dress has bare legs)."""
    bottoms = BOTTOMS[int(rng.choice(4, p=[0.56, 0.18, 0.14, 0.12]))]
    return Scene(
        background=BACKGROUNDS[int(rng.choice(5, p=[0.2, 0.2, 0.2, 0.2, 0.2]))],
        background_seed=int(rng.integers(2**31)),
        skin=SKINS[int(rng.integers(len(SKINS)))],
        hair=HAIRS[int(rng.integers(len(HAIRS)))],
        long_hair=bool(rng.random() < 0.4),
        bottoms="bare" if category == "dress" else bottoms,
        bottom_colour=BOTTOM_COLOURS[int(rng.integers(len(BOTTOM_COLOURS)))],
        undershirt=(236, 234, 228) if rng.random() < 0.7 else (66, 66, 72),
        occluder=OCCLUDERS[int(rng.choice(5, p=[0.64, 0.10, 0.10, 0.08, 0.08]))],
        occluder_side=-1 if rng.random() < 0.5 else 1,
        occluder_shift=float(rng.random()),
        light=_sample_light(rng),
    )


def _sample_light(rng: np.random.Generator) -> Light:
    red, green, blue = rng.uniform(0.95, 1.05, 3)
    return Light(
        gain=float(rng.uniform(0.86, 1.1)),
        slope=(float(rng.uniform(-0.22, 0.22)), float(rng.uniform(-0.16, 0.16))),
        cast=(float(red), float(green), float(blue)),
        noise=float(rng.uniform(1.0, 6.0)),
        seed=int(rng.integers(2**31)),
    )


_GRAIN = 64  # side at which backdrops are drawn before they are blown up, as if out of focus


def draw_background(kind: str, seed: int, size: int) -> Image.Image:
    """An RGB backdrop: one of `BACKGROUNDS`, its details by seed, with sides of `size` pixels."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.35, 1.0) * 255 * rng.uniform(0.82, 1.0, 3)
    if kind == "plain":
        return Image.new("RGB", (size, size), tuple(base.astype(int).tolist()))
    if kind == "gradient":
        other = base * rng.uniform(0.55, 0.95) + rng.uniform(0, 20, 3)
        return _ramp(base, other, size, bool(rng.random() < 0.5))
    if kind == "studio":
        wall = np.full(3, rng.uniform(205, 240)) + rng.uniform(-8, 8, 3)
        return _ramp(wall, wall * 0.86, size, True)
    small = Image.new("RGB", (_GRAIN, _GRAIN), tuple(base.astype(int).tolist()))
    draw = ImageDraw.Draw(small)
    if kind == "clutter":
        _clutter(draw, rng)
    else:
        _street(draw, rng)
    soft = small.filter(ImageFilter.BoxBlur(0.8))
    return soft.resize((size, size), Image.Resampling.BICUBIC)


def _ramp(
    first: NDArray[np.float64], second: NDArray[np.float64], size: int, down: bool
) -> Image.Image:
    line = np.linspace(0.0, 1.0, _GRAIN)[:, None] * (second - first) + first
    column = np.clip(line, 0, 255).astype(np.uint8)[:, None, :]
    if not down:
        column = column.transpose(1, 0, 2)
    return Image.fromarray(np.ascontiguousarray(column)).resize(
        (size, size), Image.Resampling.BILINEAR
    )


def _clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(7, 16))):
        colour = tuple(rng.integers(40, 235, 3).tolist())
        x, y = rng.uniform(-8, _GRAIN, 2)
        w, h = rng.uniform(5, 26, 2)
        if rng.random() < 0.5:
            draw.ellipse((x, y, x + w, y + h), fill=colour)
        else:
            corners = rng.uniform(0, 1, (4, 2)) * (w, h) + (x, y)
            draw.polygon(corners.ravel().tolist(), fill=colour)


def _street(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    sky = tuple((np.array([196, 212, 230]) * rng.uniform(0.75, 1.05)).astype(int).tolist())
    draw.rectangle((0, 0, _GRAIN, _GRAIN), fill=sky)
    x = -4.0
    while x < _GRAIN:
        width, top = rng.uniform(9, 20), rng.uniform(-6, 26)
        wall = rng.uniform(70, 205) * rng.uniform(0.8, 1.0, 3)
        draw.rectangle((x, top, x + width, 50), fill=tuple(wall.astype(int).tolist()))
        glass = tuple((wall * rng.choice([0.6, 1.25])).clip(0, 255).astype(int).tolist())
        for wy in np.arange(top + 3, 46, 6.0):
            for wx in np.arange(x + 2, x + width - 2, 4.5):
                draw.rectangle((wx, wy, wx + 2, wy + 3), fill=glass)
        x += width
    road = tuple((np.full(3, rng.uniform(85, 165))).astype(int).tolist())
    draw.rectangle((0, 48, _GRAIN, _GRAIN), fill=road)
    for _ in range(int(rng.integers(1, 5))):  # passers-by, out of focus
        x, tone = rng.uniform(0, _GRAIN), tuple(rng.integers(30, 220, 3).tolist())
        draw.ellipse((x - 1.5, 27, x + 1.5, 30), fill=(200, 160, 130))
        draw.rectangle((x - 2.5, 30, x + 2.5, 52), fill=tone)


def lit(image: Image.Image, light: Light) -> Image.Image:
    """The RGB picture under a light: brightness, its slope, colour cast and noise."""
    pixels = np.asarray(image, dtype=np.float32)
    height, width = pixels.shape[:2]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None]
    gain = light.gain * (1 + light.slope[0] * x + light.slope[1] * y)
    pixels = (pixels * gain * np.array(light.cast)).astype(np.float32)
    if light.noise > 0:
        rng = np.random.default_rng(light.seed)
        pixels += np.float32(light.noise) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


_TRUNK = points(
    *((0.046, 0.12), (0.050, 0.165), (0.155, 0.198), (0.170, 0.230)),
    *((0.140, 0.310), (0.108, 0.450), (0.140, 0.560), (0.138, 0.640)),
)
_LEG = points(
    (0.002, 0.600), (0.140, 0.580), (0.118, 0.780), (0.082, 0.960), (0.036, 0.960), (0.022, 0.780)
)


def draw_wearer(canvas: Canvas, scene: Scene, arms: tuple[Points, Points]) -> None:
    """Draw the wearer from back to front; `arms` are the arms' centre lines."""
    _back_hair(canvas, scene)
    _trunk(canvas, scene)
    _lower_body(canvas, scene)
    _arms(canvas, scene, arms)
    _head(canvas, scene)


def _back_hair(canvas: Canvas, scene: Scene) -> None:
    length = 0.27 if scene.long_hair else 0.10
    width = 0.105 if scene.long_hair else 0.092
    half = points(
        (0.0, -0.07), (0.09, -0.06), (width, 0.05), (width * 1.04, length), (0.02, length)
    )
    canvas.polygon(rounded(_both(half)), ink(np.array(scene.hair), 0.8))


def _lower_body(canvas: Canvas, scene: Scene) -> None:
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


def _trunk(canvas: Canvas, scene: Scene) -> None:
    shade = ink(np.array(scene.skin), 0.78)
    canvas.polygon(_both(_TRUNK), scene.skin)
    for side in (-1.0, 1.0):  # collar bones
        canvas.line(points((side * 0.02, 0.202), (side * 0.10, 0.188)), shade, 0.004)
    neck_shadow = points((0.046, 0.118), (0.046, 0.140), (0.0, 0.165))
    canvas.polygon(_both(neck_shadow), shade)


def _arms(canvas: Canvas, scene: Scene, arms: tuple[Points, Points]) -> None:
    shade = ink(np.array(scene.skin), 0.78)
    for arm in arms:
        outline = ribbon(arm, np.linspace(0.040, 0.023, len(arm)))
        canvas.disc((float(arm[0, 0]), float(arm[0, 1])), 0.040, scene.skin)
        canvas.polygon(outline, scene.skin)
        canvas.line(outline[: len(arm)], shade, 0.004)
        canvas.line(outline[len(arm) :], shade, 0.004)
        reach = arm[-1] + 0.035 * (arm[-1] - arm[-3]) / np.linalg.norm(arm[-1] - arm[-3])
        canvas.disc((float(reach[0]), float(reach[1])), 0.029, scene.skin)


def _head(canvas: Canvas, scene: Scene) -> None:
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


def draw_occluder(canvas: Canvas, scene: Scene) -> None:
    """Draw the scene's occluder over the finished figure; nothing for `none`."""
    flip = np.array([scene.occluder_side, 1.0])
    shift = scene.occluder_shift
    if scene.occluder == "hair":
        ends = (0.128, 0.33 + 0.06 * shift), (0.075, 0.35 + 0.06 * shift)
        lock = points((0.045, 0.02), (0.090, 0.03), (0.112, 0.20), *ends, (0.072, 0.20))
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
        width = np.array([0.046, 0.040, 0.032, 0.026])
        shadow = ribbon(line + np.array([0.0, 0.008]), width)
        canvas.polygon(shadow * flip, ink(np.array(scene.skin), 0.6))
        canvas.polygon(ribbon(line, width) * flip, scene.skin)
        canvas.disc((0.10 * scene.occluder_side, y + 0.01), 0.032, scene.skin)
    elif scene.occluder == "phone":
        x, y = 0.12 + 0.05 * shift, 0.33 + 0.12 * shift
        phone = points((x, y), (x + 0.062, y - 0.01), (x + 0.070, y + 0.10), (x + 0.008, y + 0.11))
        canvas.polygon(phone * flip, (28, 28, 32))
        canvas.disc((float((x + 0.04) * flip[0]), y + 0.115), 0.036, scene.skin)
