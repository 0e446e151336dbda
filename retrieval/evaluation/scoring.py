"""Scorers: version 0.1's ranking by maps encoded anew, and the untrained floor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.attribute_map import Embed
from retrieval.ranking import (
    PRESENCE_WEIGHT,
    combine,
    kept_attributes,
    likeness,
    presence,
    presence_weight,
)
from training.map_bank import MapBank
from training.schema import Condition, Schema

AS_QUERIES = "as queries are"
"""How the engine ranks: by likeness and by presence, with their weights."""

BY_LIKENESS = "by likeness under the named values alone"
"""How models are ranked whose heads no loss has taught to predict values."""

BY_POOLED = "by average-pooled features of the backbone, whatever is named"
"""How the floor ranks."""


class EarlierScorer:
    """Scores as version 0.1 does: cosines under conditions, and the presence of named values.

    The view of the last condition, the likenesses to the last query and the last scores are kept,
    so requests should come with those of one condition together, and within it those of one query.

    Args:
        bank: maps of the split; its rows are 0..N-1.
        schema: attributes and values.
        weight: of the presence term. None leaves it out, and with it the likeness in what is not
            named: `named` is the cosine under the named values alone, for heads that are untaught.
    """

    def __init__(
        self, bank: MapBank, schema: Schema, weight: float | None = PRESENCE_WEIGHT
    ) -> None:
        self._bank = bank
        self._schema = schema
        self._weight = weight
        self.ranked_by = AS_QUERIES
        if weight is None:
            self.ranked_by = BY_LIKENESS
        elif weight != PRESENCE_WEIGHT:
            self.ranked_by += f", but with a presence weight of {weight:g}"
        self._predicted = None if weight is None else bank.predict(bank.rows)
        types = range(len(schema.attributes))
        self._by_type = [bank.embed(schema.type_condition(n), bank.rows) for n in types]
        self._unconditioned = bank.embed(np.zeros(schema.size, dtype=np.int8), bank.rows)
        self._condition: bytes = b""
        self._view = self._unconditioned
        self._request: tuple[int, tuple[int, ...], tuple[int, ...]] = (-1, (), ())
        self._scores = np.zeros(0, dtype=np.float32)
        self._query = -1
        self._alike: dict[int, NDArray[np.float32]] = {}

    def whole(self, query: int) -> NDArray[np.float32]:
        """Cosine under the condition that knows nothing, [N]."""
        return _cosines(self._unconditioned, query)

    def kept(self, query: int, attributes: Sequence[int]) -> NDArray[np.float32]:
        """Mean cosine under the type conditions of the attributes not given, [N].

        Zeros if all are given: nothing is kept.
        """
        others = [n for n in range(len(self._by_type)) if n not in attributes]
        return self._mean(query, others)

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> NDArray[np.float32]:
        """As the engine of version 0.1 ranks, [N]; it has no dial."""
        if (query, tuple(wanted), tuple(unwanted)) != self._request:  # else it is the dial's turn
            self._request = (query, tuple(wanted), tuple(unwanted))
            self._scores = self._named(query, wanted, unwanted)
        return self._scores

    def _named(
        self, query: int, wanted: Sequence[int], unwanted: Sequence[int]
    ) -> NDArray[np.float32]:
        condition = self._schema.value_condition(wanted)
        condition[list(unwanted)] = -1
        if condition.tobytes() != self._condition:
            self._view = self._bank.embed(condition, self._bank.rows)
            self._condition = condition.tobytes()
        conditioned = _cosines(self._view, query)
        if self._predicted is None or self._weight is None:
            return conditioned
        others = kept_attributes(self._schema, [*wanted, *unwanted])
        kept = self._mean(query, others) if others else None
        has = float(presence(self._predicted[[query]], wanted, unwanted)[0])
        present = presence(self._predicted, wanted, unwanted)
        weight = presence_weight(has, self._weight)
        return combine(likeness(conditioned, kept, has), present, weight)

    def _mean(self, query: int, attributes: Sequence[int]) -> NDArray[np.float32]:
        if query != self._query:
            self._query, self._alike = query, {}
        total = np.zeros(len(self._unconditioned), dtype=np.float32)
        for n in attributes:
            if n not in self._alike:
                self._alike[n] = _cosines(self._by_type[n], query)
            total += self._alike[n]
        return total / np.float32(max(1, len(attributes)))


class FloorScorer:
    """Scores by the cosine of pooled features of the backbone, whatever is named.

    Args:
        pooled: L2-normalised features [N, d] float32.
    """

    ranked_by = BY_POOLED

    def __init__(self, pooled: NDArray[np.float32]) -> None:
        self._pooled = pooled

    def whole(self, query: int) -> NDArray[np.float32]:
        """Cosine to the query, [N]."""
        return _cosines(self._pooled, query)

    def kept(self, query: int, attributes: Sequence[int]) -> NDArray[np.float32]:
        """The same, [N]."""
        return self.whole(query)

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> NDArray[np.float32]:
        """The same, [N]."""
        return self.whole(query)


def floor_embed(bank: MapBank) -> Embed:
    """Average-pooled features of the backbone as it is, whatever the condition."""

    def embed(condition: Condition, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return bank.pooled[bank.places(rows)]

    return embed


def _cosines(vectors: NDArray[np.float32], query: int) -> NDArray[np.float32]:
    return np.asarray(vectors @ vectors[query], dtype=np.float32)
