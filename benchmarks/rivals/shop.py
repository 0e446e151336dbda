"""What shops do: tag every picture once, filter by the tags, sort by generic likeness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.rivals.adde import predicted_values, unit
from training.descriptor import Floats
from training.schema import Schema


class ShopScorer:
    """Ranks like a shop; see `retrieval.evaluation.scorer.Scorer`.

    Pictures whose predicted tags fit all that is named come first, then those that fit all but
    one, and so on; among equals the nearest by generic features [N, F], standardised on train. The
    tags are `predicted_values` of the chances [N, K]; the query's own other tags are no filters.
    """

    ranked_by = "tag, filter, nearest: predicted tags that fit, then cosine of pooled features"

    def __init__(self, schema: Schema, chances: Floats, features: Floats) -> None:
        self._tags = predicted_values(chances, schema)
        self._unit = unit(features)

    def whole(self, query: int) -> Floats:
        """Cosine of the features, [N]."""
        return np.asarray(self._unit @ self._unit[query], dtype=np.float32)

    def kept(self, query: int, attributes: Sequence[int]) -> Floats:
        """The same, whatever is named."""
        return self.whole(query)

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> Floats:
        """Three times the number of names that fit, and the cosine: [N]."""
        has = self._tags[:, list(wanted)].sum(axis=1)
        lacks = (~self._tags[:, list(unwanted)]).sum(axis=1)
        return np.asarray(3 * (has + lacks) + self.whole(query), dtype=np.float32)
