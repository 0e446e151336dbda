"""Category top-k accuracy and attribute recall@k (Tables 1 and 2): labels told, heads, scores.

Both are the share of positives whose rank is below k: an image has one positive category, and any
number of positive values of an attribute, which are pooled over images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.metrics import Interval, bootstrap_interval, sort_keys
from training.datasets.labels import CATEGORY_NAMES
from training.maps import MapBank
from training.schema import Schema, normalise_name

KS = (1, 3, 5)
"""The k of all figures."""


@dataclass(frozen=True)
class HeadScores:
    """Scores of every value [M, K] and of every category [M, C]; None: there are none."""

    attributes: NDArray[np.float32] | None = None
    categories: NDArray[np.float32] | None = None


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
    types: tuple[RecallScore, ...] = ()
    all_micro: RecallScore | None = None
    all_mean: tuple[float, ...] | None = None
    all_mean_chance: tuple[float, ...] | None = None
    all_mean_ceiling: tuple[float, ...] | None = None


def draw_known_labels(
    labels: NDArray[np.int8], schema: Schema, share: float, seed: int = 0
) -> NDArray[np.int8]:
    """Which labels a model is told when it predicts the others: a share of each image's.

    A single-valued attribute is kept or hidden as a whole: its hidden value could be read off its
    known siblings. Values of a multi-valued attribute are kept one by one. With one seed, what a
    smaller share (0..1) keeps, a larger one keeps too; where it is no whole number of labels, it is
    rounded up or down at random so that the mean over images is right.

    Returns:
        Label states [N, K] int8, 0 where hidden.
    """
    first = schema.multi[schema.attribute_of]
    first[list(schema.offsets[:-1])] = True
    unit_of = first.cumsum() - 1  # values of one unit are kept or hidden together
    units = int(first.sum())
    generator = np.random.default_rng(seed)
    order = generator.random((len(labels), units)).argsort(axis=1).argsort(axis=1)
    kept = order < np.floor(share * units + generator.random((len(labels), 1)))
    return np.where(kept[:, unit_of], labels, 0).astype(np.int8)


@torch.inference_mode()
def head_scores(bank: MapBank, conditions: NDArray[np.int8], chunk: int = 256) -> HeadScores:
    """Logits of both heads on Z before normalisation, as in multi-task training: known labels in,
    all labels out; no categories of a model without that head. One that does not see values is
    told nothing, whatever is known.

    `conditions` are what is known of each of the bank's images, label states [M, K]; zeros:
    nothing. `chunk` is the number of images at a time.
    """
    model = bank.model
    device = next(model.parameters()).device
    attributes, categories = [], []
    for start in range(0, len(conditions), chunk):
        part = slice(start, start + chunk)
        states = torch.from_numpy(conditions[part]).float().unsqueeze(1).to(device)
        maps, keys = (stored[part].to(device).float() for stored in (bank.maps, bank.keys))
        z = model.attend_raw(maps, states, keys).squeeze(1)
        attributes.append(model.attribute_head(z).cpu().numpy())
        if model.category_head is not None:
            named = model.category_head(z) if model.sees_values else model.category_logits(maps)
            assert named is not None
            categories.append(named.cpu().numpy())
    by_category = np.concatenate(categories) if categories else None
    return HeadScores(np.concatenate(attributes), by_category)


def classification_report(
    schema: Schema,
    labels: NDArray[np.int8],
    category: NDArray[np.int64],
    scores: HeadScores,
    shown: NDArray[np.int8] | None = None,
) -> ClassificationReport:
    """Score predictions of categories and attributes, with intervals if the model was told nothing.

    Args:
        schema: attributes and values.
        labels: label states [M, K].
        category: [M] int64, -1 unknown, which leaves the image out there.
        scores: what is scored.
        shown: label states that the model was told [M, K]. They take no part: neither as positives
            nor in the ranking. An image that was told its category attribute has no category to
            predict.

    Raises:
        UsageError: scores of the wrong shape.
        DataError: a score is NaN.
    """
    intervals = shown is None
    asked = np.ones(labels.shape, dtype=bool) if shown is None else shown == 0
    by_category = None
    if scores.categories is not None:
        names = [normalise_name(a.name) in CATEGORY_NAMES for a in schema.attributes]
        told = (~asked & (labels != 0))[:, np.array(names)[schema.attribute_of]].any(axis=1)
        wanted = np.zeros(scores.categories.shape, dtype=bool)
        rows = np.flatnonzero((category >= 0) & ~told)
        wanted[rows, category[rows]] = True
        if len(rows):
            by_category = recall_score("category", scores.categories, wanted, None, intervals)
    positive = (labels == 1) & asked
    if scores.attributes is None or not positive.any():
        return ClassificationReport(by_category)
    parts = {a.name: schema.slice_of(n) for n, a in enumerate(schema.attributes)}
    parts = {name: own for name, own in parts.items() if positive[:, own].any()}
    scored = [
        (name, scores.attributes[:, own], positive[:, own], asked[:, own])
        for name, own in (parts | {"all-micro": slice(None)}).items()
    ]
    *types, micro = (recall_score(*one, intervals) for one in scored)
    means = np.mean([(one.recall, one.chance, one.ceiling) for one in types], axis=0)
    return ClassificationReport(by_category, tuple(types), micro, *map(tuple, means.tolist()))


def recall_score(
    name: str,
    scores: NDArray[np.float32],
    positive: NDArray[np.bool_],
    candidates: NDArray[np.bool_] | None = None,
    intervals: bool = True,
) -> RecallScore:
    """Rank every image's candidates by (-score, number), and count the positives of rank below k.

    All are [M, V]: scores, what is to be found (at least one), and what is ranked (None:
    everything), which holds what is to be found.
    """
    ranked = np.ones(scores.shape, dtype=bool) if candidates is None else candidates
    keys = np.sort(sort_keys(scores, positive, ~ranked), axis=1)  # the lowest bit: positive
    among = ranked.sum(axis=1)
    images, ranks = np.nonzero((keys % 2 == 1) & (np.arange(scores.shape[1]) < among[:, None]))
    hits = [np.where(ranks < k, 100.0, 0.0) for k in KS]
    counts = np.unique(images, return_counts=True)[1]
    return RecallScore(
        name=name,
        recall=tuple(float(h.mean()) for h in hits),
        chance=tuple(float((100 * np.minimum(k / among[images], 1)).mean()) for k in KS),
        ceiling=tuple(float(100 * np.minimum(counts, k).sum() / counts.sum()) for k in KS),
        positives=len(ranks),
        images=len(counts),
        ci=tuple(bootstrap_interval(h, images) for h in hits) if intervals else None,
    )
