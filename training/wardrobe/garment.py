"""One garment: its nine labels and the tailoring that no label speaks of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.wardrobe.vocabulary import FREQUENCIES, TILTS

SLEEVELESS = "sleeveless"


@dataclass(frozen=True)
class Garment:
    """What is sold as one item.

    Args:
        category, button, colour, length, pattern, shape, collar_shape, sleeve_length,
            sleeve_shape: value names of `vocabulary.VALUES`. A sleeveless garment has a
            `sleeve_shape` too, which is neither drawn nor told.
        second_colour: name of the colour of stripes, petals and trims.
        tint: offsets of the main colour's red, green and blue, in 8-bit steps.
        pattern_scale: period of the pattern relative to its usual one, about 0.85 to 1.25.
        pattern_phase: offset of the pattern across and along, in periods, 0 to 1.
        pattern_turned: whether stripes and zigzags run along instead of across.
    """

    category: str
    button: str
    colour: str
    length: str
    pattern: str
    shape: str
    collar_shape: str
    sleeve_length: str
    sleeve_shape: str
    second_colour: str
    tint: tuple[float, float, float]
    pattern_scale: float
    pattern_phase: tuple[float, float]
    pattern_turned: bool

    @property
    def has_sleeves(self) -> bool:
        """Whether there is a sleeve to have a shape."""
        return self.sleeve_length != SLEEVELESS

    def labels(self) -> dict[str, str]:
        """Attribute -> value name, in the order of `ATTRIBUTES`; empty where unknown."""
        return {
            "category": self.category,
            "button": self.button,
            "colour": self.colour,
            "length": self.length,
            "pattern": self.pattern,
            "shape": self.shape,
            "collar-shape": self.collar_shape,
            "sleeve-length": self.sleeve_length,
            "sleeve-shape": self.sleeve_shape if self.has_sleeves else "",
        }


def sample_garment(rng: np.random.Generator) -> Garment:
    """Draw a garment: the category first, the rest by its tilted shares, else independently."""
    category = _draw(rng, "category", {})
    tilt = TILTS[category]
    colour = _draw(rng, "colour", tilt)
    return Garment(
        category=category,
        button=_draw(rng, "button", tilt),
        colour=colour,
        length=_draw(rng, "length", tilt),
        pattern=_draw(rng, "pattern", tilt),
        shape=_draw(rng, "shape", tilt),
        collar_shape=_draw(rng, "collar-shape", tilt),
        sleeve_length=_draw(rng, "sleeve-length", tilt),
        sleeve_shape=_draw(rng, "sleeve-shape", tilt),
        second_colour=_draw(rng, "colour", {colour: 0.0}),
        tint=tuple(float(x) for x in rng.normal(0.0, 5.0, 3)),  # type: ignore[arg-type]
        pattern_scale=float(rng.uniform(0.85, 1.25)),
        pattern_phase=(float(rng.random()), float(rng.random())),
        pattern_turned=bool(rng.random() < 0.4),
    )


def _draw(rng: np.random.Generator, attribute: str, tilt: dict[str, float]) -> str:
    shares = FREQUENCIES[attribute]
    weights = np.array([share * tilt.get(value, 1.0) for value, share in shares.items()])
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]
