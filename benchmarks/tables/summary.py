"""Rows of measured models as Markdown: columns are data, cells are means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common import Data, table
from benchmarks.tables.row_file import WHOLE

TITLES = {
    "floor": "pooled features, untrained",
    "shop": "tag, filter, nearest",
    "adde": "ADDE-M, told the old value",
    "adde-predicted": "ADDE-M, old value predicted",
    "earlier": "M2Fashion, version 0.1",
    "m2fashion": "M2Fashion",
}
"""Row -> title, in the order of tables."""


@dataclass(frozen=True)
class Column:
    """A figure of a row: its path there, key by key; how it, and its deviation, is written."""

    heading: str
    path: tuple[str | int, ...]
    form: str = ".2f"
    spread: bool = True

    def of(self, row: Data) -> float | None:
        """The figure; None if the row lacks it."""
        found: Any = row
        for key in self.path:
            try:
                found = found[key]
            except (KeyError, TypeError):
                return None
        return None if found is None else float(found)

    def text(self, values: Sequence[float | None], sign: str = "") -> str:
        """Mean and sample standard deviation of what is known: `72.08 ± 0.21`, or nothing."""
        known = [value for value in values if value is not None]
        if not known:
            return ""
        several = self.spread and len(known) > 1
        spread = f" ± {format(statistics.stdev(known), self.form)}" if several else ""
        return format(statistics.fmean(known), sign + self.form) + spread


def which(row: Data) -> tuple[str, str]:
    """Model and variant; a row that names none is of the whole model."""
    return row["model"], row.get("variant", WHOLE)


def title(row: Data) -> str:
    """What a table calls a row: its own title, or that of its model and the part that it lacks."""
    if "title" in row:
        return str(row["title"])
    model, variant = which(row)
    return TITLES[model] + ("" if variant == WHOLE else f", {variant}")


def by_title(rows: Sequence[Data]) -> dict[str, list[Data]]:
    """The entries of each model, in the order of the rows."""
    out: dict[str, list[Data]] = {}
    for row in rows:
        out.setdefault(title(row), []).append(row)
    return out


def means(
    rows: Sequence[Data], columns: Sequence[Column], *notes: str, shared: Sequence[Data] = ()
) -> str:
    """A table of means over seeds, a line a model, and notes below it.

    `floor` marks a row that has no spread over seeds; what a model lacks is a blank cell; `shared`
    are last lines, such as chance, which are the same for every model.
    """
    lines = []
    for name, entries in by_title(rows).items():
        seeds = "" if entries[0].get("floor") else str(len(entries))
        lines.append([name, seeds, *(c.text([c.of(row) for row in entries]) for c in columns)])
    lines += [[row["title"], "", *(c.text([c.of(row)]) for c in columns)] for row in shared]
    return table(["model", "seeds", *(column.heading for column in columns)], lines, *notes)


def differences(rows: Sequence[Data], columns: Sequence[Column], reference: str) -> str:
    """The reference minus every other model, seed by seed; nothing if none shares a seed with it.

    A floor is the same for every seed.
    """
    own = [row for row in rows if row["model"] == reference]
    lines = []
    for name, entries in by_title([row for row in rows if row["model"] != reference]).items():
        floor = entries[0] if entries[0].get("floor") else None
        theirs = {row["seed"]: row for row in entries}
        pairs = [(row, floor or theirs.get(row["seed"])) for row in own]
        cells = []
        for column in columns:
            found = [(column.of(one), column.of(other or {})) for one, other in pairs]
            gains = [a - b for a, b in found if a is not None and b is not None]
            cells.append(column.text(gains, "+"))
        if any(cells):
            lines.append([name, *cells])
    return table(["", *(column.heading for column in columns)], lines) if lines else ""
