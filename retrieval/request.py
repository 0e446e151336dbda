"""A request by name, its filters, and what both mean in the numbers of an index."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from indexer.hold.held import Column, Filter, Operator
from indexer.store.gallery import parse_number
from retrieval.picture import Picture
from retrieval.query_vector import Asked
from training.errors import UsageError
from training.images.read import PictureSource
from training.schema import Condition, Schema, nearest, normalise_name

Filters = Mapping[str, str | Sequence[str]]
"""Attribute or payload column -> condition or conditions: a value alone, or one after `=`, `!=`,
`<`, `<=`, `>` or `>=`."""

_CONDITION = re.compile(r"\s*(!=|<=|>=|=|<|>)?\s*(.*?)\s*", re.DOTALL)
_TEXT = re.compile(r"\s*(.+?)\s*((?:!=|<=|>=|=|<|>).*)", re.DOTALL)
_COMPARE = ("<", "<=", ">", ">=")


def parse_filters(texts: Sequence[str]) -> dict[str, list[str]]:
    """Filters from texts such as `colour=red`, `colour!=red`, `price<50`; UsageError for others."""
    out: dict[str, list[str]] = {}
    names: dict[str, str] = {}  # as they were first spelled
    for text in texts:
        found = _TEXT.fullmatch(text)
        if found is None or not _CONDITION.fullmatch(found[2])[2]:  # type: ignore[index]
            raise UsageError(
                f"--where {text!r} is not of the form attribute=value; also !=, and <, <=, > and "
                ">= for columns of numbers"
            )
        out.setdefault(names.setdefault(normalise_name(found[1]), found[1]), []).append(found[2])
    return out


def resolve_filters(
    schema: Schema, columns: Mapping[str, Column], where: Filters
) -> tuple[Filter, ...]:
    """Look the names and values of filters up in an index's schema and payload; UsageError for an
    unknown one (with the nearest), or a bound on what is no number."""
    if not isinstance(where, Mapping):
        raise UsageError(f"where takes attribute -> value, not {where!r}")
    return tuple(
        _resolve(schema, columns, name, condition)
        for name, given in where.items()
        for condition in ([given] if isinstance(given, str) else given)
    )


def _resolve(schema: Schema, columns: Mapping[str, Column], name: str, condition: str) -> Filter:
    found = _CONDITION.fullmatch(condition)
    assert found is not None, "it matches any text"
    operator, value = cast(Operator, found[1] or "="), str(found[2])
    folded, said = normalise_name(name), f"where {name}{operator}{value}"
    attributes = {normalise_name(attribute.name) for attribute in schema.attributes}
    if folded in attributes:
        if operator in _COMPARE:
            raise UsageError(f"{said}: {name!r} is an attribute; compare it with = or !=")
        return Filter(folded, operator, value, schema.value_of(name, value))
    own = next((column for column in columns if normalise_name(column) == folded), None)
    if own is None:
        names = [*(attribute.name for attribute in schema.attributes), *columns]
        what = "attribute or column" if columns else "attribute"
        all_by = "`retrieve inspect --dataset D` lists the dataset's"
        raise UsageError(f"unknown {what} {name!r}; {nearest(name, names, all_by=all_by)}")
    if operator in _COMPARE:
        if not columns[own].numeric:
            raise UsageError(
                f"{said}: the column {own!r} does not hold numbers alone; compare it with = or !="
            )
        if parse_number(value) is None:
            raise UsageError(f"{said}: {value!r} is no number")
    return Filter(own, operator, value, None)


QueryImage = PictureSource | Picture
"""A file, an RGB picture, or one that was encoded before."""


@dataclass(frozen=True)
class Request:
    """A picture and what hits should have in common with it, or not.

    Args:
        image: a file, an RGB picture, or what `Engine.encode` gave.
        present: values that hits should have: `["v-neckline", "floral"]`.
        absent: values that they should not have.
        like: attributes to compare by; those of which no value is named if none is given.
        where: only images that pass are searched, see `Filters`.
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
    """Look a request's names up in an index's schema and payload; UsageError for an unknown,
    repeated or contradictory one, or a number out of its range."""
    for name, least in (("top_k", 1), ("offset", 0)):
        if getattr(request, name) < least:
            raise UsageError(f"{name} must be at least {least}, not {getattr(request, name)}")
    for name, share in (("keep", request.keep), ("min_score", request.min_score)):
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"{name} must be 0..1, not {share}")
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
