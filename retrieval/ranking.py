"""How hits are ranked: likeness under the condition, and how surely the named values are there.

An embedding conditioned on "v-neckline" of an image without one lands among those without one. So
a value condition's score adds the probability that the candidate has every named value and no
unwanted one. Both are bounded, so that once a candidate surely has the values, likeness decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics import top_k

PRESENCE_WEIGHT = 2.0
"""Weight of the probability beside the cosine, chosen on a valid split: `python -m
benchmarks.presence_weight`, whose figures are in benchmarks/NOTES.md."""

_DECIMALS = 6  # scores that differ by float32 rounding alone are ties, broken by id


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
    chances = probabilities[:, named].astype(np.float32)
    if labels is not None:
        known = labels[:, named]
        chances = np.where(known == 0, chances, (known > 0).astype(np.float32))
    chances[:, len(present) :] = 1 - chances[:, len(present) :]
    product: NDArray[np.float32] = chances.prod(axis=1, dtype=np.float32)
    return product


def combine(
    likeness: NDArray[np.float32],
    present: NDArray[np.float32] | None,
    weight: float = PRESENCE_WEIGHT,
) -> NDArray[np.float32]:
    """Scores by which hits are ranked.

    Args:
        likeness: cosine of query and candidate under the condition, [M].
        present: what `presence` gave, or None when no value is named.
        weight: of the probability beside the cosine.

    Returns:
        [M] float32; likeness alone without named values.
    """
    if present is None:
        return likeness
    return (likeness + weight * present).astype(np.float32)


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the `k` highest scores, best first, ties by place; fewer if there are fewer.

    Args:
        scores: [M].
        k: at least 1.
    """
    if len(scores) == 0:
        return np.zeros(0, dtype=np.int64)
    places: NDArray[np.int64] = top_k(np.round(scores, _DECIMALS)[None, :], min(k, len(scores)))[0]
    return places
