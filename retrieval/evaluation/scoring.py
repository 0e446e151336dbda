"""What evaluation ranks: the engine's own scores, and the untrained floor."""

from __future__ import annotations

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

BY_LIKENESS = "by likeness under the named values alone"
"""How `LikenessRanker` ranks."""


class LikenessRanker:
    """Scores candidates by their cosine to the query under the named values, and by nothing else.

    Args:
        bank: maps of the split.
        schema: attributes and values.
    """

    def __init__(self, bank: MapBank, schema: Schema) -> None:
        self._bank = bank
        self._schema = schema
        self._values: tuple[int, ...] | None = None
        self._vectors: NDArray[np.float32] = np.zeros((0, bank.model.dim), dtype=np.float32)

    def __call__(
        self, query: int, values: list[int], candidates: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores [M] of candidate rows; the view of the last values asked for is kept."""
        if self._values != tuple(values):
            condition = self._schema.value_condition(values)
            self._vectors = self._bank.embed(condition, self._bank.rows)
            self._values = tuple(values)
        own = int(self._bank.places(np.array([query]))[0])
        scores = (self._vectors @ self._vectors[own])[self._bank.places(candidates)]
        return np.asarray(scores, dtype=np.float32)


class CombinationRanker:
    """Scores candidates for a query image and named values exactly as the engine does.

    Args:
        bank: maps of the split.
        schema: attributes and values.
        weight: of the presence term, the engine's by default.
    """

    def __init__(self, bank: MapBank, schema: Schema, weight: float = PRESENCE_WEIGHT) -> None:
        self._bank = bank
        self._schema = schema
        self._weight = weight
        self._conditioned = LikenessRanker(bank, schema)
        self._predicted = bank.predict(bank.rows)
        types = range(len(schema.attributes))
        self._by_type = [bank.embed(schema.type_condition(n), bank.rows) for n in types]

    def __call__(
        self, query: int, values: list[int], candidates: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores [M] of candidate rows; the view of the last values asked for is kept."""
        places = self._bank.places(candidates)
        own = int(self._bank.places(np.array([query]))[0])
        by_type = [
            (self._by_type[n] @ self._by_type[n][own])[places]
            for n in kept_attributes(self._schema, values)
        ]
        kept = np.stack(by_type).mean(axis=0) if by_type else None
        has = float(presence(self._predicted[[own]], values)[0])
        alike = likeness(self._conditioned(query, values, candidates), kept, has)
        weight = presence_weight(has, self._weight)
        return combine(alike, presence(self._predicted[places], values), weight)


def floor_embed(bank: MapBank) -> Embed:
    """Average-pooled features of the backbone as it is, whatever the condition."""

    def embed(condition: Condition, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return bank.pooled[bank.places(rows)]

    return embed
