"""The reference row minus each other row, seed by seed, as a Markdown table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.result import RowResult, TableResult
from benchmarks.tables.summary import by_model, difference


@dataclass(frozen=True)
class Column:
    """A figure of a row: how it is written, and where it is found (None: not measured)."""

    form: str
    measured: Callable[[RowResult], float | None]


def differences_grid(result: TableResult, columns: Mapping[str, Column]) -> list[str]:
    """Lines of the table.

    Args:
        result: of a table.
        columns: by heading.

    Returns:
        A line for each row that shares a seed with the reference; no lines without any such row.
    """
    models = by_model(result.rows)
    reference = models.pop(result.reference, [])
    rows = []
    for entries in models.values():
        gains = [difference(reference, entries, column.measured) for column in columns.values()]
        if any(gain is not None for gain in gains):
            cells = [
                "" if gain is None else gain.text("+" + column.form, column.form)
                for gain, column in zip(gains, columns.values(), strict=True)
            ]
            rows.append([entries[0].title, *cells])
    return markdown_grid(["", *columns], rows) if rows else []
