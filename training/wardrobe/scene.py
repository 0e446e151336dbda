"""What is around the garment: wearer, background, light and what stands in front of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

SKINS: tuple[Colour, ...] = (
    (244, 214, 192),
    (232, 190, 160),
    (205, 156, 122),
    (160, 112, 82),
    (112, 76, 56),
)
HAIRS: tuple[Colour, ...] = (
    (36, 28, 26),
    (74, 48, 34),
    (128, 84, 48),
    (206, 168, 104),
    (150, 62, 38),
)
BOTTOM_COLOURS: tuple[Colour, ...] = (
    (52, 62, 88),
    (92, 118, 152),
    (42, 42, 46),
    (186, 170, 142),
    (104, 108, 92),
    (222, 220, 214),
)
BOTTOMS = ("trousers", "skirt", "shorts", "bare")
BACKGROUNDS = ("plain", "gradient", "studio", "clutter", "street")
OCCLUDERS = ("none", "hair", "bag", "arm", "phone")


@dataclass(frozen=True)
class Light:
    """How the finished picture is lit.

    Args:
        gain: overall brightness, about 0.85 to 1.12.
        slope: change of brightness from left to right and from top to bottom.
        cast: factor of red, green and blue.
        noise: standard deviation, in 8-bit steps.
        seed: of the noise.
    """

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
