"""Attributes, their values, the flat numbering 0..K-1, and conditions built by name.

A *condition* is the vector of label states [K] (+1 known present, -1 known absent, 0 unknown)
that an embedding is conditioned on (Eq. 1's A). A *type condition* marks all values of one
attribute; a *value condition* marks the named values.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError, UsageError
from training.validated import validated

Condition = NDArray[np.int8]
"""Label states [K], int8 in {-1, 0, +1}."""

NOT_APPLICABLE = "not applicable"
"""What is said of an attribute that a garment has no value of, as trousers have no sleeve length:
in tables, in any case, with blanks, dashes or underscores between the words or without."""


@lru_cache(1 << 16)  # the same few names stand in hundreds of thousands of rows
def normalise_name(name: str) -> str:
    """Fold case, spaces, dashes and underscores: `Sleeve_Length` and `sleeve length` are one."""
    if not name.isascii():  # full-width letters, and accents apart from their letters
        name = unicodedata.normalize("NFKC", name)
    return re.sub(r"[\s_\-]+", "-", name.strip().casefold()).strip("-")


def nearest(name: str, choices: Sequence[str], cutoff: float = 0.5, all_by: str = "") -> str:
    """The end of a message on an unknown name: the choices like it, or that there is none.

    Then it lists them, or of many how many there are, and that all of them are told `all_by`.
    """
    folded = {normalise_name(c.rpartition(":")[2]): c for c in choices}
    folded |= {normalise_name(c): c for c in choices}
    near = difflib.get_close_matches(normalise_name(name), list(folded), n=5, cutoff=cutoff)
    if near:
        return f"nearest: {', '.join(dict.fromkeys(folded[n] for n in near))}"
    if len(choices) <= 12 or not all_by:
        return f"none is like it; there are: {', '.join(choices) or '(none)'}"
    return f"none of the {len(choices):,} is like it; {all_by}"


def full_name(attribute: str, value: str) -> str:
    """A value as it is shown: with its attribute where it alone says nothing, `hood:yes`."""
    bare = value.isdigit() or normalise_name(value) in _BARE
    return f"{normalise_name(attribute)}:{value}" if bare else value


_BARE = frozenset(("yes", "no", "true", "false", "y", "n", "t", "f", "on", "off", "ja", "nein"))


def _twice(names: Sequence[str]) -> list[str]:
    counts = Counter(normalise_name(name) for name in names)
    return sorted(name for name, count in counts.items() if count > 1)


@dataclass(frozen=True)
class Attribute:
    """One attribute and its values, in order; raises DataError for a value that stands twice."""

    name: str  # e.g. `sleeve-length`
    values: tuple[str, ...]  # names of the values, unique within the attribute
    multi: bool = False  # whether one image can have several (colour of a striped shirt)
    optional: bool = False  # whether it does not apply to some images (sleeve length of trousers)

    def __post_init__(self) -> None:
        if twice := _twice(self.values):
            raise DataError(f"attribute {self.name!r} lists a value twice: {', '.join(twice)}")

    def inapplicable(self, states: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Whether it is known not to apply [N] bool, by the states of its values [N, n]: it is
        optional, and all its values are known absent."""
        return np.asarray((states == -1).all(axis=1) & self.optional)

    def labelled(self, states: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Whether it is known [N] bool, by the states of its values [N, n]: a value is known
        present, or it is known not to apply."""
        has = np.asarray((states == 1).any(axis=1))
        return has | self.inapplicable(states) if self.optional else has

    def left_over(self, chances: NDArray[np.float32]) -> NDArray[np.float32]:
        """The chance that it does not apply, if it is optional, [N] 0..1, by the chances of its
        values [N, n]: of one value what is left of 1, of several that all are absent."""
        out = (1 - chances).prod(axis=1) if self.multi else 1 - chances.sum(axis=1)
        return np.asarray(out.clip(0, 1))


@dataclass(frozen=True)
class Schema:
    """An ordered set of attributes; values of all attributes are numbered flat, 0..K-1. Raises
    DataError if two attributes have the same name."""

    attributes: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        if twice := _twice([a.name for a in self.attributes]):
            raise DataError(f"the schema names an attribute twice: {', '.join(twice)}")

    @cached_property
    def size(self) -> int:
        """K, the number of values of all attributes."""
        return sum(len(a.values) for a in self.attributes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First flat index of each attribute, and K at the end: length `len(attributes) + 1`."""
        return (0, *itertools.accumulate(len(a.values) for a in self.attributes))

    def slice_of(self, attribute: int) -> slice:
        """Flat indices of the values of attribute number `attribute`."""
        return slice(self.offsets[attribute], self.offsets[attribute + 1])

    @cached_property
    def attribute_of(self) -> NDArray[np.int64]:
        """Attribute number of each flat index, [K] int64."""
        counts = [len(a.values) for a in self.attributes]
        return np.repeat(np.arange(len(counts), dtype=np.int64), counts)

    @cached_property
    def multi(self) -> NDArray[np.bool_]:
        """Whether each attribute is multi-valued, [number of attributes] bool."""
        return np.array([a.multi for a in self.attributes], dtype=bool)

    @cached_property
    def optional(self) -> NDArray[np.bool_]:
        """Whether each attribute may not apply, [number of attributes] bool."""
        return np.array([a.optional for a in self.attributes], dtype=bool)

    def inapplicable(self, states: NDArray[np.int8]) -> NDArray[np.bool_]:
        """`Attribute.inapplicable` of each: label states [N, K] to [N, number of attributes]."""
        out = np.zeros((len(states), len(self.attributes)), dtype=bool)
        for number in np.flatnonzero(self.optional).tolist():
            own = states[:, self.slice_of(number)]
            out[:, number] = self.attributes[number].inapplicable(own)
        return out

    def labelled(self, states: NDArray[np.int8]) -> NDArray[np.bool_]:
        """`Attribute.labelled` of each: label states [N, K] to [N, number of attributes]."""
        out = np.zeros((len(states), len(self.attributes)), dtype=bool)
        for number, attribute in enumerate(self.attributes):
            out[:, number] = attribute.labelled(states[:, self.slice_of(number)])
        return out

    def left_over(self, chances: NDArray[np.float32]) -> NDArray[np.float32]:
        """`Attribute.left_over` of each: chances [N, K] to [N, number of attributes] float32; 0
        where an attribute always applies."""
        out = np.zeros((len(chances), len(self.attributes)), dtype=np.float32)
        for number in np.flatnonzero(self.optional).tolist():
            out[:, number] = self.attributes[number].left_over(chances[:, self.slice_of(number)])
        return out

    @cached_property
    def value_names(self) -> tuple[str, ...]:
        """Shortest unambiguous name of each flat index: `floral`, else `collar-shape:3`."""
        return tuple(
            full_name(a.name, v)
            if len(self._value_index[normalise_name(v)]) == 1
            else f"{normalise_name(a.name)}:{v}"
            for a in self.attributes
            for v in a.values
        )

    @cached_property
    def _value_index(self) -> dict[str, list[int]]:
        index: dict[str, list[int]] = {}
        for flat, value in enumerate(v for a in self.attributes for v in a.values):
            index.setdefault(normalise_name(value), []).append(flat)
        return index

    @cached_property
    def _attribute_index(self) -> dict[str, int]:
        return {normalise_name(a.name): i for i, a in enumerate(self.attributes)}

    def attribute(self, name: str) -> int:
        """Number of the attribute called `name`; raises UsageError with the nearest names."""
        number = self._attribute_index.get(normalise_name(name))
        if number is None:
            raise UsageError(self._unknown("attribute", name, [a.name for a in self.attributes]))
        return number

    def value(self, name: str) -> int:
        """Flat index of the value called `name`: `floral` or `pattern:floral`; raises UsageError if
        there is none, or if the name occurs in several attributes and none is given."""
        folded = normalise_name(name)
        found = self._value_index.get(folded, [])
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            owners = [self.attributes[int(self.attribute_of[i])].name for i in found]
            choices = ", ".join(f"{normalise_name(o)}:{folded}" for o in owners)
            raise UsageError(f"{name!r} is a value of several attributes; say which: {choices}")
        if ":" in name:
            return self._value_of_attribute(name)
        if folded in self._attribute_index:
            values = ", ".join(self.value_names[self.slice_of(self._attribute_index[folded])][:12])
            raise UsageError(
                f"{name!r} is an attribute, not a value; name one of its values ({values}) "
                f"or compare by it with --like {folded}"
            )
        attribute, equals, value = name.partition("=")
        if equals and normalise_name(attribute) in self._attribute_index:
            raise UsageError(f"unknown value {name!r}; write {attribute}:{value}, or {value} alone")
        raise UsageError(self._unknown("value", name, self.value_names))

    def value_of(self, attribute: str, value: str) -> int:
        """Flat index of a value of the attribute called `attribute`; raises UsageError with the
        nearest names."""
        number = self.attribute(attribute)
        own = self.attributes[number]
        folded = [normalise_name(v) for v in own.values]
        if normalise_name(value) in folded:
            return self.offsets[number] + folded.index(normalise_name(value))
        raise UsageError(self._unknown(f"value of {own.name!r}", value, own.values))

    def _value_of_attribute(self, name: str) -> int:
        """`pattern:floral`; the attribute's own name may hold a colon as well."""
        parts = name.split(":")
        for cut in range(1, len(parts)):
            attribute = ":".join(parts[:cut])
            if normalise_name(attribute) in self._attribute_index:
                return self.value_of(attribute, ":".join(parts[cut:]))
        return self.attribute(parts[0])  # raises

    def _unknown(self, what: str, name: str, choices: Sequence[str]) -> str:
        told = "`retrieve inspect --dataset D --json` lists the dataset's"
        return f"unknown {what} {name!r}; {nearest(name, choices, all_by=told)}"

    def knows(self, name: str) -> bool:
        """Whether the name is one of an attribute or value, `blue` or `colour:blue`."""
        folded = normalise_name(name)
        attribute, _, value = folded.partition(":")
        number = self._attribute_index.get(attribute)
        own = () if number is None else self.attributes[number].values
        return (
            folded in self._attribute_index
            or folded in self._value_index
            or value in map(normalise_name, own)
        )

    def unknown_to(self, other: Schema) -> tuple[str, ...]:
        """Attributes (`pattern`) and values (`colour:teal`) that another schema has not."""
        out: list[str] = []
        for attribute in self.attributes:
            number = other._attribute_index.get(normalise_name(attribute.name))
            if number is None:
                out.append(attribute.name)
                continue
            theirs = set(map(normalise_name, other.attributes[number].values))
            own = (v for v in attribute.values if normalise_name(v) not in theirs)
            out += [f"{attribute.name}:{value}" for value in own]
        return tuple(out)

    def condition(
        self, present: Iterable[str] = (), absent: Iterable[str] = (), types: Iterable[str] = ()
    ) -> Condition:
        """Build a condition by the names of values marked +1, of values marked -1, and of
        attributes all of whose other values are marked +1; without names all is unknown.

        Raises UsageError for an unknown, ambiguous or empty name, a value both present and absent,
        or two present values of an attribute of which an image has only one.
        """
        states = np.zeros(self.size, dtype=np.int8)
        for name in types:
            states[self.slice_of(self.attribute(name))] = 1
        wanted = list(dict.fromkeys(self.value(name) for name in present))
        unwanted = [self.value(name) for name in absent]
        if both := sorted(set(wanted) & set(unwanted)):
            named = ", ".join(self.value_names[i] for i in both)
            raise UsageError(f"contradictory condition: {named} is both present and absent")
        first: dict[int, int] = {}  # wanted value of each attribute
        for flat in wanted:
            number = int(self.attribute_of[flat])
            before = first.setdefault(number, flat)
            if before != flat and not self.attributes[number].multi:
                raise UsageError(
                    "contradictory condition: an image has only one value of "
                    f"{self.attributes[number].name!r}, not both {self.value_names[before]} and "
                    f"{self.value_names[flat]}"
                )
        states[wanted], states[unwanted] = 1, -1
        return states

    def type_condition(self, attribute: int) -> Condition:
        """All values of attribute number `attribute` marked +1, [K] int8."""
        return self.value_condition(range(*self.offsets[attribute : attribute + 2]))

    def value_condition(self, values: Iterable[int]) -> Condition:
        """The values with the given flat indices marked +1, [K] int8."""
        states = np.zeros(self.size, dtype=np.int8)
        states[list(values)] = 1
        return states

    def describe(self, condition: Condition) -> str:
        """A condition in words: `sleeve-length=any + floral - striped`, or `all unknown`."""
        parts: list[str] = []
        for number, attribute in enumerate(self.attributes):
            states = condition[self.slice_of(number)]
            names = self.value_names[self.slice_of(number)]
            if len(states) > 1 and np.all(states == 1):
                parts.append(f"+ {normalise_name(attribute.name)}=any")
                continue
            parts += [f"+ {n}" for n, s in zip(names, states, strict=True) if s == 1]
            parts += [f"- {n}" for n, s in zip(names, states, strict=True) if s == -1]
        return " ".join(parts).removeprefix("+ ") or "all unknown"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_json` reads it back."""
        attributes = [asdict(a) | {"values": list(a.values)} for a in self.attributes]
        for one in attributes:
            if not one["optional"]:
                del one["optional"]  # so that a schema that knows nothing of it keeps its hash
        return {"attributes": attributes}

    @classmethod
    def from_json(cls, data: Any) -> Schema:
        """Read what `to_json` wrote; raises DataError."""
        return validated(cls, data, "not a schema", DataError)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the schema's canonical JSON, hexadecimal."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
