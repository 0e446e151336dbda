"""How hits are ranked: likeness to the query, and how surely the named values are there.

An embedding conditioned on "v-neckline" of an image without one lands among those without one. So
likeness under a value condition counts as far as the query has the values; likeness in what was
not named, under the type conditions of those attributes, always counts: "like this, but". The score
adds the probability that the candidate has every named value and no unwanted one. All terms are
bounded, so that once a candidate surely has the values, likeness decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from training.schema import Schema

PRESENCE_WEIGHT = 1.0
"""Weight of the probability beside the likeness, chosen on a valid split: `python -m
benchmarks.presence_weight`, whose figures are in benchmarks/NOTES.md."""

SHOWN_WEIGHT = 2.0
"""How much more it is for what the query shows itself: named nevertheless, it matters most. Chosen
on the same valid split."""

SETTLED_WEIGHT = 2.0
"""The same where known labels settle the matter: likeness spans 2, so no known absence outranks a
known presence."""


def presence(
    probabilities: NDArray[np.float32] | NDArray[np.float16],
    present: Sequence[int],
    absent: Sequence[int] = (),
    labels: NDArray[np.int8] | None = None,
) -> NDArray[np.float32]:
    """Probability of having all `present` values and none of the `absent` ones.

    Args:
        probabilities: the model's probability of every value, [M, K] in 0..1.
        present: flat indices of wanted values.
        absent: flat indices of unwanted values.
        labels: label states [M, K]; where one is known it settles the matter (1 or 0).

    Returns:
        [M] float32 in 0..1, the product over the named values; 1 when none is named.
    """
    named = np.array([*present, *absent], dtype=np.int64)
    # By torch, on all cores: numpy converts float16 one number at a time.
    chances: NDArray[np.float32] = torch.from_numpy(probabilities[:, named]).float().numpy()
    if labels is not None:
        known = labels[:, named]
        chances = np.where(known == 0, chances, (known > 0).astype(np.float32))
    chances[:, len(present) :] = 1 - chances[:, len(present) :]
    product: NDArray[np.float32] = chances.prod(axis=1, dtype=np.float32)
    return product


def likeness(
    conditioned: NDArray[np.float32], kept: NDArray[np.float32] | None, has: float
) -> NDArray[np.float32]:
    """Likeness of candidates to a query for which values are named.

    Args:
        conditioned: cosines under the condition, [M].
        kept: mean cosines under the type conditions of the attributes that should stay as they
            are, [M]; None if there are none.
        has: probability that the query has what is named, 0..1.

    Returns:
        [M] float32 in -1..1: the mean of both, the first weighted by `has`.
    """
    if kept is None:
        return conditioned
    return ((has * conditioned + kept) / (has + 1)).astype(np.float32)


def kept_attributes(schema: Schema, named: Sequence[int], like: Sequence[int] = ()) -> list[int]:
    """Attributes that hits should share with the query: those asked for, else all not named.

    Args:
        schema: attributes and values.
        named: flat indices of wanted and unwanted values.
        like: attributes to compare by.
    """
    taken = {int(schema.attribute_of[v]) for v in named}
    return list(like) or [n for n in range(len(schema.attributes)) if n not in taken]


def presence_weight(has: float, weight: float = PRESENCE_WEIGHT) -> float:
    """Weight of the probability beside the likeness.

    Args:
        has: probability that the query has what is named, 0..1.
        weight: of what the query does not have.
    """
    return weight * (1 + SHOWN_WEIGHT * has)


def combine(
    likeness: NDArray[np.float32],
    present: NDArray[np.float32] | None,
    weight: float = PRESENCE_WEIGHT,
) -> NDArray[np.float32]:
    """Scores by which hits are ranked.

    Args:
        likeness: of query and candidate, [M].
        present: what `presence` gave, or None when no value is named.
        weight: of the probability beside the likeness.

    Returns:
        [M] float32; likeness alone without named values.
    """
    if present is None:
        return likeness
    return (likeness + weight * present).astype(np.float32)
