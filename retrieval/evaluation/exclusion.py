"""Requests that exclude a value: `without` alone, and together with a wanted one (`but_without`).

The query of a request has the unwanted value, so likeness pulls towards it; a hit violates the
request if it is *known* to have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retrieval.evaluation.report_grid import INLINE, shown
from retrieval.evaluation.scorer import (
    LEAST_RELEVANT,
    K,
    Scorer,
    first_hits,
    has_all,
    kept_share,
    mean_of_known,
)
from training.datasets.dataset import Dataset

QUERIES = 1000
"""At most so many queries of each kind, a fixed draw."""

PAIRS = 50
"""At most so many pairs of a wanted and an unwanted value."""


@dataclass(frozen=True)
class ExclusionScore:
    """Means over the queries of one kind, in [0, 1].

    violation10 is the share of the first 10 hits known to have the unwanted value, violation_chance
    that of all images beside the query, keep10 what `kept_share` gives (None if no query has an
    attribute to compare), precision10 the share of the hits that have the wanted value and are
    known to lack the unwanted one (None where none is wanted).
    """

    violation10: float = field(metadata=shown("violation@10", ".3f"))
    violation_chance: float = field(metadata=shown("chance", ".3f"))
    keep10: float | None = field(metadata=shown("keep@10", ".3f"))
    precision10: float | None = field(metadata=shown("precision@10", ".3f"))
    queries: int = field(metadata=shown("queries"))


@dataclass(frozen=True)
class ExclusionReport:
    """Both kinds; `but_without` is None where no pair of values has enough images.

    without: every query image excludes one value that it has; but_without: it also wants one that
    it lacks, of another attribute.
    """

    without: ExclusionScore = field(metadata=INLINE)
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
    """Up to `count` images, each excluding one value that it has, drawn evenly; by the value."""
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
    second. Its queries are known to lack the first and have the second: up to `count` requests by
    up to `pairs` pairs, as many of each pair, ordered by pair.
    """
    schema = dataset.schema
    has = (dataset.labels == 1).astype(np.float32)
    lacks = (dataset.labels == -1).astype(np.float32)
    both = has.T @ lacks  # [K, K]: images that have the first and lack the second
    other = schema.attribute_of[:, None] != schema.attribute_of[None, :]
    possible = np.argwhere((both >= LEAST_RELEVANT) & (both.T >= 1) & other)
    generator = np.random.default_rng(seed)
    out: list[Exclusion] = []
    chosen = np.sort(generator.choice(len(possible), size=min(pairs, len(possible)), replace=False))
    for want, exclude in possible[chosen].tolist():
        asking = np.flatnonzero((lacks[:, want] > 0) & (has[:, exclude] > 0))
        rows = generator.choice(asking, size=min(count // pairs, len(asking)), replace=False)
        out += [Exclusion(row, exclude, (want,)) for row in np.sort(rows).tolist()]
    return out


def evaluate_exclusion(dataset: Dataset, scorer: Scorer, seed: int = 0) -> ExclusionReport | None:
    """Search the whole dataset by requests that exclude a value; `seed` is of the draws.

    The dataset's rows are the scorer's; requests by the same values come together. None where no
    image has a known value, or there is only one image.
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
    figures = []
    for request in requests:
        query, wanted, unwanted = request.query, request.wanted, request.unwanted
        beside = np.delete(np.arange(len(dataset)), query)
        hits = first_hits(scorer.named(query, wanted, [unwanted]), beside)
        states = dataset.labels[:, unwanted]
        right = has_all(dataset, hits, wanted) & (states[hits] == -1)
        kept = kept_share(dataset, query, hits, [*wanted, unwanted])
        chance = (states[beside] == 1).mean()
        figures.append(((states[hits] == 1).sum() / K, chance, kept, right.sum() / K))
    violation, chance, kept, precision = np.array(figures).T
    return ExclusionScore(
        violation10=float(violation.mean()),
        violation_chance=float(chance.mean()),
        keep10=mean_of_known(kept),
        precision10=float(precision.mean()) if requests[0].wanted else None,
        queries=len(requests),
    )
