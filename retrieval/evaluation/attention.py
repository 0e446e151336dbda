"""Whether attention lies where an attribute is to be seen: mass in the region against its area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics import Interval
from training.errors import UsageError

LOCATED_BELOW = 0.15
"""An attribute is located if its region covers on average less than this share of the picture.

A property of the pictures alone: whatever a model does, the same attributes are located.
"""

_RESAMPLES = 1000


@dataclass(frozen=True)
class RegionScore:
    """Attention under one attribute's type condition, against that attribute's region.

    Args:
        inside: mean share of the attention mass that is inside the region, 0..1.
        area: mean share of the picture that is region, 0..1: chance.
        ratio: `inside / area`.
        ratio_ci: 95 % percentile bootstrap interval of `ratio`.
        others: mean share inside the same region under the *other* attributes' conditions, 0..1;
            NaN with one attribute. What attention to garments in general would give.
        located: whether `area` is below `LOCATED_BELOW`.
        images: pictures that are labelled in the attribute.
    """

    attribute: str
    inside: float
    area: float
    ratio: float
    ratio_ci: Interval
    others: float
    located: bool
    images: int


@dataclass(frozen=True)
class LocatedMean:
    """Plain means over the located attributes; `ratio` is a mean of ratios."""

    inside: float
    area: float
    ratio: float
    ratio_ci: Interval


@dataclass(frozen=True)
class AttentionReport:
    """One score an attribute, in order, and their mean (None if nothing is located)."""

    rows: tuple[RegionScore, ...]
    located: LocatedMean | None


def attention_report(
    attributes: Sequence[str],
    inside: NDArray[np.float64],
    area: NDArray[np.float64],
    others: NDArray[np.float64],
    groups: NDArray[np.int64],
    seed: int = 0,
) -> AttentionReport:
    """Average the shares of many pictures in A attributes, with intervals by `seed`.

    UsageError if an attribute has no labelled picture.

    Args:
        inside: share of the mass inside the attribute's region [M, A]; NaN where the picture is
            not labelled in the attribute, which leaves it out there.
        area: share of the picture that is region [M, A]; above 0.
        others: mean share inside under the other conditions [M, A]; NaN allowed.
        groups: what is resampled as a whole, such as the garment of each picture, [M].
    """
    seen = ~np.isnan(inside)
    counts = seen.sum(axis=0)
    if not counts.all():
        missing = [attributes[int(n)] for n in np.flatnonzero(counts == 0)]
        raise UsageError(f"no picture is labelled in {', '.join(missing)}; draw more pictures")
    mass, region = np.where(seen, inside, 0.0), np.where(seen, area, 0.0)
    means, areas = mass.sum(axis=0) / counts, region.sum(axis=0) / counts
    located = areas < LOCATED_BELOW
    # Sums over groups drawn with replacement [R, A], and their ratio: both vary from draw to draw.
    names, member = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, len(names), size=(_RESAMPLES, len(names)))
    times = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])[:, member]
    ratios = (times @ mass) / (times @ region)
    rows = tuple(
        RegionScore(
            attribute=name,
            inside=float(means[n]),
            area=float(areas[n]),
            ratio=float(means[n] / areas[n]),
            ratio_ci=_interval(ratios[:, n]),
            others=float(others[seen[:, n], n].mean()),
            located=bool(located[n]),
            images=int(counts[n]),
        )
        for n, name in enumerate(attributes)
    )
    if not located.any():
        return AttentionReport(rows, None)
    interval = _interval(ratios[:, located].mean(axis=1))
    inner, covered, ratio = (float(x[located].mean()) for x in (means, areas, means / areas))
    return AttentionReport(rows, LocatedMean(inner, covered, ratio, interval))


def _interval(samples: NDArray[np.float64]) -> Interval:
    # A sample without any labelled picture (0 / 0) says nothing.
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return Interval(float(low), float(high))
