"""Opening an index by its name: a folder, or the URL of a database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from indexer.hold.held import Held, Outdated
from indexer.hold.local import open_local
from training.errors import UsageError

KINDS = "postgresql://user@host/db?table=NAME, milvus://host:port/NAME"
"""URLs of databases."""


def scheme_of(where: str | Path) -> str | None:
    """Such as `postgresql`; None of a path."""
    found = re.match(r"([a-z]+)://", str(where))
    return found[1] if found else None


def open_held(where: str | Path, device: str = "cpu", verify: bool = True) -> Held[Any]:
    """Open what holds an index, the current version.

    Raises as `open_local`; of a database DataError: it holds no index, ResourceError: it does not
    answer, or its driver is missing; UsageError: a URL of another kind.
    """
    scheme = scheme_of(where)
    if scheme is None:
        return open_local(where, device, verify)
    for again in (True, False):
        try:
            held = _database(str(where), scheme)
            held.ready()
            return held
        except Outdated:  # written anew in between
            if not again:
                raise
    raise AssertionError("the second time returns or raises")


def _database(url: str, scheme: str) -> Held[Any]:
    if scheme in ("postgresql", "postgres"):
        from indexer.hold.postgres import PostgresIndex

        return PostgresIndex(url)
    if scheme in ("milvus", "milvuss"):
        from indexer.hold.milvus import MilvusIndex

        return MilvusIndex(url)
    raise UsageError(f"an index at {url}; name a folder, or {KINDS}")
