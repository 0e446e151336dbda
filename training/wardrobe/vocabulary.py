"""The nine DARN attributes of the wardrobe, their value names and how often each occurs.

No value name occurs in two attributes, so that each can be typed alone (`v-neckline`, `floral`).
Frequencies are unequal, as in any shop; a category tilts some of them (a hoodie usually has a
hood) but rules out little, so that combinations such as v-neckline, floral, long-sleeve abound.
"""

from __future__ import annotations

from training.schema import Attribute, Schema

FREQUENCIES: dict[str, dict[str, float]] = {
    "category": {
        "t-shirt": 0.19,
        "shirt": 0.16,
        "dress": 0.18,
        "jacket": 0.12,
        "sweater": 0.12,
        "vest": 0.07,
        "coat": 0.08,
        "hoodie": 0.08,
    },
    "button": {"no-button": 0.45, "single-row": 0.26, "double-breasted": 0.12, "zip": 0.17},
    "colour": {
        "black": 0.16,
        "white": 0.14,
        "grey": 0.10,
        "red": 0.11,
        "pink": 0.08,
        "yellow": 0.08,
        "green": 0.09,
        "blue": 0.13,
        "purple": 0.06,
        "brown": 0.05,
    },
    "length": {
        "cropped": 0.16,
        "hip-length": 0.36,
        "thigh-length": 0.22,
        "knee-length": 0.16,
        "ankle-length": 0.10,
    },
    "pattern": {
        "solid": 0.32,
        "striped": 0.15,
        "checked": 0.12,
        "floral": 0.16,
        "dotted": 0.11,
        "zigzag": 0.07,
        "argyle": 0.07,
    },
    "shape": {"slim-fit": 0.28, "straight-fit": 0.30, "a-line": 0.22, "loose-fit": 0.20},
    "collar-shape": {
        "round-neckline": 0.22,
        "v-neckline": 0.20,
        "shirt-collar": 0.14,
        "turtleneck": 0.11,
        "hood": 0.10,
        "lapel-collar": 0.09,
        "square-neckline": 0.08,
        "boat-neckline": 0.06,
    },
    "sleeve-length": {
        "sleeveless": 0.15,
        "short-sleeve": 0.27,
        "three-quarter-sleeve": 0.16,
        "long-sleeve": 0.42,
    },
    "sleeve-shape": {
        "straight-sleeve": 0.36,
        "bell-sleeve": 0.18,
        "puff-sleeve": 0.18,
        "raglan-sleeve": 0.16,
        "batwing-sleeve": 0.12,
    },
}
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
