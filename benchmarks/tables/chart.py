"""A table of MAP as bars: a panel for All and for every attribute, a bar a model."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.sheet import new_sheet, save_sheet
from benchmarks.tables.result import ALL, TableResult
from benchmarks.tables.summary import by_model, figure, map_of

PANELS_A_ROW = 3
_REFERENCE, _OTHERS, _CHANCE = "#b3431e", "#7d8ca3", "#222222"


def draw_chart(result: TableResult, path: Path) -> None:
    """Write the chart as PNG; published figures are never in it.

    Args:
        result: at least one entry.
        path: of the file. Bars are means over seeds, their whiskers one standard deviation, the
            dashed line is chance.

    Raises:
        ResourceError: matplotlib is not installed, or the file cannot be written.
    """
    models = by_model(result.rows)
    names = list(models)
    columns = [ALL, *result.attributes]
    highest = max(map_of(row, column) for row in result.rows for column in columns)
    across = min(PANELS_A_ROW, len(columns))
    down = math.ceil(len(columns) / across)
    sheet = new_sheet(1.6 + 2.9 * across, down * (0.75 + 0.26 * len(names)))
    panels = sheet.subplots(down, across, sharey=True, squeeze=False).ravel()
    for panel, column in zip(panels, columns, strict=False):
        found = [figure([map_of(row, column) for row in models[name]]) for name in names]
        panel.barh(
            [models[name][0].title for name in names],
            [f.mean for f in found],
            xerr=[f.sd or 0.0 for f in found],
            color=[_REFERENCE if name == result.reference else _OTHERS for name in names],
            error_kw={"elinewidth": 1},
        )
        for place, f in enumerate(found):
            panel.annotate(
                f"{f.mean:.1f}",
                (f.mean + (f.sd or 0.0), place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        panel.axvline(result.chance[column], color=_CHANCE, linestyle="--", linewidth=1)
        panel.set_xlim(0, highest * 1.2)  # room for the figures
        panel.set_title("All" if column == ALL else column, fontsize=10, loc="left")
        panel.tick_params(labelsize=8, length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    panels[0].invert_yaxis()
    sheet.suptitle(
        f"{result.title}, {result.dataset}, {result.backbone}, {result.mode} conditions: "
        "MAP in percent (dashed: chance)",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    save_sheet(sheet, path)
