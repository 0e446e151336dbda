"""What shops do: tag every picture once, filter by the tags, sort by generic likeness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.adde import predicted_values, unit
from training.schema import Schema


class ShopScorer:
    """Ranks like a shop; see `retrieval.evaluation.scorer.Scorer`.

    Pictures whose predicted tags fit all that is named come first, then those that fit all but
    one, and so on; among equals the nearest by generic features. The query's own other tags are no
    filters.

    Args:
        schema: attributes and values.
        chances: of every value [N, K], 0..1; the tags are `predicted_values` of them.
        features: generic ones of the pictures [N, F], standardised on train.
    """

    ranked_by = "tag, filter, nearest: predicted tags that fit, then cosine of pooled features"

    def __init__(
        self, schema: Schema, chances: NDArray[np.float32], features: NDArray[np.float32]
    ) -> None:
        self._tags = predicted_values(chances, schema)
        self._unit = unit(features)

    def whole(self, query: int) -> NDArray[np.float32]:
        """Cosine of the features, [N]."""
        return np.asarray(self._unit @ self._unit[query], dtype=np.float32)

    def kept(self, query: int, attributes: Sequence[int]) -> NDArray[np.float32]:
        """The same, whatever is named."""
        return self.whole(query)

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> NDArray[np.float32]:
        """Three times the number of names that fit, and the cosine: [N]."""
        has = self._tags[:, list(wanted)].sum(axis=1)
        lacks = (~self._tags[:, list(unwanted)]).sum(axis=1)
        return np.asarray(3 * (has + lacks) + self.whole(query), dtype=np.float32)
