"""Scorers: descriptors as the engine ranks them, untaught models by their cosines, the floor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.attribute_map import Embed
from retrieval.query_vector import Asked, formula_of
from training.descriptor import DescriptorLayout, Floats
from training.map_bank import MapBank
from training.schema import Condition, Schema


class DescriptorScorer:
    """Scores as the engine does: the formula of a request over the bytes of descriptors.

    Pictures are gallery images, so that their chances and nuance are read from descriptors too.

    Args:
        layout: of the descriptors.
        schema: attributes and values.
        descriptors: of the split [N, width] uint8.
    """

    ranked_by = "as queries are"

    def __init__(
        self, layout: DescriptorLayout, schema: Schema, descriptors: NDArray[np.uint8]
    ) -> None:
        self._layout, self._schema = layout, schema
        self._bytes = descriptors.astype(np.float32)
        self._chances = layout.chances(descriptors)
        self._nuance = layout.nuance_of(descriptors)

    @classmethod
    def of(cls, bank: MapBank, schema: Schema) -> DescriptorScorer:
        """Of a split's bank, whose rows are 0..N-1."""
        layout = bank.model.layout
        return cls(layout, schema, layout.pack(bank.chances, bank.nuance))

    def whole(self, query: int) -> Floats:
        """Likeness, [N]."""
        return self.named(query, ())

    def kept(self, query: int, attributes: Sequence[int]) -> Floats:
        """Likeness in the attributes not given, and of the garment, [N]."""
        named = [self._schema.offsets[n] for n in attributes]
        picture = self._chances[query], self._nuance[query]
        vector = formula_of(self._layout, self._schema, *picture, Asked(named)).alike
        return self._bytes @ vector.weights + np.float32(vector.constant)

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> Floats:
        """As the engine ranks, [N]."""
        picture = self._chances[query], self._nuance[query]
        formula = formula_of(
            self._layout, self._schema, *picture, Asked(wanted, unwanted, keep=keep)
        )
        return formula.scores(self._bytes)

    def embed(self, condition: Condition, rows: NDArray[np.int64]) -> Floats:
        """Bytes of rows [M, width], whatever the condition; for `evaluate_attributes`."""
        return self._bytes[rows]

    def embed_queries(self, condition: Condition, rows: NDArray[np.int64]) -> Floats:
        """Weights of rows [M, width] when the attributes that a condition speaks of are compared,
        as by `--like`."""
        spoken = np.unique(self._schema.attribute_of[np.flatnonzero(condition)]).tolist()
        vectors = [
            formula_of(self._layout, self._schema, *picture, Asked(like=spoken)).vector
            for picture in zip(self._chances[rows], self._nuance[rows], strict=True)
        ]
        return np.stack([vector.weights for vector in vectors])


class ConditionScorer:
    """Scores by cosines under conditions alone: for models whose heads no loss has taught to
    predict values.

    Embeddings under the last condition are kept, so requests should come with those of one
    condition together.

    Args:
        bank: maps of the split; its rows are 0..N-1.
        schema: attributes and values.
    """

    ranked_by = "by likeness under the named values alone"

    def __init__(self, bank: MapBank, schema: Schema) -> None:
        self._bank, self._schema = bank, schema
        types = range(len(schema.attributes))
        self._by_type = [bank.embed(schema.type_condition(n), bank.rows) for n in types]
        self._condition: bytes = b""
        self._view = self._by_type[0]

    def whole(self, query: int) -> Floats:
        """Mean cosine under all type conditions, [N]."""
        return self.kept(query, ())

    def kept(self, query: int, attributes: Sequence[int]) -> Floats:
        """Mean cosine under the type conditions of the attributes not given, [N]; zeros if all are
        given."""
        total = np.zeros(len(self._view), dtype=np.float32)
        others = [n for n in range(len(self._by_type)) if n not in attributes]
        for number in others:
            total += _cosines(self._by_type[number], query)
        return total / np.float32(max(1, len(others)))

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> Floats:
        """Cosine under the named values, [N]; there is no dial."""
        condition = self._schema.value_condition(wanted)
        condition[list(unwanted)] = -1
        if condition.tobytes() != self._condition:
            self._view = self._bank.embed(condition, self._bank.rows)
            self._condition = condition.tobytes()
        return _cosines(self._view, query)


class FloorScorer:
    """Scores by the cosine of pooled features of the backbone, whatever is named.

    Args:
        pooled: L2-normalised features [N, d] float32.
    """

    ranked_by = "by average-pooled features of the backbone, whatever is named"

    def __init__(self, pooled: Floats) -> None:
        self._pooled = pooled

    def whole(self, query: int) -> Floats:
        """Cosine to the query, [N]."""
        return _cosines(self._pooled, query)

    def kept(self, query: int, attributes: Sequence[int]) -> Floats:
        """The same, [N]."""
        return self.whole(query)

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> Floats:
        """The same, [N]."""
        return self.whole(query)


def floor_embed(bank: MapBank) -> Embed:
    """Average-pooled features of the backbone as it is, whatever the condition."""

    def embed(condition: Condition, rows: NDArray[np.int64]) -> Floats:
        return bank.pooled[bank.places(rows)]

    return embed


def _cosines(vectors: Floats, query: int) -> Floats:
    cosines: Floats = vectors @ vectors[query]
    return cosines
