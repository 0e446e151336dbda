"""What each part is worth, as Markdown: labels, likeness, changes and combinations, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.tables.conditions_markdown import conditions_of
from benchmarks.tables.differences_grid import Column, differences_grid
from benchmarks.tables.map_markdown import map_section
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.result import RowResult, TableResult
from benchmarks.tables.summary import by_model, figure, title_of


def _found(data: dict[str, Any] | None, *path: str) -> float | None:
    for name in path:
        data = None if data is None else data[name]
    return data  # type: ignore[return-value]


COLUMNS = {
    "All MAP": Column(".2f", lambda row: row.all),
    "MRR": Column(".3f", lambda row: _found(row.likeness, "query", "mrr")),
    "hard MRR": Column(".3f", lambda row: _found(row.likeness, "query", "hard_mrr")),
    "Top-30": Column(".1f", lambda row: _found(row.manipulation, "top30")),
    "NDCG@30": Column(".1f", lambda row: _found(row.manipulation, "ndcg")),
    "same P@10": Column(".3f", lambda row: _found(row.combinations, "same", "precision_at_10")),
    "but P@10": Column(".3f", lambda row: _found(row.combinations, "but", "precision_at_10")),
    "but keep@10": Column(".3f", lambda row: _found(row.combinations, "but", "keep_at_10")),
}
"""What is told of every row, by heading."""


def ablations_markdown(result: TableResult) -> str:
    """The whole document.

    Args:
        result: at least one entry.
    """
    models = by_model(result.rows)
    shown = {
        heading: column
        for heading, column in COLUMNS.items()
        if any(column.measured(row) is not None for row in result.rows)
    }
    lines = [f"# {result.title}: {result.dataset}, {result.backbone}", ""]
    rows = [_row(entries, list(shown.values())) for entries in models.values()]
    lines += [*markdown_grid(["model", *shown, "seeds"], rows), ""]
    lines += [
        f"{result.split} split. MAP in percent under {result.mode} conditions; MRR of the first "
        "other picture of the query's item; hard: of the half whose nearest picture is least alike "
        "by the floor; "
        "Top-30 and NDCG@30 in percent, of exchanging one value; combinations of two and three "
        "values. ±: standard deviation over training seeds. What a dataset cannot tell has no "
        "column.",
        "",
    ]
    differences = differences_grid(result, shown)
    if differences:
        lines += [f"## What each part is worth: {title_of(result, result.reference)} minus", ""]
        lines += [*differences, ""]
    lines += ["## MAP by attribute", "", *map_section(result)]
    lines += conditions_of(result)
    return "\n".join(lines).rstrip() + "\n"


def _row(entries: Sequence[RowResult], columns: Sequence[Column]) -> list[str]:
    cells = []
    for column in columns:
        found = [column.measured(row) for row in entries]
        values = [value for value in found if value is not None]
        cells.append(figure(values).text(column.form, column.form) if values else "")
    return [entries[0].title, *cells, str(len(entries))]
