"""Speed as Markdown, from what the JSON file holds."""

from __future__ import annotations

from typing import Any

from benchmarks.speed.result import commits_of, rows_of
from benchmarks.speed.row import Row
from benchmarks.tables.markdown_grid import markdown_grid


def markdown(data: dict[str, Any]) -> str:
    """The rows as one table, with what each was measured against below it."""
    rows, source = rows_of(data), data["source"]
    header = ["what", "images", "median", "floor", "ratio", "recall@10", "memory", "read"]
    lines = [*markdown_grid(header, [_cells(row) for row in rows]), ""]
    if data["growth"]:
        grows = [[what, f"{slope:.2f}"] for what, slope in data["growth"].items()]
        lines += ["Growth with the number of images n, fitted over the sizes:", ""]
        lines += [*markdown_grid(["what", "n to the power of"], grows), ""]
    against = {row.what: row.against for row in rows if row.against}
    lines += [f"- {what}: the floor is {text}." for what, text in against.items()]
    lines += [
        "",
        f"{data['machine']}; maps of {source['images']:,} images of {source['dataset']} "
        f"({source['backbone']}, {source['cells']} cells of {source['dim']} numbers, "
        f"{source['values']} values of {source['attributes']} attributes), larger galleries made "
        "of them by perturbing. Operation and floor are timed in turns; medians, the ratio that of "
        f"the pairs. Memory is anonymous, beyond what the process had. Commit {commits_of(data)}.",
        "",
    ]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    return [
        row.what,
        "" if row.size is None else f"{row.size:,}",
        f"{figure(row.value)} {row.unit}",
        "" if row.floor is None else f"{figure(row.floor)} {row.unit}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.recall is None else f"{row.recall:.3f}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:,.0f} MB",
        "" if row.bytes_read is None else f"{row.bytes_read / 1e6:,.0f} MB",
    ]


def figure(value: float) -> str:
    """Three significant digits, more for large whole figures and for shares next to 1."""
    if 0.99 < value < 1:
        return f"{value:.6f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
