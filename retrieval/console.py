"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

stderr = Console(stderr=True, highlight=False, emoji=False)
"""Progress, warnings and remarks."""

stdout = Console(highlight=False, emoji=False)
"""Tables that a person asked for."""


_NO_EDGE = 1 << 16  # columns
_NARROWEST = 60  # columns; in fewer, rich leaves cells out


def print_table(table: Table) -> None:
    """Write a table to standard output.

    On a terminal it is wrapped to fit. A pipe or a file has no edge to wrap at, and a path that is
    wrapped there cannot be found or copied; `COLUMNS` sets a width all the same.
    """
    Console(highlight=False, emoji=False, width=table_width()).print(table)


def table_width() -> int:
    """Columns that `print_table` has."""
    fitted = stdout.is_terminal or "COLUMNS" in os.environ
    return max(stdout.width, _NARROWEST) if fitted else _NO_EDGE


def print_json(data: Any) -> None:
    """Write one JSON document and nothing else to standard output; NaN is not allowed."""
    json.dump(data, sys.stdout, indent=2, allow_nan=False, ensure_ascii=True)
    sys.stdout.write("\n")
    sys.stdout.flush()
