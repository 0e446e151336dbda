"""What evaluation asks of whatever ranks images, scores of a whole split for one request, and what
the hits of a request that names values are measured by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from retrieval.evaluation.attribute_map import Embed
from retrieval.metrics import top_k
from retrieval.query_vector import Asked, formula_of
from training.datasets.dataset import Dataset
from training.descriptor import DescriptorLayout, Floats
from training.maps import MapBank
from training.models.embedder import chance_roots
from training.schema import Condition, Schema

Values = Sequence[int]
"""Flat indices of values, or numbers of attributes."""

CHUNK = 512
"""Maps that are looked at at a time."""

K = 10
"""Hits that are looked at."""

LEAST_RELEVANT = 5
"""So many images have what a combination or a pair of values asks for, or it is not asked."""


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
        """Scores [N] for the picture in row `query` and values that hits should have and lack.

        `keep` is the dial, from 0 (change it) to 1 (keep it); None: the default. A scorer without a
        dial ignores it.
        """
        ...

    def whole(self, query: int) -> NDArray[np.float32]:
        """Likeness to the image in row `query` when nothing is named, [N]."""
        return self.named(query, ())

    def kept(self, query: int, attributes: Values) -> NDArray[np.float32]:
        """The likeness that is kept when values of these attributes (by number) are named, [N]."""
        return self.whole(query)


def has_all(dataset: Dataset, rows: NDArray[np.int64], values: Values) -> NDArray[np.bool_]:
    """Whether each row is known to have all the values, [M] bool."""
    states = dataset.labels[np.ix_(rows, np.array(values, dtype=np.int64))]
    return np.asarray((states == 1).all(axis=1))


def first_hits(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first `K` of some rows by (-score, row), fewer if there are fewer; scores are of all."""
    found = top_k(scores[rows][None, :], K)[0]
    return np.asarray(rows[found[found >= 0]])


def kept_share(dataset: Dataset, query: int, rows: NDArray[np.int64], named: Values) -> float:
    """Over the attributes that were not named and are known for both, the share of images whose
    value equals the query's: keep@10 where `rows` are the hits.

    Of a multi-valued attribute one common value is enough. NaN where nothing can be compared.
    """
    schema = dataset.schema
    equal = comparable = 0
    for attribute in set(range(len(schema.attributes))) - set(schema.attribute_of[list(named)]):
        where = schema.slice_of(attribute)
        own = dataset.labels[query, where] == 1
        if own.any():
            has = dataset.labels[rows, where] == 1
            comparable += int(has.any(axis=1).sum())
            equal += int(has[:, own].any(axis=1).sum())
    return equal / comparable if comparable else math.nan


def mean_of_known(figures: NDArray[np.float64]) -> float | None:
    """Mean of those that are not NaN; None if all are."""
    known = figures[~np.isnan(figures)]
    return float(known.mean()) if len(known) else None


class DescriptorScorer(Scorer):
    """Scores as the engine does: the formula of a request over the bytes of descriptors.

    `descriptors` of the split are [N, width] uint8. Pictures are gallery images, so that their
    chances and nuance are read from descriptors too.
    """

    ranked_by = "as queries are"

    def __init__(
        self, layout: DescriptorLayout, schema: Schema, descriptors: NDArray[np.uint8]
    ) -> None:
        self._words = layout, schema
        self._bytes = descriptors.astype(np.float32)
        self._chances = layout.chances(descriptors)
        self._nuance = layout.nuance_of(descriptors)

    @classmethod
    def of(cls, bank: MapBank, schema: Schema) -> DescriptorScorer:
        """Of a split's bank, whose rows are 0..N-1."""
        layout = bank.model.layout
        return cls(layout, schema, layout.pack(bank.chances, bank.nuance))

    def kept(self, query: int, attributes: Values) -> Floats:
        """Likeness in the attributes not given, and of the garment, [N]."""
        named = [self._words[1].offsets[n] for n in attributes]
        picture = self._chances[query], self._nuance[query]
        vector = formula_of(*self._words, *picture, Asked(named)).alike
        return self._bytes @ vector.weights + np.float32(vector.constant)

    def named(
        self, query: int, wanted: Values, unwanted: Values = (), keep: float | None = None
    ) -> Floats:
        """As the engine ranks, [N]."""
        picture = self._chances[query], self._nuance[query]
        formula = formula_of(*self._words, *picture, Asked(wanted, unwanted, keep=keep))
        return formula.scores(self._bytes)

    def embed(self, condition: Condition, rows: NDArray[np.int64]) -> Floats:
        """Bytes of rows [M, width], whatever the condition; for `evaluate_attributes`."""
        return self._bytes[rows]

    def embed_queries(self, condition: Condition, rows: NDArray[np.int64]) -> Floats:
        """Weights of rows [M, width] when the attributes that a condition speaks of are compared,
        as by `--like`."""
        spoken = np.unique(self._words[1].attribute_of[np.flatnonzero(condition)]).tolist()
        pictures = zip(self._chances[rows], self._nuance[rows], strict=True)
        formulas = (formula_of(*self._words, *picture, Asked(like=spoken)) for picture in pictures)
        return np.stack([formula.vector.weights for formula in formulas])


class ConditionScorer(Scorer):
    """Scores by cosines under conditions alone: for models whose heads no loss has taught to
    predict values.

    The bank's rows are 0..N-1. Embeddings under the last condition are kept, so requests should
    come with those of one condition together.
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

    def kept(self, query: int, attributes: Values) -> Floats:
        """Mean cosine under the type conditions of the attributes not given, [N]; zeros if all are
        given."""
        total = np.zeros(len(self._view), dtype=np.float32)
        others = [n for n in range(len(self._by_type)) if n not in attributes]
        for number in others:
            total += self._by_type[number] @ self._by_type[number][query]
        return total / np.float32(max(1, len(others)))

    def named(
        self, query: int, wanted: Values, unwanted: Values = (), keep: float | None = None
    ) -> Floats:
        """Cosine under the named values, [N]; there is no dial."""
        condition = self._schema.value_condition(wanted)
        condition[list(unwanted)] = -1
        if condition.tobytes() != self._condition:
            self._view = self._bank.embed(condition, self._bank.rows)
            self._condition = condition.tobytes()
        cosines: Floats = self._view @ self._view[query]
        return cosines


class FloorScorer(Scorer):
    """Scores by the cosine of L2-normalised pooled features [N, d], whatever is named."""

    ranked_by = "by average-pooled features of the backbone, whatever is named"

    def __init__(self, pooled: Floats) -> None:
        self._pooled = pooled

    def named(
        self, query: int, wanted: Values = (), unwanted: Values = (), keep: float | None = None
    ) -> Floats:
        """Cosine to the query, [N]."""
        cosines: Floats = self._pooled @ self._pooled[query]
        return cosines


def root_embed(bank: MapBank) -> Embed:
    """How any classifier may be searched by: `chance_roots` of what it says."""

    def embed(condition: Condition, rows: NDArray[np.int64]) -> Floats:
        asked = torch.from_numpy(condition).float().unsqueeze(0)
        return chance_roots(torch.from_numpy(bank.chances[rows]), asked, bank.model.schema).numpy()

    return embed


def feature_embed(bank: MapBank) -> Embed:
    """Z of a model, of length 1, whatever embedding it makes of it."""
    device = next(bank.model.parameters()).device

    @torch.inference_mode()
    def embed(condition: Condition, rows: NDArray[np.int64]) -> Floats:
        asked = torch.from_numpy(condition).float().reshape(1, 1, -1).to(device)
        parts = []
        for start in range(0, len(rows), CHUNK):
            part = torch.from_numpy(rows[start : start + CHUNK])
            maps, keys = (of[part].to(device).float() for of in (bank.maps, bank.keys))
            parts.append(F.normalize(bank.model.attend_raw(maps, asked, keys)[:, 0], dim=-1).cpu())
        return torch.cat(parts).numpy()

    return embed


def floor_embed(bank: MapBank) -> Embed:
    """Average-pooled features of the backbone as it is, whatever the condition."""
    return lambda condition, rows: bank.pooled[rows]
