"""Requests that exclude a value: `without` alone, and together with a wanted one (`but_without`).

The query of a request has the unwanted value, so likeness pulls towards it; a hit violates the
request if it is *known* to have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.combinations import has_all
from retrieval.evaluation.scorer import Scorer
from retrieval.evaluation.shared_attributes import shared_attributes
from retrieval.metrics import top_k
from training.datasets.dataset import Dataset

K = 10
"""Hits that are looked at."""

QUERIES = 1000
"""At most so many queries of each kind, a fixed draw."""

PAIRS = 50
"""At most so many pairs of a wanted and an unwanted value."""

LEAST_RELEVANT = 5
"""A pair counts only if so many images have the wanted value and are known to lack the other."""


@dataclass(frozen=True)
class ExclusionScore:
    """Means over the queries of one kind, in [0, 1].

    Args:
        violation10: share of the first 10 hits known to have the unwanted value.
        violation_chance: the same share of all images beside the query.
        keep10: over the attributes that were not named and are known for both, the share of hits
            with the query's value; None if no query has such an attribute.
        precision10: share of the hits that have the wanted value and are known to lack the
            unwanted one; None where none is wanted.
        queries: number of queries.
    """

    violation10: float
    violation_chance: float
    keep10: float | None
    precision10: float | None
    queries: int


@dataclass(frozen=True)
class ExclusionReport:
    """Both kinds; `but_without` is None where no pair of values has enough images.

    Args:
        without: every query image excludes one value that it has.
        but_without: it also wants one that it lacks, of another attribute.
        seed: of the draws.
        ranked_by: what ranked.
    """

    without: ExclusionScore
    but_without: ExclusionScore | None
    seed: int
    ranked_by: str


@dataclass(frozen=True)
class Exclusion:
    """One request: the query's row, the unwanted value, the wanted ones (none, or one)."""

    query: int
    unwanted: int
    wanted: tuple[int, ...] = ()


def draw_exclusions(dataset: Dataset, seed: int = 0, count: int = QUERIES) -> list[Exclusion]:
    """Up to `count` images, each excluding one value that it has, drawn evenly from them.

    Returns:
        Ordered by the value.
    """
    has = dataset.labels == 1
    labelled = np.flatnonzero(has.any(axis=1))
    generator = np.random.default_rng(seed)
    rows = generator.choice(labelled, size=min(count, len(labelled)), replace=False)
    drawn = [Exclusion(int(r), int(generator.choice(np.flatnonzero(has[r])))) for r in rows]
    return sorted(drawn, key=lambda e: (e.unwanted, e.query))


def draw_exchanges(
    dataset: Dataset, seed: int = 0, count: int = QUERIES, pairs: int = PAIRS
) -> list[Exclusion]:
    """Requests that want one value and exclude one of another attribute.

    A pair of values counts if `LEAST_RELEVANT` images have the first and are known to lack the
    second. Its queries are known to lack the first and have the second.

    Returns:
        Up to `count` requests by up to `pairs` pairs, as many of each pair; ordered by pair.
    """
    schema = dataset.schema
    has = (dataset.labels == 1).astype(np.float32)
    lacks = (dataset.labels == -1).astype(np.float32)
    both = has.T @ lacks  # [K, K]: images that have the first and lack the second
    other = schema.attribute_of[:, None] != schema.attribute_of[None, :]
    wanted, unwanted = np.nonzero((both >= LEAST_RELEVANT) & (both.T >= 1) & other)
    generator = np.random.default_rng(seed)
    out: list[Exclusion] = []
    chosen = np.sort(generator.choice(len(wanted), size=min(pairs, len(wanted)), replace=False))
    for want, exclude in zip(wanted[chosen].tolist(), unwanted[chosen].tolist(), strict=True):
        asking = np.flatnonzero((lacks[:, want] > 0) & (has[:, exclude] > 0))
        rows = generator.choice(asking, size=min(count // pairs, len(asking)), replace=False)
        out += [Exclusion(row, exclude, (want,)) for row in np.sort(rows).tolist()]
    return out


def evaluate_exclusion(dataset: Dataset, scorer: Scorer, seed: int = 0) -> ExclusionReport | None:
    """Search the whole dataset by requests that exclude a value.

    Args:
        dataset: the split; its rows are the scorer's.
        scorer: what is measured; requests by the same values come together.
        seed: of the draws.

    Returns:
        None where no image has a known value, or there is only one image.
    """
    alone = draw_exclusions(dataset, seed)
    if not alone or len(dataset) < 2:
        return None
    exchanges = draw_exchanges(dataset, seed)
    return ExclusionReport(
        without=_score(dataset, scorer, alone),
        but_without=_score(dataset, scorer, exchanges) if exchanges else None,
        seed=seed,
        ranked_by=scorer.ranked_by,
    )


def _score(dataset: Dataset, scorer: Scorer, requests: Sequence[Exclusion]) -> ExclusionScore:
    violations, chances, kept, right = [], [], [], []
    rows = np.arange(len(dataset))
    for request in requests:
        scores = scorer.named(request.query, request.wanted, [request.unwanted])
        hits = _first(scores, request.query, rows)
        states = dataset.labels[:, request.unwanted]
        violations.append(float((states[hits] == 1).sum()) / K)
        chances.append(float((np.delete(states, request.query) == 1).mean()))
        named = [*request.wanted, request.unwanted]
        shared = shared_attributes(dataset, request.query, hits, named)
        kept.append(shared.share(np.arange(len(hits))))
        if request.wanted:
            has = has_all(dataset, hits, request.wanted)
            right.append(float((has & (states[hits] == -1)).sum()) / K)
    comparable = [share for share in kept if not np.isnan(share)]
    return ExclusionScore(
        violation10=float(np.mean(violations)),
        violation_chance=float(np.mean(chances)),
        keep10=float(np.mean(comparable)) if comparable else None,
        precision10=float(np.mean(right)) if right else None,
        queries=len(requests),
    )


def _first(scores: NDArray[np.float32], query: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first `K` rows beside the query by (-score, row); fewer if there are fewer."""
    found = top_k(scores[None, :], K, (rows == query)[None, :])[0]
    return np.asarray(found[found >= 0], dtype=np.int64)
