"""A Markdown table from cells."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first column is text and whose others are figures.

    Args:
        header: one cell a column.
        rows: likewise; a `|` in a cell is escaped.
    """
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return [_line(header), _line(rule), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
