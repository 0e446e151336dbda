"""Known labels settle whether a value is there: one search for each way they can be known.

The images are parted by what is known of the named values (had, lacked, unknown). In each part the
bytes of what is known count as 255 or 0, which is one constant for all of it; so each part is one
search with one query vector, and the parts' best are the best of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Part:
    """Images of which the same is known.

    Args:
        known: flat index of each named value that is known, and whether the images have it.
        rows: whether each image of the index belongs to the part, [M] bool.
    """

    known: dict[int, bool]
    rows: NDArray[np.bool_]


def parts_by_labels(
    states: NDArray[np.int8], named: Sequence[int], allowed: NDArray[np.bool_] | None
) -> Iterator[Part]:
    """The parts that are not empty; together they are the allowed images.

    Args:
        states: label states of the named values [M, n].
        named: flat indices of these values, n of them.
        allowed: images to search, [M] bool; None: all.
    """
    codes = (states.astype(np.int64) + 1) @ (3 ** np.arange(len(named)))
    for code in np.unique(codes if allowed is None else codes[allowed]).tolist():
        rows = codes == code if allowed is None else (codes == code) & allowed
        own = states[int(rows.argmax())]
        yield Part({v: s > 0 for v, s in zip(named, own.tolist(), strict=True) if s}, rows)
