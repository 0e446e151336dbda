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

KEEP = 0.5
"""The dial where nobody turns it; chosen on `valid`, see benchmarks/NOTES.md."""

NUANCE = 0.5
"""Share of nuance, against chances, in likeness; chosen on `valid`."""

SHARPEN = 1.5
"""Power of the picture's own chances: with the square roots of the images' they rank nearly as the
chances themselves would."""

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

    The mean over the named values of p ** POWER, and of 1 minus it for the unwanted.

    Args:
        layout: of the descriptors.
        wanted, unwanted: flat indices, at least one in all.
    """
    weights = np.zeros(layout.width, dtype=np.float32)
    share = 1 / (len(wanted) + len(unwanted))
    weights[list(wanted)] = share / 255
    weights[list(unwanted)] = -share / 255
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

    Of chances, the mean over the attributes of the sum over values of p q ** POWER, p the
    picture's share of the value, sharpened, and q the image's chance; of nuance, the mean cosine,
    as 0..1.

    Args:
        layout: of the descriptors.
        schema: attributes and values.
        chances: the picture's, [K].
        nuance: the picture's, [N].
        attributes: numbers of the attributes that are compared.
        whole: whether the nuance of the whole garment counts too.
    """
    by_chances = np.zeros(layout.width, dtype=np.float32)
    for number in attributes:
        where = schema.slice_of(number)
        own = chances[where] ** SHARPEN
        by_chances[where] = own / max(float(own.sum()), 1e-6) / (255 * len(attributes))
    owners = [*attributes, *([GARMENT] if whole else [])]
    groups = sum(owner in owners for owner, _ in layout.groups)
    if not groups:
        return QueryVector(by_chances, 0.0)
    # A byte x stands for span (x / 127.5 - 1); a cosine c counts as (1 + c) / 2.
    by_nuance = np.zeros(layout.width, dtype=np.float32)
    compared = np.isin(layout.owners, owners) * nuance * layout.spans / (2 * groups)
    by_nuance[layout.values : layout.values + layout.nuance] = compared / 127.5
    alike = QueryVector(by_nuance, 0.5 - float(compared.sum()))
    if not attributes:
        return alike
    return QueryVector(by_chances, 0.0) * (1 - NUANCE) + alike * NUANCE
