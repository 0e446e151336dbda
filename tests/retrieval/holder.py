"""A way to hold an index: in its folder, or exported to a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from indexer.hold.export import ExportReport, export_index
from indexer.progress import Silent
from retrieval.query_vector import draw_requests


@dataclass
class Holder:
    """A way to hold an index: `url` is a new place for one, of a folder "" itself."""

    kind: str
    url: Callable[[], str]
    places: dict[Path, str] = field(default_factory=dict)

    def export(self, folder: Path, url: str) -> ExportReport | None:
        return export_index(folder, url, draw_requests, Silent()) if url else None

    def hold(self, folder: Path) -> str | Path:
        """Where an index that does not change is held."""
        if self.kind == "local":
            return folder
        if folder not in self.places:
            self.places[folder] = self.url()
            self.export(folder, self.places[folder])
        return self.places[folder]
