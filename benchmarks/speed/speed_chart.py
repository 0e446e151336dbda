"""Time against size, both logarithmic, a panel an operation, its floor dashed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.speed.result import rows_of
from training.errors import ResourceError

_ACROSS = 3
_OWN, _FLOOR = "#b3431e", "#7d8ca3"
_TIMES = ("s", "ms")


def draw_chart(data: dict[str, Any], path: Path) -> bool:
    """Write the chart as PNG.

    Args:
        data: what the results file holds.
        path: of the file.

    Returns:
        Whether there is an operation that was timed at two sizes or more; no file without.

    Raises:
        ResourceError: matplotlib is not installed, or the file cannot be written.
    """
    rows = [row for row in rows_of(data) if row.unit in _TIMES and row.size]
    names = [what for what in data["growth"] if any(row.what == what for row in rows)]
    if not names:
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ResourceError(
            f"no chart without matplotlib ({error}); install it with "
            "pip install -c constraints.txt -e '.[bench]'"
        ) from error
    across = min(_ACROSS, len(names))
    down = math.ceil(len(names) / across)
    sheet = Figure(figsize=(3.6 * across, 2.9 * down + 0.5))
    FigureCanvasAgg(sheet)
    panels = sheet.subplots(down, across, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        own = [row for row in rows if row.what == name]
        sizes = [row.size for row in own]
        panel.loglog(sizes, [row.value for row in own], "o-", color=_OWN, markersize=4)
        floors = [(row.size, row.floor) for row in own if row.floor]
        if floors:
            panel.loglog(*zip(*floors, strict=True), "s--", color=_FLOOR, markersize=3)
        panel.set_title(f"{name}: n^{data['growth'][name]:.2f}", fontsize=8, loc="left")
        panel.set_ylabel(own[0].unit, fontsize=8)
        panel.set_xlabel("images", fontsize=8)
        panel.tick_params(which="both", labelsize=7)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    sheet.suptitle(f"{data['machine']} (dashed: floor)", fontsize=10, x=0.01, ha="left")
    sheet.tight_layout()
    try:
        sheet.savefig(path, dpi=130, metadata={"Software": None})
    except OSError as error:
        raise ResourceError(f"cannot write the chart {path}: {error.strerror}") from error
    return True
