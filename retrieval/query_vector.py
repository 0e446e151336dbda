"""The query vector: what a request becomes, over the bytes of descriptors.

    score = (change x presence + keep x likeness) / (change + keep)                 each 0..1

Presence says how surely an image has every named value and none of the unwanted, a product, with
some credit for a part of them; likeness, how much it is like the picture in the attributes that
were not named: in what it is (chances) and in which one it is (nuance). Likeness and the presence
of one value are linear in the bytes, so a request that names at most one value is one vector, and
the index that is searched with it ranks by the full formula. For several values the vector takes
the sum in place of the product; its best few hundred images, and as many by likeness alone, are
scored by the formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.descriptor import GARMENT, Bytes, DescriptorLayout, Floats
from training.schema import Schema

KEEP = 0.66
"""The dial where nobody turns it; chosen on `valid`, as all constants here: NOTES.md."""

SHOWN = 2.0
"""How many times more presence counts where the picture surely has all that is named: named
nevertheless, it matters most."""

NUANCE = 0.6
"""Share of nuance, against chances, in the likeness that is kept where values are named."""

ALONE = 0.8
"""The same where nothing is named: of those it is asked which one a garment is."""

COMPARED = 0.05
"""The same in attributes to compare by: of those it is asked what a garment is."""

GARMENT_SHARE = 0.6
"""Share of the whole garment's nuance, against that of the attributes."""

ROOTS = 0.5
"""Share of the roots of chances, against the chances, in likeness."""

NAMED_ROOTS = 0.6
"""The same in presence."""

PART = 0.25
"""Share of presence that is for each of several values alone: where no image has all, those that
have one come before those that have none. It costs nothing on `valid`."""

CANDIDATES = 500
"""Images by the vector, and as many by likeness, scored by the formula where it is more than a
vector. Of 253,983 images they held all of the true first ten, for each of 40 requests; 250 held
0.99 of them."""


@dataclass(frozen=True)
class QueryVector:
    """A score that is linear in the bytes of a descriptor, by weights [width] float32."""

    weights: Floats
    constant: float

    def __add__(self, other: QueryVector) -> QueryVector:
        return QueryVector(self.weights + other.weights, self.constant + other.constant)

    def __mul__(self, factor: float) -> QueryVector:
        return QueryVector(self.weights * np.float32(factor), self.constant * factor)

    def scores(self, descriptors: NDArray[np.uint8] | Floats) -> Floats:
        """Scores [M] float32 of descriptors [M, width], bytes or the same as float32."""
        scores: Floats = np.asarray(descriptors, dtype=np.float32) @ self.weights
        return scores + np.float32(self.constant)


@dataclass(frozen=True)
class Formula:
    """How a request scores an image: by the presence of each named value and the likeness that is
    kept, 0..1 each, and what the two weigh."""

    named: tuple[QueryVector, ...]
    alike: QueryVector
    change: float
    keep: float

    @property
    def linear(self) -> bool:
        """Whether `vector` gives the scores themselves."""
        return len(self.named) < 2

    @property
    def vector(self) -> QueryVector:
        """The query vector: with the sum of presences in place of their product."""
        total = self.alike * self.keep
        for one in self.named:
            total = total + one * self.change
        return total * (1 / (self.change * len(self.named) + self.keep))

    def scores(self, descriptors: NDArray[np.uint8] | Floats) -> Floats:
        """Scores [M] float32, 0..1, of descriptors as `QueryVector` has them."""
        codes = np.asarray(descriptors, dtype=np.float32)
        alike = self.alike.scores(codes)
        if not self.named:
            return alike
        weights = np.stack([one.weights for one in self.named], 1)
        each = codes @ weights + np.array([one.constant for one in self.named], dtype=np.float32)
        there = (1 - PART) * each.prod(1) + PART * each.mean(1)
        scores: Floats = (self.change * there + self.keep * alike) / (self.change + self.keep)
        return scores


@dataclass(frozen=True)
class Asked:
    """A request in the numbers of a schema.

    Args:
        wanted, unwanted: flat indices of the values that hits should have, or should not.
        like: attributes to compare by; empty: all that no value is named of.
        keep: the dial, 0..1 from "change it" to "keep it"; None: `KEEP`.
        known: named values of which the images to be ranked are known to have them or not: that
            settles the matter.
    """

    wanted: Sequence[int] = ()
    unwanted: Sequence[int] = ()
    like: Sequence[int] = ()
    keep: float | None = None
    known: Mapping[int, bool] = field(default_factory=dict)

    @property
    def named(self) -> list[int]:
        """Flat indices of all named values; empty if hits are ranked by likeness alone."""
        return [*self.wanted, *self.unwanted]


def formula_of(
    layout: DescriptorLayout, schema: Schema, chances: Floats, nuance: Floats, asked: Asked
) -> Formula:
    """All of a request for a picture of these chances [K] and this nuance [N]."""
    if asked.like:
        alike = _likeness(layout, schema, chances, nuance, asked.like, COMPARED, whole=False)
    else:
        taken = {int(schema.attribute_of[v]) for v in asked.named}
        kept = [n for n in range(len(schema.attributes)) if n not in taken]
        alike = _likeness(layout, schema, chances, nuance, kept, NUANCE if taken else ALONE)
    if not asked.named:
        return Formula((), alike, 0.0, 1.0)
    keep = KEEP if asked.keep is None else asked.keep
    named = [_presence(layout, value, True, asked.known) for value in asked.wanted]
    named += [_presence(layout, value, False, asked.known) for value in asked.unwanted]
    shown = float(np.prod([*chances[list(asked.wanted)], *(1 - chances[list(asked.unwanted)])]))
    return Formula(tuple(named), alike, (1 - keep) * (1 + SHOWN * shown), keep)


def _presence(
    layout: DescriptorLayout, value: int, wanted: bool, known: Mapping[int, bool]
) -> QueryVector:
    """How surely an image has a value, or lacks it if it is not wanted, 0..1: the chance, partly
    as its root, unless it is known."""
    weights = np.zeros(layout.width, dtype=np.float32)
    sign, constant = (1, 0.0) if wanted else (-1, 1.0)
    if value in known:
        return QueryVector(weights, constant + sign * known[value])
    weights[layout.roots][value] = sign * NAMED_ROOTS / 255
    weights[layout.plain][value] = sign * (1 - NAMED_ROOTS) / 255
    return QueryVector(weights, constant)


def _likeness(
    layout: DescriptorLayout,
    schema: Schema,
    chances: Floats,
    nuance: Floats,
    attributes: Sequence[int],
    share: float,
    whole: bool = True,
) -> QueryVector:
    """How much an image is like a picture in some attributes: 0..1.

    Of chances, the mean over the attributes of the sum over values of p q, p the picture's share of
    the value and q the image's chance, partly as its root where the whole garment is compared; of
    nuance, which counts for `share`, the mean cosine, as 0..1.
    """
    by_chances = _by_chances(layout, schema, chances, attributes, ROOTS if whole else 0)
    of_garment = _by_nuance(layout, nuance, [GARMENT]) if whole else None
    alike = _by_nuance(layout, nuance, attributes)
    if alike is None or of_garment is None:
        alike = alike or of_garment
    else:
        alike = alike * (1 - GARMENT_SHARE) + of_garment * GARMENT_SHARE
    if alike is None:
        return by_chances
    if not attributes:
        return alike
    return by_chances * (1 - share) + alike * share


def _by_chances(
    layout: DescriptorLayout,
    schema: Schema,
    chances: Floats,
    attributes: Sequence[int],
    roots: float,
) -> QueryVector:
    shares = np.zeros(layout.values, dtype=np.float32)
    for number in attributes:
        own = chances[schema.slice_of(number)]
        # What likely does not apply is hardly compared by.
        least = 1.0 if schema.optional[number] else 1e-6
        shares[schema.slice_of(number)] = own / max(float(own.sum()), least)
    shares /= 255 * max(len(attributes), 1)
    weights = np.zeros(layout.width, dtype=np.float32)
    weights[layout.roots] = roots * shares
    weights[layout.plain] = (1 - roots) * shares
    return QueryVector(weights, 0.0)


def _by_nuance(
    layout: DescriptorLayout, nuance: Floats, owners: Sequence[int]
) -> QueryVector | None:
    """Mean cosine of the owners' nuance, as 0..1; None if they have none."""
    groups = sum(owner in owners for owner, _ in layout.groups)
    if not groups:
        return None
    # A byte x stands for span (x / 127.5 - 1); a cosine c counts as (1 + c) / 2.
    compared = np.isin(layout.owners, owners) * nuance * layout.spans / np.float32(2 * groups)
    weights = np.zeros(layout.width, dtype=np.float32)
    weights[layout.told] = compared / 127.5
    return QueryVector(weights, 0.5 - float(compared.sum()))


def draw_requests(
    layout: DescriptorLayout, schema: Schema, descriptors: Bytes, seed: int
) -> Floats:
    """Query vectors [Q, width] float32 of pictures [Q, width], each with a request of its own.

    A quarter each: no name; attributes to compare by; one to three values of different attributes
    that are wanted; the same with the first of them unwanted. The dial is anywhere in 0..1.
    """
    random = np.random.default_rng(seed)
    chances, nuance = layout.chances(descriptors), layout.nuance_of(descriptors)
    weights = np.zeros((len(descriptors), layout.width), dtype=np.float32)
    named = [number for number, own in enumerate(schema.attributes) if own.values]
    for place in range(len(weights)):
        attributes = random.permutation(named)[: 1 + random.integers(3)].tolist()
        flat = [np.arange(schema.size)[schema.slice_of(number)] for number in attributes]
        values = [int(random.choice(own)) for own in flat]
        keep = float(random.random())
        asked = (
            Asked(keep=keep),
            Asked(like=attributes, keep=keep),
            Asked(values, keep=keep),
            Asked(values[1:], values[:1], keep=keep),
        )[place % 4]
        formula = formula_of(layout, schema, chances[place], nuance[place], asked)
        weights[place] = formula.vector.weights
    return weights
