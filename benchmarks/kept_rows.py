"""Result files that grow: a run replaces the rows that it measures and keeps the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measured_rows import TITLES
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.summary import figure
from training.errors import DataError

Row = dict[str, Any]


def with_kept_rows(file: Path, rows: Sequence[Row]) -> list[Row]:
    """New rows and those of `file` that are of another model or seed, in the order of tables.

    Raises:
        DataError: the file is there but is no result.
    """
    measured = {(row["model"], row["seed"]) for row in rows}
    kept: list[Row] = []
    if file.is_file():
        try:
            kept = json.loads(file.read_text())["rows"]
            kept = [row for row in kept if (row["model"], row["seed"]) not in measured]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no result to add rows to: {error!r}; remove it") from error
    order = list(TITLES)
    models = [*order, *sorted({row["model"] for row in kept} - set(order))]
    return sorted([*rows, *kept], key=lambda row: (models.index(row["model"]), row["seed"]))


def mean_rows(rows: Sequence[Row], columns: dict[str, tuple[str, str]], first: str) -> list[str]:
    """Lines of a Markdown table with means and sample standard deviations over seeds.

    Args:
        rows: of a result.
        columns: field -> (heading, format); a field that a row lacks is a blank cell.
        first: heading of the column of models.
    """
    cells = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        line = [TITLES.get(model, model), str(len(own))]
        for name, (_, form) in columns.items():
            values = [row[name] for row in own if row.get(name) is not None]
            line.append(figure(values).text(form, form) if values else "")
        cells.append(line)
    return markdown_grid([first, "seeds", *(heading for heading, _ in columns.values())], cells)
