"""Anybody's own images: a folder with a `labels.csv`.

One column of image paths (`image`, else `path`, `file` or `filename`), optionally `split` (of any
names) and `item`, every further column an attribute. Cells of several values are separated by `|`;
an empty cell is unknown. Columns that are plainly text or numbers (a name, a price) are no
attributes, which is mentioned, but payload: an index keeps them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import Dataset, RetrievalList
from training.datasets.labels import dataset_of, expected, grouped_split, numbered
from training.errors import DataError, UsageError
from training.files import relative_path
from training.schema import Attribute, Schema, normalise_name

IMAGE_COLUMNS = ("image", "path", "file", "filename")
_OURS = {name: name for name in ("train", "valid", "test")}
SPLIT_NAMES = _OURS | {"val": "valid", "validation": "valid"}
"""What these names of splits mean, in any case; any other name is a split of its own."""

RESERVED_SPLITS = ("all", "unassigned")
TEXT_COLUMNS = (
    *("name", "title", "description", "caption", "text", "note", "notes", "comment", "comments"),
    *("id", "sku", "uid", "ean", "gtin", "barcode", "product-id", "item-id", "product-name"),
    *("url", "link", "image-url", "price", "date", "timestamp"),
)
"""Columns that are no attributes unless they are asked for by name."""

MOST_VALUES = 50
"""A column with more distinct values than this *and* than half its rows is text, not labels."""


class Table(NamedTuple):
    """A CSV file as read: its header, and of each row the cells, stripped, and its last line."""

    file: Path
    columns: list[str]
    lines: list[int]
    rows: list[list[str]]

    def find(self, *names: str) -> int | None:
        """Number of the first column that bears one of the names, tried in their order."""
        folded = [normalise_name(c) for c in self.columns]
        return next((folded.index(n) for n in map(normalise_name, names) if n in folded), None)

    def column(self, number: int) -> list[str]:
        """Cells of one column."""
        return [row[number] for row in self.rows]


def load(
    root: Path, attributes: Sequence[str] | None = None, item_column: str | None = None
) -> Dataset:
    """Read `root/labels.csv`; without a `split` column rows are cut 8:1:1 by item, else by path.

    Values are sorted by name. A known cell says +1 for its values and -1 for the others of its
    attribute. Spellings that differ in case, blanks, dashes or underscores only are one value,
    items that differ in case only are one item.

    Args:
        attributes: the columns to use, in this order; None takes all that look like labels.
        item_column: the column that tells which images show one item, whatever it is called; it is
            no attribute. None: `item`, if there is one.

    Raises:
        DataError: no file, no image column, a malformed row or a split called `all`.
        UsageError: `attributes` or `item_column` names a column that is not there.
    """
    table = read_table(root / "labels.csv")
    image, split = table.find(*IMAGE_COLUMNS), table.find("split")
    item = table.find(item_column or "item")
    if image is None:
        raise DataError(
            f"{table.file} has no column called {', '.join(IMAGE_COLUMNS)}; its columns are "
            f"{', '.join(table.columns)}"
        )
    if item_column is not None and item is None:
        raise UsageError(
            f"{table.file} has no column {item_column!r} that could name items; it has "
            f"{', '.join(table.columns)}"
        )
    places = (f"{table.file}, line {line}" for line in table.lines)
    paths = [relative_path(p, w) for p, w in zip(table.column(image), places, strict=True)]
    items = None if item is None else numbered([n.casefold() for n in table.column(item)])
    free = [c for c in range(len(table.columns)) if c not in (image, item, split)]
    chosen, notes = choose_columns(table, free, attributes)
    schema, stated = _labels(table, chosen)
    if split is None:
        splits = grouped_split(numbered(paths) if items is None else items)
        notes.append(f"no split column: cut 8:1:1 by {'image path' if items is None else 'item'}")
    else:
        splits = _splits(table, split)
    dataset = dataset_of(root.resolve().name, root, schema, paths, [stated], splits)
    others = (c for c in free if c not in chosen and table.columns[c])
    payload = {table.columns[c]: table.column(c) for c in others}
    return replace(dataset, items=items, payload=payload, notes=(*notes, *dataset.notes))


def read_table(file: Path) -> Table:
    """Read a CSV file with a header; blank lines are skipped.

    DataError if it is absent, empty, not UTF-8 or has a row of another length.
    """
    table = Table(file, [], [], [])
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    continue
                if not table.columns:
                    table.columns.extend(cells)
                    continue
                if len(cells) != len(table.columns):
                    raise DataError(
                        f"{file}, line {reader.line_num}: {len(cells)} cells where the header has "
                        f"{len(table.columns)}: {','.join(row)[:80]!r}; quote cells that hold a "
                        "comma"
                    )
                table.lines.append(reader.line_num)
                table.rows.append(cells)
    except FileNotFoundError:
        raise DataError(f"{file} is missing; {expected('catalogue')}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not a CSV file in UTF-8: {error}") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if not table.rows:
        raise DataError(f"{file} lists no images; {expected('catalogue')}")
    return table


def choose_columns(
    table: Table, free: Sequence[int], attributes: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    """Which columns of `free` become attributes, and remarks on those that do not.

    Those that `attributes` names (UsageError for a name that no column bears), or all that look
    like labels; DataError if there are none.
    """
    reasons: dict[int, str] = {}
    if attributes is None:
        found = {c: _not_an_attribute(table.columns[c], table.column(c)) for c in free}
        reasons = {c: reason for c, reason in found.items() if reason}
        chosen = [c for c in free if c not in reasons]
    else:
        number_of = {normalise_name(table.columns[c]): c for c in reversed(free)}
        for name in attributes:
            if normalise_name(name) not in number_of:
                columns = ", ".join(table.columns[c] for c in free)
                raise UsageError(f"{table.file} has no attribute column {name!r}; it has {columns}")
        chosen = list(dict.fromkeys(number_of[normalise_name(name)] for name in attributes))
    if not chosen:
        raise DataError(f"{table.file} has no attribute column; {expected('catalogue')}")
    return chosen, [f"column {table.columns[c]!r} is no attribute: {r}" for c, r in reasons.items()]


def values_of(cell: str) -> list[str]:
    """The values of a cell: `black|gray` has two; empty, `-` and `|` have none."""
    return [value.strip() for value in cell.split("|") if normalise_name(value)]


def _not_an_attribute(name: str, cells: list[str]) -> str | None:
    if not normalise_name(name):
        return "it has no name"
    if normalise_name(name) in TEXT_COLUMNS:
        return "text by its name"
    known = [values for cell in cells if (values := values_of(cell))]
    distinct = len({value for values in known for value in values})
    if distinct > MOST_VALUES and distinct > len(known) / 2:
        return f"{distinct} different values in {len(known)} rows look like text"
    return None if known else "every cell is empty"


def _labels(table: Table, chosen: list[int]) -> tuple[Schema, RetrievalList]:
    attributes: list[Attribute] = []
    found: list[tuple[int, int, int]] = []
    for number, column in enumerate(chosen):
        cells = [values_of(cell) for cell in table.column(column)]
        # The most frequent spelling stands for its variants; the first by name among equals.
        spellings = Counter(value for cell in cells for value in cell)
        chosen_spelling: dict[str, str] = {}
        for value, _ in sorted(spellings.items(), key=lambda s: (-s[1], s[0])):
            chosen_spelling.setdefault(normalise_name(value), value)
        values = sorted(chosen_spelling.values())
        if not values:
            raise DataError(f"{table.file}: column {table.columns[column]!r} has no values")
        index = {normalise_name(value): i for i, value in enumerate(values)}
        attributes.append(Attribute(table.columns[column], tuple(values)))
        for row, cell in enumerate(cells):
            found += [(row, number, index[normalise_name(value)]) for value in cell]
    stated = RetrievalList(*np.array(found, dtype=np.int64).reshape(-1, 3).T)
    return Schema(tuple(attributes)), stated


def _splits(table: Table, column: int) -> NDArray[np.str_]:
    names = [SPLIT_NAMES.get(cell.casefold(), cell) for cell in table.column(column)]
    for name, line in zip(names, table.lines, strict=True):
        if name in RESERVED_SPLITS:
            raise DataError(
                f"{table.file}, line {line}: {name!r} is no name of a split, it has a meaning of "
                "its own; call the split otherwise"
            )
    return np.array(names, dtype=np.str_)
