"""Cold combinations: a few candidates from what is there already, then exact scores of those alone.

A condition without a view would cost a pass over all stored maps. Two cheaper looks find the images
that can matter. First the stored predictions: under a type condition the cosine of two embeddings
is nearly the chance p . p' that the images share a value (`value_readout.py`), so one product of a
vector with a matrix [K, N] ranks the gallery roughly. Then the type views that exist: the mean of
the cosines under the types that a condition speaks of ranks the best of those more finely. What is
left is encoded anew under the very condition, in place. How many are kept each time follows from a
recall target, see `calibration.py`. Predictions know nothing of a picture that they are unsure of;
images nearly the same as such a picture are found by searching the type views for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.store import Store
from retrieval.gallery_scores import Cosines, GalleryScores, Rows
from training.models.value_readout import DOUBT, LIKENESS
from training.schema import Schema

LARGEST = 1 << 29
"""Bytes of predictions that are held as float32; beyond, type views alone find candidates."""

LEAST = 30
"""Candidates for each hit that is asked for, at least."""

NEAR = 100
"""Nearest images under each type concerned that are candidates whatever the predictions say."""

_CHUNK = 1 << 13  # images: 3 MB of 91 values


@dataclass(frozen=True)
class Shares:
    """What is kept of a gallery after each look, as shares of its size, 0..1."""

    first: float
    second: float


class TwoStage:
    """Finds candidates in one gallery.

    Args:
        store: the gallery.
        near: nearest images under each type that are candidates anyway.
    """

    def __init__(self, store: Store, near: int = NEAR) -> None:
        self.store, self.near = store, near

    def candidates(
        self, scores: GalleryScores, rows: Rows, shares: Shares
    ) -> NDArray[np.int64] | None:
        """Rows that are worth an exact score.

        Args:
            scores: of the picture and request.
            rows: rows that are searched, ascending; None: all.
            shares: how many to keep.

        Returns:
            Ascending rows; None if it is no use to choose: the condition speaks of no attribute, or
            about as many would be kept as there are.
        """
        count = len(self.store) if rows is None else len(rows)
        last = max(math.ceil(shares.second * len(self.store)), LEAST * scores.terms.top_k)
        if not scores.terms.spoken or 2 * last > count:
            return None
        first = max(math.ceil(shares.first * len(self.store)), last)
        if not self.holds_predictions or 2 * first > count:
            chosen, rough = rows, self.by_views(scores, rows, None)
        else:
            by_label = self.by_labels(scores, rows)
            places = _best(scores.combined(by_label, rows).total, first)
            chosen = places if rows is None else rows[places]
            kept = None if by_label.kept is None else by_label.kept[places]
            rough = self.by_views(scores, chosen, Cosines(by_label.conditioned[places], kept))
        places = _best(scores.combined(rough, chosen).total, last)
        found = [places if chosen is None else chosen[places]]
        near = self.nearest(scores)
        found += near if rows is None else [np.intersect1d(part, rows) for part in near]
        return np.unique(np.concatenate(found))

    @property
    def holds_predictions(self) -> bool:
        """Whether there is a first look: else there are too many predictions to hold."""
        return self._matrix is not None

    def nearest(self, scores: GalleryScores) -> list[NDArray[np.int64]]:
        """The nearest rows under each type concerned that has a view."""
        out = []
        for number in {*scores.terms.spoken, *scores.terms.kept}:
            view = scores.pool.existing(self.store.schema.type_condition(number))
            if view is not None:
                query = scores.by_type[number][None]
                out.append(view.search(query, self.near, rough=True)[1][0])
        return out

    def by_labels(self, scores: GalleryScores, rows: Rows) -> Cosines:
        """The first look, where there is one: chances that picture and images share values, by
        stored predictions."""
        assert self._matrix is not None, "too many predictions to hold"
        own = scaled_chances(torch.from_numpy(scores.picture.chances)[None], self.store.schema)[0]
        matrix = self._matrix if rows is None else self._matrix[:, torch.from_numpy(rows)]

        def mean(attributes: Sequence[int]) -> NDArray[np.float32]:
            total = torch.zeros(matrix.shape[1])
            for number in attributes:
                where = self.store.schema.slice_of(number)
                total += (own[where] / len(attributes)) @ matrix[where]
            return total.numpy()

        found = [mean(g) for g in (scores.terms.spoken, scores.terms.kept) if g]
        return Cosines(found[0], found[1] if len(found) > 1 else None)

    def by_views(self, scores: GalleryScores, rows: Rows, labels: Cosines | None) -> Cosines:
        """The second look: the mean cosine under the types that the request speaks of.

        Args:
            scores: of the picture and request.
            rows: M rows, or all.
            labels: what the first look gave for those rows; it stands in for views that are
                missing, and for all of what is kept. None: views serve for everything, and are
                computed if they are missing.
        """
        terms, schema = scores.terms, self.store.schema
        types = [schema.type_condition(number) for number in terms.spoken]
        if labels is not None and any(scores.pool.existing(c) is None for c in types):
            return labels
        found = scores.mean(terms.spoken, rows)
        assert found is not None, "the request speaks of attributes"
        return Cosines(found, scores.mean(terms.kept, rows) if labels is None else labels.kept)

    @cached_property
    def _matrix(self) -> Tensor | None:
        """`scaled_chances` of the gallery [K, N] float32, so that a request reads the rows of its
        attributes only and each in sequence; None if that is more than `LARGEST`."""
        stored = self.store.predicted()
        if stored.size * 4 > LARGEST:
            return None
        out = torch.empty(stored.shape[::-1])
        for start in range(0, len(stored), _CHUNK):
            part = torch.from_numpy(np.array(stored[start : start + _CHUNK]))
            part = part.T.contiguous().float()  # turned first: then all else is in sequence
            out[:, start : start + _CHUNK] = scaled_chances(part.T, self.store.schema).T
        return out


def scaled_chances(chances: Tensor, schema: Schema) -> Tensor:
    """Probabilities of values, scaled so that the product of two rows within an attribute is about
    the cosine of the images' embeddings under its type condition.

    Args:
        chances: [M, K] float32 in 0..1.
        schema: K values.

    Returns:
        [M, K] float32.
    """
    out = torch.empty_like(chances)
    for number, attribute in enumerate(schema.attributes):
        where = schema.slice_of(number)
        p = chances[:, where]
        if attribute.multi:  # of one of them, drawn, as the readout has it
            p = p / p.sum(1, keepdim=True).clamp(min=1e-6)
        square = p.square().sum(1, keepdim=True)
        length = (square + DOUBT**2 * (1 - square).clamp(min=0) + LIKENESS**2).sqrt()
        out[:, where] = p / length
    return out


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Places of about the `count` highest scores, ascending."""
    if count >= len(scores):
        return np.arange(len(scores))
    return np.sort(np.argpartition(scores, len(scores) - count)[len(scores) - count :])
