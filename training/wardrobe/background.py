"""Backdrops: plain, gradient, studio, clutter of shapes, and something like a street."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

_GRAIN = 64  # side at which backdrops are drawn before they are blown up, as if out of focus


def draw_background(kind: str, seed: int, size: int) -> Image.Image:
    """An RGB backdrop.

    Args:
        kind: one of `scene.BACKGROUNDS`.
        seed: of its details.
        size: side in pixels.
    """
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
