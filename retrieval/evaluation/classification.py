"""Category top-k accuracy and attribute recall@k (Tables 1 and 2), from scores.

Both are the share of positives whose rank is below k: an image has one positive category, and any
number of positive values of an attribute, which are pooled over images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics import Interval, bootstrap_interval
from training.datasets.label_states import CATEGORY_NAMES
from training.errors import UsageError
from training.schema import Schema, normalise_name

KS = (1, 3, 5)
"""The k of all figures."""

_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class PositiveRanks:
    """Where the positives were ranked, image by image.

    Args:
        images: row of the scores of each positive, [P] int64.
        ranks: its rank among the image's candidates, 0 is the best, [P] int64.
        candidates: how many the image has, [P] int64.
    """

    images: NDArray[np.int64]
    ranks: NDArray[np.int64]
    candidates: NDArray[np.int64]


@dataclass(frozen=True)
class RecallScore:
    """Recall at each k of `KS`, in percent; for the category, which has one positive, accuracy.

    Args:
        name: of the attribute; `category`, `all-micro`.
        recall: hits / positives, pooled over images.
        chance: the same for a random ranking.
        ceiling: the same for the best ranking; below 100 where an image has more than k positives.
        positives: how many were looked for.
        images: that have at least one.
        ci: 95 % bootstrap intervals over images; None if not asked for.
    """

    name: str
    recall: tuple[float, ...]
    chance: tuple[float, ...]
    ceiling: tuple[float, ...]
    positives: int
    images: int
    ci: tuple[Interval, ...] | None = None


@dataclass(frozen=True)
class ClassificationReport:
    """All figures of one way to score; None where nothing was scored.

    Args:
        category: top-k accuracy.
        types: one score an attribute that has positives, in the schema's order.
        all_micro: all K values ranked together, pooled.
        all_mean: plain mean over `types`, at each k, percent.
        all_mean_chance, all_mean_ceiling: likewise of chances and ceilings.
    """

    category: RecallScore | None
    types: tuple[RecallScore, ...]
    all_micro: RecallScore | None
    all_mean: tuple[float, ...] | None
    all_mean_chance: tuple[float, ...] | None
    all_mean_ceiling: tuple[float, ...] | None


def classification_report(
    schema: Schema,
    labels: NDArray[np.int8],
    category: NDArray[np.int64],
    attribute_scores: NDArray[np.float32] | None,
    category_scores: NDArray[np.float32] | None,
    shown: NDArray[np.int8] | None = None,
    intervals: bool = True,
    seed: int = 0,
) -> ClassificationReport:
    """Score predictions of categories and attributes.

    Args:
        schema: attributes and values.
        labels: label states [M, K].
        category: [M] int64, -1 unknown, which leaves the image out there.
        attribute_scores: of every value [M, K]; None: not scored.
        category_scores: of every category [M, C]; None: not scored.
        shown: label states that the model was told [M, K]. They take no part: neither as positives
            nor in the ranking. An image that was told its category attribute has no category to
            predict.
        intervals: whether to bootstrap.
        seed: of the intervals.

    Raises:
        UsageError: scores of the wrong shape or not finite.
    """
    asked = np.ones(labels.shape, dtype=bool) if shown is None else shown == 0
    by_category = None
    if category_scores is not None:
        wanted = np.zeros(category_scores.shape, dtype=bool)
        open_ = (category >= 0) & ~_category_told(schema, ~asked & (labels != 0))
        wanted[open_, category[open_]] = True
        if wanted.any():
            by_category = recall_score("category", category_scores, wanted, None, intervals, seed)
    if attribute_scores is None:
        return ClassificationReport(by_category, (), None, None, None, None)
    positive = (labels == 1) & asked
    types = []
    for number, attribute in enumerate(schema.attributes):
        own = schema.slice_of(number)
        if positive[:, own].any():
            scores = attribute_scores[:, own]
            types.append(
                recall_score(
                    attribute.name, scores, positive[:, own], asked[:, own], intervals, seed
                )
            )
    if not types:
        return ClassificationReport(by_category, (), None, None, None, None)
    return ClassificationReport(
        category=by_category,
        types=tuple(types),
        all_micro=recall_score("all-micro", attribute_scores, positive, asked, intervals, seed),
        all_mean=_means([score.recall for score in types]),
        all_mean_chance=_means([score.chance for score in types]),
        all_mean_ceiling=_means([score.ceiling for score in types]),
    )


def recall_score(
    name: str,
    scores: NDArray[np.float32],
    positive: NDArray[np.bool_],
    candidates: NDArray[np.bool_] | None = None,
    intervals: bool = True,
    seed: int = 0,
) -> RecallScore:
    """Recall at each k; arguments as `positive_ranks`.

    Raises:
        UsageError: as `positive_ranks`, or nothing is positive.
    """
    found = positive_ranks(scores, positive, candidates)
    if len(found.ranks) == 0:
        raise UsageError(f"nothing to find: no image has a positive label of {name!r}")
    hits = [np.where(found.ranks < k, 100.0, 0.0) for k in KS]
    ci = tuple(bootstrap_interval(h, found.images, seed=seed) for h in hits) if intervals else None
    chance = tuple(float((100 * np.minimum(k / found.candidates, 1)).mean()) for k in KS)
    counts = np.unique(found.images, return_counts=True)[1]
    return RecallScore(
        name=name,
        recall=tuple(float(h.mean()) for h in hits),
        chance=chance,
        ceiling=tuple(float(100 * np.minimum(counts, k).sum() / counts.sum()) for k in KS),
        positives=len(found.ranks),
        images=len(counts),
        ci=ci,
    )


def positive_ranks(
    scores: NDArray[np.float32],
    positive: NDArray[np.bool_],
    candidates: NDArray[np.bool_] | None = None,
) -> PositiveRanks:
    """Rank every image's candidates by (-score, number), and look where its positives are.

    Args:
        scores: [M, V], finite.
        positive: what is to be found [M, V]; all of them candidates.
        candidates: what is ranked [M, V]; None: everything.

    Raises:
        UsageError: shapes differ, scores are not finite, or a positive is no candidate.
    """
    ranked = np.ones(scores.shape, dtype=bool) if candidates is None else candidates
    if not scores.shape == positive.shape == ranked.shape:
        raise UsageError(f"scores are {scores.shape}, positives {positive.shape}; must be alike")
    if not np.isfinite(scores).all():
        raise UsageError("scores hold NaN or infinity; check the checkpoint")
    if (positive & ~ranked).any():
        raise UsageError("a positive label is not among the candidates")
    images, ranks = [], []
    for start in range(0, len(scores), _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        # What is no candidate comes last.
        keys = np.where(ranked[block], -scores[block], np.inf)
        places = np.argsort(np.argsort(keys, axis=1, kind="stable"), axis=1, kind="stable")
        rows, columns = np.nonzero(positive[block])
        images.append(rows + start)
        ranks.append(places[rows, columns])
    where = np.concatenate(images) if images else np.zeros(0, dtype=np.int64)
    found = np.concatenate(ranks) if ranks else np.zeros(0, dtype=np.int64)
    return PositiveRanks(where, found, ranked.sum(axis=1)[where])


def _category_told(schema: Schema, told: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Images of which the category is among the labels told [M, K]: [M] bool."""
    out = np.zeros(len(told), dtype=bool)
    for number, attribute in enumerate(schema.attributes):
        if normalise_name(attribute.name) in CATEGORY_NAMES:
            out |= told[:, schema.slice_of(number)].any(axis=1)
    return out


def _means(rows: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(float(m) for m in np.mean(rows, axis=0))
