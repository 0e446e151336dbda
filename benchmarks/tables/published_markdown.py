"""Figures that papers print, in a table of their own: never among ours, never in a chart."""

from __future__ import annotations

from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.result import ALL, TableResult
from retrieval.evaluation.published import PUBLISHED, PublishedTable, published_for


def published_section(result: TableResult) -> list[str]:
    """Lines of Markdown, a blank one last; nothing for a table that is not of MAP by model.

    Where the run used the official lists of a published table, that table; otherwise All of the
    published tables, which are of other images.
    """
    if result.table != "map":
        return []
    comparable = None
    if result.protocol == "published lists":
        queries = result.counts[ALL]["queries"]
        comparable = published_for(result.dataset, result.split, result.mode, queries)
    if comparable is not None:
        return _comparable(comparable)
    names = list(dict.fromkeys(m for table in PUBLISHED.values() for m in table.rows))
    rows = [[name, *(_all(table, name) for table in PUBLISHED.values())] for name in names]
    return [
        "## Published MAP (All) of other datasets",
        "",
        *markdown_grid(["published", *PUBLISHED], rows),
        "",
        "As printed in papers, not reproduced here, and not comparable with the figures above: "
        "other images, other attributes, fine-tuned ResNet-50.",
        "",
    ]


def _comparable(table: PublishedTable) -> list[str]:
    return [
        "## Published MAP",
        "",
        *markdown_grid(["published", *table.columns], table.cells()),
        "",
        f"As printed in the papers, not reproduced here. {table.remark}".strip(),
        "",
    ]


def _all(table: PublishedTable, method: str) -> str:
    return next((row[-1] for row in table.cells() if row[0] == method), "")
