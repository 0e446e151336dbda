"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

stderr = Console(stderr=True, highlight=False)
"""Progress, warnings and remarks."""

stdout = Console(highlight=False)
"""Tables that a person asked for."""


def print_json(data: Any) -> None:
    """Write one JSON document and nothing else to standard output; NaN is not allowed."""
    json.dump(data, sys.stdout, indent=2, allow_nan=False, ensure_ascii=True)
    sys.stdout.write("\n")
    sys.stdout.flush()
