"""Result files that grow: a run replaces the rows that it measures and keeps the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ablations_table import WHOLE
from benchmarks.measured_rows import TITLES
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.summary import figure
from training.errors import DataError

Row = dict[str, Any]


def with_kept_rows(file: Path, rows: Sequence[Row], ground: str) -> list[Row]:
    """New rows and those of `file` that are of another model, variant or seed, in the order of
    tables.

    Args:
        file: of the result, if there is one.
        rows: as measured now.
        ground: hash of what they were measured on, the field `ground` of a result; rows of a file
            with another one are not kept.

    Raises:
        DataError: the file is there but is no result.
    """
    measured = {(*_which(row), row["seed"]) for row in rows}
    kept: list[Row] = []
    if file.is_file():
        try:
            found = json.loads(file.read_text())
            kept = found["rows"] if found["ground"] == ground else []
            kept = [row for row in kept if (*_which(row), row["seed"]) not in measured]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no result to add rows to: {error!r}; remove it") from error
    order = list(TITLES)
    models = [*order, *sorted({row["model"] for row in kept} - set(order))]

    def place(row: Row) -> tuple[int, bool, str, int]:
        model, variant = _which(row)
        return models.index(model), variant != WHOLE, variant, row["seed"]

    return sorted([*rows, *kept], key=place)


def mean_rows(rows: Sequence[Row], columns: dict[str, tuple[str, str]], first: str) -> list[str]:
    """Lines of a Markdown table with means and sample standard deviations over seeds.

    Args:
        rows: of a result.
        columns: field -> (heading, format); a field that a row lacks is a blank cell.
        first: heading of the column of models.
    """
    cells = []
    for which in dict.fromkeys(_which(row) for row in rows):
        own = [row for row in rows if _which(row) == which]
        model, variant = which
        title = TITLES.get(model, model) + ("" if variant == WHOLE else f", {variant}")
        line = [title, str(len(own))]
        for name, (_, form) in columns.items():
            values = [row[name] for row in own if row.get(name) is not None]
            line.append(figure(values).text(form, form) if values else "")
        cells.append(line)
    return markdown_grid([first, "seeds", *(heading for heading, _ in columns.values())], cells)


def _which(row: Row) -> tuple[str, str]:
    """Model and variant; a row that names none is of the whole model."""
    return row["model"], row.get("variant", WHOLE)
