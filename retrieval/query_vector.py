"""The query vector: what a request becomes, over the bytes of descriptors.

    score = ((1 - keep) n presence + keep likeness) / ((1 - keep) n + keep)         each 0..1

Presence says how surely an image has every named value and none of the unwanted; likeness, how much
it is like the picture in the attributes that were not named: in what it is (chances) and in which
one it is (nuance). n counts the named values, those that the picture shows itself more than once,
so that a request for three values weighs each as a request for one does. All of it is linear in the
bytes, so a request is one vector, and the index that finds candidates ranks by the full formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.descriptor import GARMENT, DescriptorLayout
from training.schema import Schema

KEEP = 0.67
"""The dial where nobody turns it; chosen on `valid`, as all constants here: NOTES.md."""

SHOWN = 2.0
"""How many times more a named value counts that the picture surely has itself: named nevertheless,
it matters most."""

NUANCE = 0.6
"""Share of nuance, against chances, in the likeness that is kept where values are named."""

ALONE = 0.8
"""The same where nothing is named: of those it is asked which one a garment is."""

COMPARED = 0.05
"""The same in attributes to compare by: of those it is asked what a garment is."""

GARMENT_SHARE = 0.6
"""Share of the whole garment's nuance, against that of the attributes."""

ROOTS = 0.2
"""Share of the roots of chances, against the chances, in likeness."""

Floats = NDArray[np.float32]


@dataclass
class QueryVector:
    """A score that is linear in the bytes of a descriptor.

    Args:
        weights: of each byte, [width] float32.
        constant: what is added.
    """

    weights: Floats
    constant: float

    def __add__(self, other: QueryVector) -> QueryVector:
        return QueryVector(self.weights + other.weights, self.constant + other.constant)

    def __mul__(self, factor: float) -> QueryVector:
        return QueryVector(self.weights * np.float32(factor), self.constant * factor)

    def scores(self, descriptors: NDArray[np.uint8]) -> Floats:
        """Scores [M] float32 of descriptors [M, width]."""
        scores: Floats = descriptors.astype(np.float32) @ self.weights
        return scores + np.float32(self.constant)


def query_vector(
    layout: DescriptorLayout,
    schema: Schema,
    chances: Floats,
    nuance: Floats,
    wanted: Sequence[int] = (),
    unwanted: Sequence[int] = (),
    like: Sequence[int] = (),
    keep: float | None = None,
    known: Mapping[int, bool] | None = None,
) -> QueryVector:
    """All of a request for a picture; scores are 0..1.

    Args:
        layout: of the descriptors.
        schema: attributes and values.
        chances: the picture's, [K].
        nuance: the picture's, [N].
        wanted: flat indices of the values that hits should have.
        unwanted: of those that they should not have.
        like: attributes to compare by; empty: all that no value is named of.
        keep: the dial, 0..1 from "change it" to "keep it"; None: `KEEP`.
        known: named values of which the images to be ranked are known to have them or not: that
            settles the matter.

    Returns:
        Likeness alone if nothing is named.
    """
    named = [*wanted, *unwanted]
    alike = kept_likeness(layout, schema, chances, nuance, named, like)
    if not named:
        return alike
    keep = KEEP if keep is None else keep
    weights = value_weights(chances, wanted, unwanted)
    there = presence(layout, wanted, unwanted, weights)
    for value, has in (known or {}).items():  # its byte counts as 255 or 0
        there.constant += 255 * float(there.weights[value]) * has
        there.weights[value] = 0
    change = (1 - keep) * sum(weights)
    return (there * change + alike * keep) * (1 / (change + keep))


def value_weights(
    chances: Floats, wanted: Sequence[int], unwanted: Sequence[int] = ()
) -> list[float]:
    """What each named value counts: 1, and up to `SHOWN` more if the picture shows it already.

    Args:
        chances: the picture's, [K].
        wanted, unwanted: flat indices.

    Returns:
        Of the wanted, then of the unwanted.
    """
    shown = [float(chances[v]) for v in wanted] + [1 - float(chances[v]) for v in unwanted]
    return [1 + SHOWN * chance for chance in shown]


def kept_likeness(
    layout: DescriptorLayout,
    schema: Schema,
    chances: Floats,
    nuance: Floats,
    named: Sequence[int],
    like: Sequence[int] = (),
) -> QueryVector:
    """The likeness that a request asks for: in the attributes to compare by, else in all of which
    no value is named, and of the whole garment; 0..1.

    Args:
        layout, schema, chances, nuance, like: as for `query_vector`.
        named: flat indices of wanted and unwanted values.
    """
    if like:
        return likeness(layout, schema, chances, nuance, like, COMPARED, whole=False)
    taken = {int(schema.attribute_of[v]) for v in named}
    kept = [n for n in range(len(schema.attributes)) if n not in taken]
    return likeness(layout, schema, chances, nuance, kept, NUANCE if named else ALONE)


def presence(
    layout: DescriptorLayout,
    wanted: Sequence[int],
    unwanted: Sequence[int],
    weights: Sequence[float],
) -> QueryVector:
    """How surely an image has every wanted value and none of the unwanted: 0..1.

    The weighted mean over the named values of p ** ROOT, and of 1 minus it for the unwanted.

    Args:
        layout: of the descriptors.
        wanted, unwanted: flat indices, at least one in all.
        weights: of the wanted, then of the unwanted.
    """
    shares = np.array(weights, dtype=np.float32) / sum(weights)
    out = np.zeros(layout.width, dtype=np.float32)
    roots = out[layout.roots]
    roots[list(wanted)] = shares[: len(wanted)] / 255
    roots[list(unwanted)] = -shares[len(wanted) :] / 255
    return QueryVector(out, float(shares[len(wanted) :].sum()))


def likeness(
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
    the value and q the image's chance, partly as its root; of nuance, the mean cosine, as 0..1.

    Args:
        layout: of the descriptors.
        schema: attributes and values.
        chances: the picture's, [K].
        nuance: the picture's, [N].
        attributes: numbers of the attributes that are compared.
        share: of nuance, against chances.
        whole: whether the whole garment is; else nothing but the attributes given.
    """
    by_chances = _by_chances(layout, schema, chances, attributes)
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
    layout: DescriptorLayout, schema: Schema, chances: Floats, attributes: Sequence[int]
) -> QueryVector:
    shares = np.zeros(layout.values, dtype=np.float32)
    for number in attributes:
        own = chances[schema.slice_of(number)]
        shares[schema.slice_of(number)] = own / max(float(own.sum()), 1e-6)
    shares /= 255 * max(len(attributes), 1)
    weights = np.zeros(layout.width, dtype=np.float32)
    weights[layout.roots] = ROOTS * shares
    weights[layout.plain] = (1 - ROOTS) * shares
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
