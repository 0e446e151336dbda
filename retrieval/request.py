"""A request by name, and what it means in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from indexer.store.gallery import Column
from retrieval.filters import Filter, Filters, resolve_filters
from retrieval.picture import Picture
from retrieval.query_vector import Asked
from training.errors import UsageError
from training.schema import Condition, Schema, normalise_name

QueryImage = str | Path | Image.Image | Picture
"""A file, an RGB picture, or one that was encoded before."""


@dataclass(frozen=True)
class Request:
    """A picture and what hits should have in common with it, or not.

    Args:
        image: a file, an RGB picture, or what `Engine.encode` gave.
        present: values that hits should have: `["v-neckline", "floral"]`.
        absent: values that they should not have.
        like: attributes to compare by; those of which no value is named if none is given.
        where: attribute or payload column -> condition or conditions, see `filters`; only images
            that pass are searched.
        top_k: how many hits at most, at least 1.
        keep: the dial, 0..1: how much of the likeness is kept against having the named values;
            None: the default. Of no effect where no value is named.
        offset: how many of the best hits are passed over, at least 0.
        min_score: hits below it are left out, 0..1.
        one_per_item: of each item only the best image.
        include_query: byte-equal copies of the picture may be hits, too.
        trust_labels: let known gallery labels settle whether a named value is present.
        exact: score every image, also where an approximate index would be searched.
    """

    image: QueryImage
    present: Sequence[str] = ()
    absent: Sequence[str] = ()
    like: Sequence[str] = ()
    where: Filters = field(default_factory=dict)
    top_k: int = 10
    keep: float | None = None
    offset: int = 0
    min_score: float = 0.0
    one_per_item: bool = False
    include_query: bool = False
    trust_labels: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Terms:
    """A request's names in the numbers of a schema: label states [K] for attention maps and in
    words, what is asked, and the filters."""

    condition: Condition
    asked: Asked
    where: tuple[Filter, ...]


def resolve(schema: Schema, columns: Mapping[str, Column], request: Request) -> Terms:
    """Look a request's names up in an index's schema and payload.

    Raises:
        UsageError: an unknown, repeated or contradictory name, or a number out of its range.
    """
    if request.top_k < 1:
        raise UsageError(f"top_k must be at least 1, not {request.top_k}")
    if request.offset < 0:
        raise UsageError(f"offset must be at least 0, not {request.offset}")
    if request.keep is not None and not 0 <= request.keep <= 1:
        raise UsageError(f"keep must be 0..1, not {request.keep}")
    if not 0 <= request.min_score <= 1:
        raise UsageError(f"min_score must be 0..1, not {request.min_score}")
    asked = Asked(
        _distinct(request.present, schema.value),
        _distinct(request.absent, schema.value),
        _distinct(request.like, schema.attribute),
        request.keep,
    )
    condition = schema.condition(request.present, request.absent, request.like)
    return Terms(condition, asked, resolve_filters(schema, columns, request.where))


def _distinct(names: Sequence[str], find: Callable[[str], int]) -> tuple[int, ...]:
    """Numbers of names, in their order; `floral` and `pattern:floral` are one name twice."""
    if isinstance(names, str):  # else its letters would be the names
        raise UsageError(f"give a list of names, [{names!r}], not {names!r} alone")
    found: dict[int, str] = {}
    for name in names:
        if not normalise_name(name):
            raise UsageError(f"the name {name!r} is empty; separate names by single commas")
        number = find(name)
        if number in found:
            other = "" if found[number] == name else f" (also as {found[number]!r})"
            raise UsageError(f"{name!r} is named twice{other}; once is enough")
        found[number] = name
    return tuple(found)
