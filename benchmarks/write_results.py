"""Where results lie: a JSON file and the Markdown that it is rendered to, under one stem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.files import as_resource_error

RESULTS = Path(__file__).parent / "results"


def write_results(folder: Path, stem: str, data: dict[str, Any], markdown: str) -> None:
    """Write `stem.json` and `stem.md`; raises ResourceError."""
    with as_resource_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.json").write_text(json.dumps(data, indent=1) + "\n")
        (folder / f"{stem}.md").write_text(markdown)


def split_suffix(split: str, usual: str) -> str:
    """What a split adds to a stem: nothing if it is the usual one."""
    return "" if split == usual else f"-{split}"
