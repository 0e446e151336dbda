"""A request by name, and what it means in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.ranking import kept_attributes
from training.errors import UsageError
from training.schema import Condition, Schema, normalise_name

Filters = Mapping[str, str | Sequence[str]]
"""Attribute -> value or values."""


@dataclass(frozen=True)
class Request:
    """A picture and what hits should have in common with it, or not.

    Args:
        image: a file or an RGB picture.
        present: values that hits should have: `["v-neckline", "floral"]`.
        absent: values that they should not have.
        like: attributes to compare by (type conditions).
        where: attribute -> value, or values of one that an image can have several of; only images
            whose *known* labels are these are searched.
        top_k: how many hits at most, at least 1.
        trust_labels: let known gallery labels settle whether a value is present.
    """

    image: str | Path | Image.Image
    present: Sequence[str] = ()
    absent: Sequence[str] = ()
    like: Sequence[str] = ()
    where: Filters = field(default_factory=dict)
    top_k: int = 10
    trust_labels: bool = False


@dataclass(frozen=True)
class Terms:
    """A request in the numbers of a schema.

    Args:
        condition: label states [K].
        wanted: flat indices of the values that hits should have, in the request's order.
        unwanted: of those that they should not have.
        spoken: attributes that the condition speaks of, ascending.
        kept: attributes in which hits should be like the picture besides; none if no value is
            named, since the condition says it all then.
        where: flat indices of the values that are filtered by.
        top_k: at least 1.
        trust_labels: known labels settle whether a value is present.
    """

    condition: Condition
    wanted: tuple[int, ...]
    unwanted: tuple[int, ...]
    spoken: tuple[int, ...]
    kept: tuple[int, ...]
    where: tuple[int, ...]
    top_k: int
    trust_labels: bool

    @property
    def named(self) -> tuple[int, ...]:
        """Flat indices of all named values; empty if hits are ranked by likeness alone."""
        return self.wanted + self.unwanted


def resolve(schema: Schema, request: Request) -> Terms:
    """Look a request's names up.

    Raises:
        UsageError: an unknown, repeated or contradictory name, or `top_k` < 1.
    """
    if request.top_k < 1:
        raise UsageError(f"top_k must be at least 1, not {request.top_k}")
    if not isinstance(request.where, Mapping):
        raise UsageError(f"where takes attribute -> value, not {request.where!r}")
    wanted = _distinct(request.present, schema.value)
    unwanted = _distinct(request.absent, schema.value)
    compared = _distinct(request.like, schema.attribute)
    condition = schema.condition(request.present, request.absent, request.like)
    named = [*wanted, *unwanted]
    return Terms(
        condition=condition,
        wanted=tuple(wanted),
        unwanted=tuple(unwanted),
        spoken=tuple(np.unique(schema.attribute_of[np.flatnonzero(condition)]).tolist()),
        kept=tuple(kept_attributes(schema, named, compared)) if named else (),
        where=tuple(_filters(schema, request.where)),
        top_k=request.top_k,
        trust_labels=request.trust_labels,
    )


def _filters(schema: Schema, where: Filters) -> list[int]:
    """Flat indices of values that images are known to have."""
    found: list[int] = []
    for attribute, given in where.items():
        values = [given] if isinstance(given, str) else list(given)
        own = [schema.value_of(attribute, value) for value in values]
        if len(set(own)) > 1 and not schema.multi[schema.attribute(attribute)]:
            raise UsageError(
                f"an image has one value of {attribute!r}, not all of {', '.join(values)}"
            )
        found += own
    return found


def _distinct(names: Sequence[str], find: Callable[[str], int]) -> list[int]:
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
    return list(found)
