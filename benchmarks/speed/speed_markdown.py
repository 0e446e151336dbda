"""The rows of `retrieve bench speed` as a table and as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.sheet import new_sheet, save_sheet
from benchmarks.tables.markdown_grid import markdown_grid

_DRAWN = (
    "any combination",
    "approximate",
    "with a filter, exact, worst of them",
    "with a filter, approximate, worst of them",
)


def markdown(data: dict[str, Any]) -> str:
    """The figures as Markdown."""
    header = ["what", "images", "value", "floor", "times the floor", "recall@10"]
    order = list(dict.fromkeys(row["what"] for row in data["rows"]))
    rows = sorted(data["rows"], key=lambda row: (order.index(row["what"]), row["size"]))
    cells = [
        [
            row["what"],
            f"{row['size']:,}",
            f"{_figure(row['value'])} {row['unit']}",
            "" if row["floor"] is None else f"{_figure(row['floor'])} {row['unit']}",
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            "" if row["recall"] is None else f"{row['recall']:.3f}",
        ]
        for row in rows
    ]
    lines = markdown_grid(header, cells)
    commits = ", ".join(sorted({row["commit"] for row in data["rows"]}))
    lines += [
        "",
        f"{data['machine']}; commit {commits}. Galleries are drawn from the descriptors of real "
        "images. Medians; pictures are encoded already. `any combination` reads every descriptor "
        "(where there are inverted lists, the search alone is timed); its floor is one plain "
        "reading of the descriptors' bytes by all cores, in turns with it. Of filters the search "
        "alone is timed, the slowest of five of each share; recall is that of the worst. `what a "
        "new filter leaves` comes on top, once.",
        "",
    ]
    return "\n".join(lines)


def draw_chart(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw milliseconds against the size of the gallery, and the floor.

    Args:
        rows: of a result.
        path: of the PNG.

    Raises:
        ResourceError: matplotlib is not installed, or the file cannot be written.
    """
    sheet = new_sheet(6.4, 4.4)
    panel = sheet.subplots()
    for what in _DRAWN:
        own = [row for row in rows if row["what"] == what]
        if own:
            panel.loglog([r["size"] for r in own], [r["value"] for r in own], "o-", label=what)
    own = [row for row in rows if row["what"] == _DRAWN[0]]
    floor = [row["floor"] for row in own]
    panel.loglog([row["size"] for row in own], floor, "k:", label="one reading of all bytes")
    panel.set_xlabel("images")
    panel.set_ylabel("ms")
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False)
    save_sheet(sheet, path)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
