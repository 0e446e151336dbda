"""The small list files of DeepFashion: a count, a header, then whitespace-separated fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.label_lines import bad_line, lines_of, whole_number
from training.errors import DataError
from training.schema import Attribute, Schema, normalise_name

TYPES = ("texture", "fabric", "shape", "part", "style")
"""Names of the attribute types 1 to 5 of the coarse lists."""

PARTITIONS = {"train": "train", "val": "valid", "test": "test"}
"""DeepFashion's names of the splits and ours."""


@dataclass(frozen=True)
class NamesOfTypes:
    """A `list_attr_cloth.txt` or `list_category_cloth.txt`: names in file order and their types.

    Args:
        names: names; they may contain spaces.
        types: 1-based type of each, [number of names] int64.
    """

    names: tuple[str, ...]
    types: NDArray[np.int64]


def read_names(file: Path, types: int) -> NamesOfTypes:
    """Read names with their type, an integer in 1..`types` at the end of the line.

    Raises:
        DataError: a malformed line, or another number of lines than line 1 promises.
    """
    names: list[str] = []
    numbers: list[int] = []
    for line, text in _body(file):
        *words, last = text.split()
        number = whole_number(last)
        if not words or number is None or not 1 <= number <= types:
            raise bad_line(file, line, text, f"a name and a type from 1 to {types}")
        names.append(" ".join(words))
        numbers.append(number)
    return NamesOfTypes(tuple(names), np.array(numbers, dtype=np.int64))


def schema_of(names: NamesOfTypes, types: Sequence[str], multi: bool) -> Schema:
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


def columns_of(names: NamesOfTypes) -> NDArray[np.int64]:
    """Global id (line of the names file) of each flat index of `schema_of`, [K] int64."""
    return np.argsort(names.types, kind="stable").astype(np.int64)


def read_by_path(
    file: Path, row_of: Mapping[str, int], fields: Sequence[int]
) -> Iterator[tuple[int, int, str, list[str]]]:
    """Row, line number, text and the fields after the path, for each line of an image list.

    Args:
        file: the list.
        row_of: row of each known path.
        fields: allowed numbers of fields after the path.

    Raises:
        DataError: an unknown path, another number of fields, or another count than promised.
    """
    for line, text in _body(file):
        path, *rest = text.split()
        if len(rest) not in fields:
            count = " or ".join(str(f) for f in fields)
            raise bad_line(file, line, text, f"a path and {count} more fields")
        row = row_of.get(path)
        if row is None:
            raise bad_line(file, line, text, "a path that list_attr_img.txt has")
        yield row, line, text, rest


def read_category(file: Path, row_of: Mapping[str, int], categories: int) -> NDArray[np.int64]:
    """Category of each row [N] int64 from 0 (the file counts from 1), -1 where it has none."""
    out = np.full(len(row_of), -1, dtype=np.int64)
    for row, line, text, (field,) in read_by_path(file, row_of, (1,)):
        number = whole_number(field)
        if number is None or not 1 <= number <= categories:
            raise bad_line(file, line, text, f"a category from 1 to {categories}")
        out[row] = number - 1
    return out


def read_partition(file: Path, row_of: Mapping[str, int]) -> NDArray[np.str_]:
    """Split of each row, [N] unicode; empty where the list has none."""
    out = np.full(len(row_of), "", dtype="<U5")
    for row, line, text, (name,) in read_by_path(file, row_of, (1,)):
        if name not in PARTITIONS:
            raise bad_line(file, line, text, "train, val or test")
        out[row] = PARTITIONS[name]
    return out


def read_boxes(file: Path, row_of: Mapping[str, int]) -> NDArray[np.float32]:
    """Box x1 y1 x2 y2 of each row in pixels [N, 4] float32, NaN where the list has none."""
    out = np.full((len(row_of), 4), np.nan, dtype=np.float32)
    for row, line, text, fields in read_by_path(file, row_of, (4,)):
        out[row] = numbers_of(file, line, text, fields)
    return out


def numbers_of(file: Path, line: int, text: str, fields: Sequence[str]) -> list[float]:
    """The fields as finite numbers.

    Raises:
        DataError: naming the line, if one is not a finite number.
    """
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        raise bad_line(file, line, text, "numbers after the path") from None
    if not all(abs(number) < 1e9 for number in numbers):
        raise bad_line(file, line, text, "coordinates in pixels")
    return numbers


def _body(file: Path) -> Iterator[tuple[int, str]]:
    """Lines after the count and the header, checked against the count at the end."""
    lines = lines_of(file)
    _, first = next(lines, (1, ""))
    promised = whole_number(first)
    if promised is None:
        raise bad_line(file, 1, first, "the number of entries on the first line")
    next(lines, None)
    seen = 0
    for line, text in lines:
        seen += 1
        yield line, text
    if seen != promised:
        raise DataError(f"{file}: line 1 promises {promised} entries, there are {seen}")
