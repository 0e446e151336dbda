"""The query vector: what a request becomes, over the bytes of descriptors.

    score = (1 - keep) x presence + keep x likeness                      each 0..1

Presence says how surely an image has every named value and none of the unwanted; likeness, how much
it is like the picture in the attributes that were not named: in what it is (chances) and in which
one it is (nuance). Both are inner products with the descriptor, so all of it is one vector, and the
index that finds candidates ranks by the full formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.descriptor import GARMENT, DescriptorLayout
from training.schema import Schema

KEEP = 0.65
"""The dial where nobody turns it; chosen on `valid`, as all constants here: NOTES.md."""

NUANCE = 0.6
"""Share of nuance, against chances, in likeness."""

COMPARED = 0.05
"""The same where attributes to compare by are named: of those it is asked what a garment is."""

GARMENT_SHARE = 0.6
"""Share of the whole garment's nuance, against that of the attributes."""

ROOTS = 0.2
"""Share of the roots of chances, against the chances, in likeness."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
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

    Returns:
        Likeness alone if nothing is named.
    """
    kept = kept_attributes(schema, [*wanted, *unwanted], like)
    alike = likeness(layout, schema, chances, nuance, kept, whole=not like)
    if not wanted and not unwanted:
        return alike
    keep = KEEP if keep is None else keep
    return presence(layout, wanted, unwanted) * (1 - keep) + alike * keep


def kept_attributes(schema: Schema, named: Sequence[int], like: Sequence[int] = ()) -> list[int]:
    """Attributes that hits should share with the picture: those asked for, else all not named.

    Args:
        schema: attributes and values.
        named: flat indices of wanted and unwanted values.
        like: attributes to compare by.
    """
    taken = {int(schema.attribute_of[v]) for v in named}
    return list(like) or [n for n in range(len(schema.attributes)) if n not in taken]


def presence(
    layout: DescriptorLayout, wanted: Sequence[int], unwanted: Sequence[int] = ()
) -> QueryVector:
    """How surely an image has every wanted value and none of the unwanted: 0..1.

    The mean over the named values of p ** ROOT, and of 1 minus it for the unwanted.

    Args:
        layout: of the descriptors.
        wanted, unwanted: flat indices, at least one in all.
    """
    weights = np.zeros(layout.width, dtype=np.float32)
    share = 1 / (len(wanted) + len(unwanted))
    roots = weights[layout.roots]
    roots[list(wanted)] = share / 255
    roots[list(unwanted)] = -share / 255
    return QueryVector(weights, share * len(unwanted))


def likeness(
    layout: DescriptorLayout,
    schema: Schema,
    chances: Floats,
    nuance: Floats,
    attributes: Sequence[int],
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
    share = NUANCE if whole else COMPARED
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
