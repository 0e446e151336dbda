"""Exact scores of gallery images for one picture and request, of all of them or of some rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.store import Store
from indexer.views import embed
from retrieval.picture import Picture
from retrieval.ranking import (
    PRESENCE_WEIGHT,
    SETTLED_WEIGHT,
    combine,
    likeness,
    presence,
    presence_weight,
)
from retrieval.request import Terms
from retrieval.view_pool import ViewPool
from training.schema import Condition

Rows = NDArray[np.int64] | None
"""Rows of the index; None: all of them."""


@dataclass(frozen=True)
class Scores:
    """Likeness and score [M] float32 of gallery images."""

    alike: NDArray[np.float32]
    total: NDArray[np.float32]


@dataclass(frozen=True)
class Cosines:
    """What scores are made of, exact or rough.

    Args:
        conditioned: cosines under the request's condition, [M].
        kept: mean cosines under the type conditions of what is kept, [M]; None if nothing is.
    """

    conditioned: NDArray[np.float32]
    kept: NDArray[np.float32] | None


class GalleryScores:
    """Scores of a gallery for a picture and a request; `ranking.py` says what they are made of.

    Args:
        store: the gallery.
        pool: its views.
        picture: the query.
        terms: what is asked.
    """

    def __init__(
        self,
        store: Store,
        pool: ViewPool,
        picture: Picture,
        terms: Terms,
    ) -> None:
        self.store, self.pool, self.terms, self.picture = store, pool, terms, picture
        types = sorted({*terms.kept, *terms.spoken})
        conditions = [terms.condition, *(store.schema.type_condition(t) for t in types)]
        vectors = pool.embed(picture, conditions)
        self.z: NDArray[np.float32] = vectors[0]
        """Z of the picture under the request's condition, [d]."""
        self.by_type: dict[int, NDArray[np.float32]] = dict(zip(types, vectors[1:], strict=True))
        """Z of the picture under the type conditions of all attributes concerned."""
        self.has = 0.0
        """Probability that the picture has what is named; 0 if nothing is."""
        if terms.named:
            own = picture.chances[None]
            self.has = float(presence(own, terms.wanted, terms.unwanted)[0])
        base = SETTLED_WEIGHT if terms.trust_labels else PRESENCE_WEIGHT
        self.weight = presence_weight(self.has, base)

    def exact(self, rows: Rows = None) -> Scores:
        """Scores of some rows, or of all; maps are encoded anew where there is no view."""
        conditioned = self.cosines(self.terms.condition, self.z, rows)
        return self.combined(Cosines(conditioned, self.mean(self.terms.kept, rows)), rows)

    def combined(self, cosines: Cosines, rows: Rows) -> Scores:
        """Scores from the cosines of some rows, or of all."""
        if not self.terms.named:
            return Scores(cosines.conditioned, cosines.conditioned)
        alike = likeness(cosines.conditioned, cosines.kept, self.has)
        return Scores(alike, combine(alike, self.presence(rows), self.weight))

    def mean(self, attributes: Sequence[int], rows: Rows) -> NDArray[np.float32] | None:
        """Mean cosine under the attributes' type conditions, [M]; None if there are none."""
        total: NDArray[np.float32] | None = None
        for number in attributes:
            condition = self.store.schema.type_condition(number)
            part = self.cosines(condition, self.by_type[number], rows) / np.float32(len(attributes))
            total = part if total is None else total + part
        return total

    def presence(self, rows: Rows) -> NDArray[np.float32]:
        """Probability that images have what is named, [M]."""
        terms = self.terms
        chances, labels = self.store.predicted(), None
        if terms.trust_labels:
            labels = self.store.labels()
        if rows is not None:
            chances = chances[rows]
            labels = None if labels is None else labels[rows]
        return presence(chances, terms.wanted, terms.unwanted, labels)

    def cosines(
        self, condition: Condition, z: NDArray[np.float32], rows: Rows
    ) -> NDArray[np.float32]:
        """Cosines of images under a condition and `z` [d], [M]."""
        if rows is None:
            return self.pool.get(condition).scores(z)
        view = self.pool.existing(condition)
        if view is not None:
            return view.scores_of(rows, z)
        vectors = embed(self.store, self.pool.model, condition, rows, device=self.pool.device)
        scores: NDArray[np.float32] = (vectors * z).sum(1)
        return scores
