"""Ways of training measured in turns, and how much faster one compares triplets than the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.timed_training import Rate, Training
from retrieval.console import stderr
from training.recipe import Recipe

PHOTOGRAPHS, MAPS = "photographs, backbone trained", "stored maps, backbone frozen"
ONCE, THREE_PASSES = "every image once", "three passes a triplet"


@dataclass(frozen=True)
class Row:
    """One way of training in one setting.

    Args:
        setting: `PHOTOGRAPHS` or `MAPS`.
        way: `ONCE` or `THREE_PASSES`.
        batch_images: images in a batch.
        rounds: the measurements, in the order made.
    """

    setting: str
    way: str
    batch_images: int
    rounds: tuple[Rate, ...]

    @property
    def rate(self) -> Rate:
        """The median of each figure."""
        return Rate(*(median(column) for column in zip(*map(_figures, self.rounds), strict=True)))


@dataclass(frozen=True)
class SpeedUp:
    """Triplets a second of one way over another's.

    Args:
        setting: of the rows compared.
        anchors: counting one triplet for each anchor and condition.
        anchors_range: the lowest and the highest of that over the rounds.
        compared: counting all triplets that the loss compares.
        needed_anchors: images a second that three passes would need for as many `anchors`.
        needed_compared: likewise for as many `compared`.
    """

    setting: str
    anchors: float
    anchors_range: tuple[float, float]
    compared: float
    needed_anchors: float
    needed_compared: float


def measure(
    setting: str, trainings: Sequence[Training], seconds: float, rounds: int
) -> tuple[Row, ...]:
    """Measure ways of training in turns, so that a slow minute of the machine meets all of them.

    Args:
        setting: goes into the rows.
        trainings: the ways.
        seconds: of one measurement.
        rounds: measurements of each way, after one step each to warm up.
    """
    sizes = [len(training.step()[0].rows) for training in trainings]
    rates: list[list[Rate]] = [[] for _ in trainings]
    for number in range(rounds):
        for kept, training in zip(rates, trainings, strict=True):
            kept.append(training.run(seconds))
        shown = ", ".join(f"{kept[-1].images:.1f}" for kept in rates)
        stderr.print(f"{setting}, round {number + 1}/{rounds}: {shown} images/s", markup=False)
    return tuple(
        Row(setting, _way(training.recipe), size, tuple(kept))
        for training, size, kept in zip(trainings, sizes, rates, strict=True)
    )


def speed_up(rows: Sequence[Row], setting: str) -> SpeedUp:
    """Our way over the faster (in the median) of the rows of three passes.

    Args:
        rows: of `measure`; with one `ONCE` and at least one `THREE_PASSES` in the setting.
        setting: which rows to compare.
    """
    (once,) = (row for row in rows if (row.setting, row.way) == (setting, ONCE))
    rivals = [row for row in rows if (row.setting, row.way) == (setting, THREE_PASSES)]
    best = max(rivals, key=lambda row: row.rate.anchors)
    ours, theirs = once.rate, best.rate
    ratios = [a.anchors / b.anchors for a, b in zip(once.rounds, best.rounds, strict=True)]
    return SpeedUp(
        setting,
        ours.anchors / theirs.anchors,
        (min(ratios), max(ratios)),
        ours.compared / theirs.compared,
        3 * ours.anchors,
        3 * ours.compared,
    )


def _way(recipe: Recipe) -> str:
    return THREE_PASSES if recipe.sampling == "triplets" else ONCE


def _figures(rate: Rate) -> tuple[float, float, float]:
    return rate.images, rate.anchors, rate.compared
