"""Writing an index elsewhere: into a database, which answers queries, or as a Parquet file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from indexer.hold.draft import Draft
from indexer.hold.local import open_local
from indexer.hold.open import KINDS, scheme_of
from indexer.progress import Progress
from indexer.search.choose import Requests
from training.errors import UsageError


@dataclass(frozen=True)
class ExportReport:
    """Images of the index, those that were written, and those that were there before and were taken
    out."""

    images: int
    written: int
    removed: int


def export_index(folder: Path, to: str, requests: Requests, progress: Progress) -> ExportReport:
    """Write an index to a URL, or a file whose name ends in `.parquet`; `requests` makes query
    vectors like those to come.

    Raises UsageError: another name; as `open_held` and `export_postgres`.
    """
    scheme = scheme_of(to)
    if scheme in ("postgresql", "postgres"):
        from indexer.hold.postgres_export import export_postgres as write
    elif scheme in ("milvus", "milvuss"):
        from indexer.hold.milvus import export_milvus as write
    elif scheme is None and to.endswith(".parquet"):
        from indexer.hold.parquet import export_parquet

        draft = Draft(open_local(folder))
        return ExportReport(len(draft), export_parquet(draft, Path(to), progress), 0)
    else:
        raise UsageError(f"--to {to}: give {KINDS}, or a file that ends in .parquet")
    draft = Draft(open_local(folder))
    return ExportReport(len(draft), *write(draft, to, requests, progress))
