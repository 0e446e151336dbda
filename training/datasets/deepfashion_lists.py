"""The list files of DeepFashion, of the release and of `Anno_fine/`.

The release's lists have a count, a header, then a path and whitespace-separated fields a line;
`Anno_fine/` has files of fields alone, line by line beside the list of its images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.datasets.label_lines import Line, lines_of, whole_number
from training.errors import DataError
from training.schema import Attribute, Schema, normalise_name

PARTITIONS = {"train": "train", "val": "valid", "test": "test"}
"""DeepFashion's names of the splits and ours."""

SLOTS_OF_TYPE = {1: (0, 1, 2, 3, 6, 7), 2: (4, 5, 6, 7), 3: (0, 1, 2, 3, 4, 5, 6, 7)}
"""Clothes type (1 upper, 2 lower, 3 full) -> slots of its landmarks in the order of the file.

Slots mean the same for every garment: 0 left collar, 1 right collar, 2 left sleeve, 3 right sleeve,
4 left waistline, 5 right waistline, 6 left hem, 7 right hem."""

_STATES = {"1", "0", "-1"}


class Names(NamedTuple):
    """Names in file order, which may contain spaces, and the 1-based type of each, int64."""

    names: tuple[str, ...]
    types: NDArray[np.int64]


class Entry(NamedTuple):
    """What a list says of the image of one row."""

    row: int
    line: Line
    fields: list[str]


def read_names(file: Path, types: int) -> Names:
    """A `list_*_cloth.txt`: names with their type, an integer in 1..`types` ending the line."""
    names: list[str] = []
    numbers: list[int] = []
    for line in body(file):
        *words, last = line.text.split()
        number = whole_number(last)
        if not words or number is None or not 1 <= number <= types:
            raise line.error(f"a name and a type from 1 to {types}")
        names.append(" ".join(words))
        numbers.append(number)
    return Names(tuple(names), np.array(numbers, dtype=np.int64))


def schema_of(names: Names, types: Sequence[str], multi: bool) -> Schema:
    """One attribute for each type that occurs, its values in file order.

    Names that differ in case, blanks and dashes only (`v neck`, `v-neck`) would be one name; the
    later ones get a number: `v neck (2)`.
    """
    attributes: list[Attribute] = []
    for number, attribute in enumerate(types, start=1):
        values: list[str] = []
        seen: dict[str, int] = {}
        for at in np.flatnonzero(names.types == number):
            name = names.names[at]
            times = seen[normalise_name(name)] = seen.get(normalise_name(name), 0) + 1
            values.append(name if times == 1 else f"{name} ({times})")
        if values:
            attributes.append(Attribute(attribute, tuple(values), multi))
    return Schema(tuple(attributes))


def body(file: Path) -> Iterator[Line]:
    """Lines after the count and the header, checked against the count at the end."""
    lines = lines_of(file)
    first = next(lines, Line(file, 1, ""))
    promised = whole_number(first.text)
    if promised is None:
        raise first.error("the number of entries on the first line")
    next(lines, None)
    seen = 0
    for line in lines:
        seen += 1
        yield line
    if seen != promised:
        raise DataError(f"{file}: line 1 promises {promised} entries, there are {seen}")


def by_path(file: Path, row_of: Mapping[str, int]) -> Iterator[Entry]:
    """Entries of a list of the release."""
    for line in body(file):
        path, *fields = line.text.split()
        row = row_of.get(path)
        if row is None:
            raise line.error("a path that list_attr_img.txt has")
        yield Entry(row, line, fields)


def new_paths(file: Path, row_of: dict[str, int]) -> Iterator[Entry]:
    """Entries of the list that says which images there are; `row_of` takes up their paths."""
    for row, line in enumerate(body(file)):
        path, *fields = line.text.split()
        if row_of.setdefault(line.path(path), row) != row:
            raise DataError(f"{file} lists an image twice; remove one of them: {path!r}")
        yield Entry(row, line, fields)


def in_order(file: Path, rows: range) -> Iterator[Entry]:
    """Entries of a file of `Anno_fine/`, a line for each of `rows`."""
    lines = list(lines_of(file))
    if len(lines) != len(rows):
        raise DataError(f"{file} has {len(lines)} lines, the list of its images has {len(rows)}")
    for row, line in zip(rows, lines, strict=True):
        yield Entry(row, line, line.text.split())


def read_states(entries: Iterable[Entry], names: Names) -> NDArray[np.int8]:
    """Label states [N, K] (`1` yes, `-1` no, `0` unknown), in the order of `schema_of`.

    A release has 289,222 x 1000 of them: memory holds the result and little else.
    """
    columns = np.argsort(names.types, kind="stable")
    found = bytearray()
    for _, line, fields in entries:
        if len(fields) != len(columns) or not set(fields) <= _STATES:
            raise line.error(f"{len(columns)} states 1, 0 or -1 after a path")
        codes = "".join(fields).replace("-1", "/").encode()  # "/" comes before "0" and "1"
        found += (np.frombuffer(codes, np.int8)[columns] - ord("0")).tobytes()
    return np.frombuffer(found, np.int8).reshape(-1, len(columns))


def read_category(entries: Iterable[Entry], rows: int, categories: int) -> NDArray[np.int64]:
    """Category of each row [N] int64 from 0 (the file counts from 1), -1 where it has none."""
    out = np.full(rows, -1, dtype=np.int64)
    for row, line, fields in entries:
        number = whole_number(" ".join(fields))
        if number is None or not 1 <= number <= categories:
            raise line.error(f"a category from 1 to {categories}")
        out[row] = number - 1
    return out


def read_coordinates(entries: Iterable[Entry], rows: int, columns: int) -> NDArray[np.float32]:
    """Numbers of each row [N, columns] float32, in pixels; NaN where the list has none."""
    out = np.full((rows, columns), np.nan, dtype=np.float32)
    for row, line, fields in entries:
        if len(fields) != columns:
            raise line.error(f"{columns} numbers")
        out[row] = line.coordinates(fields)
    return out


def read_landmarks(file: Path, row_of: Mapping[str, int]) -> NDArray[np.float32]:
    """`list_landmarks.txt`: path, clothes type, then `visibility x y` for each landmark.

    Returns:
        [N, 8, 3] float32, visibility (0 visible, 1 occluded, 2 cut off), x and y in pixels; NaN in
        the slots that a garment does not have.
    """
    out = np.full((len(row_of), 8, 3), np.nan, dtype=np.float32)
    for row, line, fields in by_path(file, row_of):
        slots = SLOTS_OF_TYPE.get(whole_number("".join(fields[:1])) or 0)
        if slots is None or len(fields) != 1 + 3 * len(slots):
            raise line.error("a clothes type 1, 2 or 3 with 6, 4 or 8 'visibility x y'")
        out[row, slots] = np.reshape(line.coordinates(fields[1:]), (-1, 3))
    return out
