"""Opening an index by its name: a folder, or the URL of a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from indexer.hold.held import Held
from indexer.hold.local import open_local


def open_held(where: str | Path, device: str = "cpu", verify: bool = True) -> Held[Any]:
    """Open what holds an index, the current version; raises as `open_local`."""
    return open_local(where, device, verify)
