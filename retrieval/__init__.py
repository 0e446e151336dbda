"""Attribute-specific image retrieval: `Engine.open(index).query(Request(picture, ["floral"]))`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.engine import Engine
    from retrieval.hits import Hit, QueryResult
    from retrieval.request import Request

__all__ = ["Engine", "Hit", "QueryResult", "Request"]


def __getattr__(name: str) -> Any:
    """Import the public classes when they are asked for: they bring torch, `retrieve` does not."""
    home = {"Engine": "engine", "Request": "request", "Hit": "hits", "QueryResult": "hits"}
    if name in home:
        return getattr(import_module(f"retrieval.{home[name]}"), name)
    raise AttributeError(f"module 'retrieval' has no attribute {name!r}")


def _check_packages() -> None:
    """Name what hides a package of ours: `python -m` looks into the working folder first."""
    home = Path(__file__).resolve().parents[1]
    for name in ("training", "indexer", "service", "benchmarks"):
        spec = find_spec(name)
        places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
        place = next((Path(place).resolve() for place in places if place), None)
        if place is not None and not place.is_relative_to(home / name):
            what = place.parent if place.name == "__init__.py" else place
            raise ImportError(
                f"{what} hides the package {name!r} in {home}; call the command `retrieve`, or "
                "work in another folder",
                name=__name__,
            )


_check_packages()

import training  # noqa: E402, F401  # settles the threads before numpy and torch load
