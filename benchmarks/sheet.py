"""Sheets that charts are drawn on; matplotlib is an extra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import ResourceError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_sheet(width: float, height: float) -> Figure:
    """An empty sheet, in inches; raises ResourceError if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ResourceError(
            f"no chart without matplotlib ({error}); install it with "
            "pip install -c constraints.txt -e '.[bench]'"
        ) from error
    sheet = Figure(figsize=(width, height))
    FigureCanvasAgg(sheet)
    return sheet


def save_sheet(sheet: Figure, path: Path) -> None:
    """Write a sheet as PNG; raises ResourceError."""
    sheet.tight_layout()
    try:
        sheet.savefig(path, dpi=130, metadata={"Software": None})
    except OSError as error:
        raise ResourceError(f"cannot write the chart {path}: {error.strerror}") from error
