"""One garment: its nine labels and the tailoring that no label speaks of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.schema import Attribute, Schema

# fmt: off
FREQUENCIES: dict[str, dict[str, float]] = {
    "category": {"t-shirt": 0.19, "shirt": 0.16, "dress": 0.18, "jacket": 0.12, "sweater": 0.12,
                 "vest": 0.07, "coat": 0.08, "hoodie": 0.08},
    "button": {"no-button": 0.45, "single-row": 0.26, "double-breasted": 0.12, "zip": 0.17},
    "colour": {"black": 0.16, "white": 0.14, "grey": 0.10, "red": 0.11, "pink": 0.08,
               "yellow": 0.08, "green": 0.09, "blue": 0.13, "purple": 0.06, "brown": 0.05},
    "length": {"cropped": 0.16, "hip-length": 0.36, "thigh-length": 0.22, "knee-length": 0.16,
               "ankle-length": 0.10},
    "pattern": {"solid": 0.32, "striped": 0.15, "checked": 0.12, "floral": 0.16, "dotted": 0.11,
                "zigzag": 0.07, "argyle": 0.07},
    "shape": {"slim-fit": 0.28, "straight-fit": 0.30, "a-line": 0.22, "loose-fit": 0.20},
    "collar-shape": {"round-neckline": 0.22, "v-neckline": 0.20, "shirt-collar": 0.14,
                     "turtleneck": 0.11, "hood": 0.10, "lapel-collar": 0.09,
                     "square-neckline": 0.08, "boat-neckline": 0.06},
    "sleeve-length": {"sleeveless": 0.15, "short-sleeve": 0.27, "three-quarter-sleeve": 0.16,
                      "long-sleeve": 0.42},
    "sleeve-shape": {"straight-sleeve": 0.36, "bell-sleeve": 0.18, "puff-sleeve": 0.18,
                     "raglan-sleeve": 0.16, "batwing-sleeve": 0.12},
}
# fmt: on
"""Attribute -> value -> share before a category's tilt; the order is the numbering."""

ATTRIBUTES: tuple[str, ...] = tuple(FREQUENCIES)
VALUES: dict[str, tuple[str, ...]] = {a: tuple(v) for a, v in FREQUENCIES.items()}

TILTS: dict[str, dict[str, float]] = {
    "t-shirt": {"short-sleeve": 2.5, "no-button": 2.0, "lapel-collar": 0.3, "ankle-length": 0.2},
    "shirt": {"shirt-collar": 3.0, "single-row": 2.5, "hood": 0.3, "ankle-length": 0.2},
    "dress": {"cropped": 0.0, "hip-length": 0.0, "knee-length": 2.0, "ankle-length": 2.0},
    "jacket": {"zip": 2.5, "lapel-collar": 2.5, "long-sleeve": 2.0, "sleeveless": 0.2},
    "sweater": {"long-sleeve": 2.0, "turtleneck": 2.0, "floral": 0.6, "argyle": 2.5},
    "vest": {"sleeveless": 12.0, "zip": 1.5, "ankle-length": 0.2},
    "coat": {"cropped": 0.0, "lapel-collar": 3.0, "double-breasted": 3.0, "long-sleeve": 2.0},
    "hoodie": {"hood": 8.0, "long-sleeve": 2.0, "zip": 1.5, "ankle-length": 0.2},
}
"""Category -> value -> factor on the share of that value."""


def wardrobe_schema() -> Schema:
    """The schema of the nine attributes, all single-valued."""
    return Schema(tuple(Attribute(name, values) for name, values in VALUES.items()))


SLEEVELESS = "sleeveless"


@dataclass(frozen=True)
class Garment:
    """What is sold as one item: value names of `VALUES`, then tailoring.

    Args:
        sleeve_shape: a sleeveless garment has one too, which is neither drawn nor told.
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
        told = {name: getattr(self, name.replace("-", "_")) for name in ATTRIBUTES}
        return told if self.has_sleeves else told | {"sleeve-shape": ""}


def sample_garment(rng: np.random.Generator) -> Garment:
    """Draw a garment: the category first, the rest by its tilted shares, else independently."""
    category = _draw(rng, "category", {})
    tilt = TILTS[category]
    names = ("colour", *(name for name in ATTRIBUTES if name not in ("category", "colour")))
    own = {name.replace("-", "_"): _draw(rng, name, tilt) for name in names}
    return Garment(
        category=category,
        **own,
        second_colour=_draw(rng, "colour", {own["colour"]: 0.0}),
        tint=tuple(float(x) for x in rng.normal(0.0, 5.0, 3)),  # type: ignore[arg-type]
        pattern_scale=float(rng.uniform(0.85, 1.25)),
        pattern_phase=(float(rng.random()), float(rng.random())),
        pattern_turned=bool(rng.random() < 0.4),
    )


def _draw(rng: np.random.Generator, attribute: str, tilt: dict[str, float]) -> str:
    shares = FREQUENCIES[attribute]
    weights = np.array([share * tilt.get(value, 1.0) for value, share in shares.items()])
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]
