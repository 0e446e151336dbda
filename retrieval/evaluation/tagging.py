"""How right predicted labels are: what `retrieve tag` would fill in, against what is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.report_grid import shown
from retrieval.metrics import Interval, bootstrap_interval
from retrieval.tags import Floats, Predicted
from training.datasets.dataset import Dataset
from training.schema import Schema

BINS = 15
"""Of chances, in calibration errors."""

AIM = 0.95
"""Accuracy that coverage is of."""


class Bin(NamedTuple):
    """Predictions of about one chance: their mean chance and the share that is right, 0..1, and how
    many they are."""

    chance: float
    right: float
    predictions: int


@dataclass(frozen=True)
class ValueScore:
    """F1 of one value, 0..1, and the images that have it."""

    f1: float
    images: int


@dataclass(frozen=True)
class TagScore:
    """How right the predictions of one attribute are, over the images labelled in it; 0..1.

    Args:
        accuracy: share whose predicted values are the known ones, of a multi-valued attribute all
            of them, and none where it is known not to apply.
        ci: 95 % bootstrap interval of it, over images.
        frequent: accuracy of always saying what is most frequent here.
        f1: plain mean over the values that any image has.
        coverage: largest share, the surest first, of which `AIM` are right.
        confidence: lowest chance among these; None where there are none.
        calibration_error: expected calibration error of what is said, see `calibration_error`.
        images: how many are labelled.
        reliability: how often right at which chance, see `reliability`.
        values: of each value that any image has, by name.
    """

    accuracy: float = field(metadata=shown("accuracy", ".3f"))
    ci: Interval = field(metadata=shown("95 % CI", ".2f"))
    frequent: float = field(metadata=shown("most frequent", ".3f"))
    f1: float = field(metadata=shown("F1", ".3f"))
    coverage: float = field(metadata=shown("coverage", ".3f"))
    confidence: float | None = field(metadata=shown("from", ".3f"))
    calibration_error: float = field(metadata=shown("ECE", ".3f"))
    images: int = field(metadata=shown("images"))
    values: dict[str, ValueScore]
    reliability: tuple[Bin, ...] = ()


@dataclass(frozen=True)
class TagReport:
    """Tags of one split: plain means of accuracies and calibration errors, and each attribute that
    is labelled."""

    accuracy: float
    calibration_error: float
    attributes: dict[str, TagScore]


def evaluate_tags(
    part: Dataset, chances: Floats, seed: int = 0, least: Floats | None = None
) -> TagReport | None:
    """Compare what chances [N, K] of a split's images predict, by thresholds [K] as `Predicted`
    takes them, with their labels; None if no image is labelled. `seed` is of the intervals."""
    schema, predicted = part.schema, Predicted.of(part.schema, chances, least)
    known, scores = schema.labelled(part.labels), {}
    for number, attribute in enumerate(schema.attributes):
        own = schema.slice_of(number)
        true = part.labels[:, own] == 1
        rows = np.flatnonzero(known[:, number])
        if len(rows):
            true, said = true[rows], predicted.values[rows, own]
            right = (true == said).all(axis=1)
            whether = predictions(schema, number, chances[rows, own], true)
            share, lowest = coverage(right, predicted.chances[rows, number])
            images = true.sum(axis=0)
            f1 = 2 * (true & said).sum(axis=0) / np.maximum(images + said.sum(axis=0), 1)
            there = np.flatnonzero(images).tolist()
            scores[attribute.name] = TagScore(
                accuracy=float(right.mean()),
                ci=bootstrap_interval(right.astype(np.float64), rows, seed=seed),
                frequent=float(np.unique(true, axis=0, return_counts=True)[1].max() / len(rows)),
                f1=float(f1[there].mean()) if there else 0.0,
                coverage=share,
                confidence=lowest,
                calibration_error=calibration_error(*whether),
                images=len(rows),
                values={
                    attribute.values[v]: ValueScore(float(f1[v]), int(images[v])) for v in there
                },
                reliability=reliability(*whether),
            )
    if not scores:
        return None
    accuracy = float(np.mean([score.accuracy for score in scores.values()]))
    error = float(np.mean([score.calibration_error for score in scores.values()]))
    return TagReport(accuracy, error, scores)


def predictions(
    schema: Schema, number: int, chances: Floats, true: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Chances [n] and whether they are of what is true [n]: of an attribute's likeliest value, or
    that it does not apply, of a multi-valued one of every value; from chances and truth of its
    values [N, values]."""
    if schema.multi[number]:
        return chances.ravel(), true.ravel()
    if schema.optional[number]:
        none = schema.attributes[number].left_over(chances)
        chances = np.hstack([chances, none[:, None]])
        true = np.hstack([true, ~true.any(axis=1, keepdims=True)])
    rows, top = np.arange(len(chances)), chances.argmax(axis=1)
    return chances[rows, top], true[rows, top]


def calibration_error(chances: Floats, right: NDArray[np.bool_]) -> float:
    """Expected calibration error, 0..1: how far chances [n] are from the share [n] that is right,
    the mean over the bins of `reliability` weighed by their predictions."""
    bins = reliability(chances, right)
    return sum(abs(one.right - one.chance) * one.predictions for one in bins) / max(len(chances), 1)


def reliability(chances: Floats, right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """How often predictions of chances [n] are right [n], in `BINS` equal ranges of chances, lowest
    first; ranges without any are left out."""
    places = np.minimum((chances * BINS).astype(np.int64), BINS - 1)
    sums = [np.bincount(places, of, BINS) for of in (chances, right)]
    counts = np.bincount(places, minlength=BINS)
    return tuple(
        Bin(float(sums[0][n] / counts[n]), float(sums[1][n] / counts[n]), int(counts[n]))
        for n in np.flatnonzero(counts).tolist()
    )


def coverage(right: NDArray[np.bool_], chances: Floats) -> tuple[float, float | None]:
    """The largest share of predictions [n], the likeliest first and equal ones together, of which
    `AIM` are right, and the lowest chance among them; 0 and None if there is none."""
    order = np.argsort(-chances, kind="stable")
    sorted_chances, count = chances[order], np.arange(1, len(right) + 1)
    last = np.append(np.diff(sorted_chances) != 0, True)  # of equal ones
    enough = np.flatnonzero(last & (right[order].cumsum() >= AIM * count))
    if not len(enough):
        return 0.0, None
    return float(count[enough[-1]] / len(right)), float(sorted_chances[enough[-1]])
