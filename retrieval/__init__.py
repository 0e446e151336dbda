"""The query layer: engine, ranking, metrics, evaluation and the `retrieve` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.engine import Engine
    from retrieval.hits import Hit, QueryResult
    from retrieval.request import Request

__all__ = ["Engine", "Hit", "QueryResult", "Request"]


def __getattr__(name: str) -> Any:
    """Import the public classes when they are asked for: they bring torch, `retrieve` does not."""
    if name == "Engine":
        from retrieval.engine import Engine

        return Engine
    if name in ("Hit", "QueryResult"):
        from retrieval import hits

        return getattr(hits, name)
    if name == "Request":
        from retrieval.request import Request

        return Request
    raise AttributeError(f"module 'retrieval' has no attribute {name!r}")
