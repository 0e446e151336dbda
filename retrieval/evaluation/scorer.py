"""What evaluation asks of whatever ranks images: scores of a whole split for one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Values = Sequence[int]
"""Flat indices of values, or numbers of attributes."""


class Scorer(Protocol):
    """Scores every image of a split for requests made with one of its images.

    Rows are 0..N-1 of the split's own dataset. Higher is better. The query itself is among the N;
    whoever asks takes it out.
    """

    ranked_by: str
    """How it ranks, in words, for reports."""

    def named(
        self, query: int, wanted: Values, unwanted: Values = (), keep: float | None = None
    ) -> NDArray[np.float32]:
        """Scores for a request that names values, [N].

        Args:
            query: row of the picture.
            wanted: flat indices of the values that hits should have.
            unwanted: flat indices of those that they should lack.
            keep: the dial, from 0 (change it) to 1 (keep it); None: the default. A scorer without
                a dial ignores it.
        """
        ...

    def whole(self, query: int) -> NDArray[np.float32]:
        """Likeness to the image in row `query` when nothing is named, [N]."""
        return self.named(query, ())

    def kept(self, query: int, attributes: Values) -> NDArray[np.float32]:
        """The likeness that is kept when values of these attributes (by number) are named, [N]."""
        return self.whole(query)
