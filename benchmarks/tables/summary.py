"""What a table says over its seeds: means, spread, differences, and the order of the rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.tables.result import ALL, RowResult, TableResult


@dataclass(frozen=True)
class Figure:
    """A mean over seeds, and how far single seeds stray from it.

    Args:
        mean: over the seeds.
        sd: sample standard deviation; None for one seed.
        seeds: how many.
    """

    mean: float
    sd: float | None
    seeds: int

    def text(self, form: str = ".2f", spread_form: str = ".2f") -> str:
        """The mean and, of several seeds, the standard deviation: `72.08 ± 0.21`."""
        spread = "" if self.sd is None else f" ± {format(self.sd, spread_form)}"
        return format(self.mean, form) + spread


@dataclass(frozen=True)
class Step:
    """Two neighbours in the expected order: `higher` should have the higher All MAP."""

    lower: str
    higher: str
    gain: float

    @property
    def holds(self) -> bool:
        """Whether it has."""
        return self.gain > 0


def figure(values: Sequence[float]) -> Figure:
    """Mean and sample standard deviation of at least one value."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Figure(statistics.fmean(values), spread, len(values))


def by_model(rows: Sequence[RowResult]) -> dict[str, list[RowResult]]:
    """The entries of each row, in the table's order."""
    out: dict[str, list[RowResult]] = {}
    for row in rows:
        out.setdefault(row.model, []).append(row)
    return out


def map_of(row: RowResult, column: str) -> float:
    """MAP of an attribute, or of `all`."""
    return row.all if column == ALL else row.attributes[column]


def difference(
    reference: Sequence[RowResult],
    other: Sequence[RowResult],
    measured: Callable[[RowResult], float | None],
) -> Figure | None:
    """How much higher the reference is, seed by seed.

    Args:
        reference: entries of one row.
        other: of another; a floor is the same for every seed.
        measured: gives the figure of an entry; None if it has none.

    Returns:
        Over the seeds that both have; None without any.
    """
    theirs = {row.seed: measured(row) for row in other}
    if other and other[0].floor:
        theirs = dict.fromkeys((row.seed for row in reference), measured(other[0]))
    pairs = [(measured(row), theirs.get(row.seed)) for row in reference]
    gains = [own - their for own, their in pairs if own is not None and their is not None]
    return figure(gains) if gains else None


def steps(result: TableResult) -> list[Step]:
    """Neighbours in the expected order, among the rows that were measured."""
    models = by_model(result.rows)
    there = [name for name in result.order if name in models]
    means = [statistics.fmean(row.all for row in models[name]) for name in there]
    return [Step(there[i], there[i + 1], means[i + 1] - means[i]) for i in range(len(there) - 1)]


def title_of(result: TableResult, name: str) -> str:
    """Title of a row, or its name if it was not measured."""
    return next((row.title for row in result.rows if row.model == name), name)
