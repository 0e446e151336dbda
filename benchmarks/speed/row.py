"""One measured figure, what it was measured against, and how figures grow with the gallery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import linear_regression
from typing import Any

_DIGITS = 5


@dataclass(frozen=True)
class Row:
    """What one operation costs.

    Args:
        what: the operation in plain words.
        size: images in the gallery; None where it has none.
        value: the figure, a median where it was repeated.
        unit: of `value` and `floor`.
        floor: the least (or, of a rate, the most) that was measured in the same run; None if none.
        ratio: median over the repeats of value / floor, each measured right after the other (of
            cold combinations, whose floor takes longer than they do: over the combinations).
        recall: share of the true ten nearest that were found, 0..1; None where nothing is lost.
        against: the floor in words.
        repeats: how many times it was measured.
        bytes_read: of the index; None if not counted.
        peak_bytes: most anonymous memory while it ran, beyond what was there before.
        details: further figures by name.
        commit: of the code that was measured.
        settings: of the sitting; None in results that are older than this.
    """

    what: str
    size: int | None
    value: float
    unit: str
    floor: float | None = None
    ratio: float | None = None
    recall: float | None = None
    against: str = ""
    repeats: int = 1
    bytes_read: int | None = None
    peak_bytes: int | None = None
    details: dict[str, float | int | str] | None = None
    commit: str = ""
    settings: dict[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict, figures to five significant digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """Read what `to_json` wrote."""
        return cls(**data)


def growth(rows: Sequence[Row]) -> dict[str, float]:
    """How each operation grows: the exponent e of the fit value = c * size ** e.

    Args:
        rows: of any operations; those with fewer than two sizes have no growth.

    Returns:
        Exponents by `what`, least squares on logarithms: 1 grows like the gallery, 0 not at all.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.size and row.value > 0:
            points.setdefault(row.what, []).append((math.log(row.size), math.log(row.value)))
    return {
        what: linear_regression(*zip(*found, strict=True)).slope
        for what, found in points.items()
        if len({size for size, _ in found}) > 1
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
