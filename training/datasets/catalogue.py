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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.category import category_of
from training.datasets.dataset import Dataset
from training.datasets.grouped_split import grouped_split, numbered
from training.datasets.label_states import states_from_statements, with_multi
from training.datasets.locate import expected
from training.errors import DataError, UsageError
from training.relative_path import relative_path
from training.schema import Attribute, Schema, normalise_name

IMAGE_COLUMNS = ("image", "path", "file", "filename")
SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
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


@dataclass(frozen=True)
class Table:
    """A `labels.csv` as read.

    Args:
        file: where it was read from.
        columns: names of the columns.
        lines: last line of each row in the file, 1-based.
        rows: cells, stripped, one list of `len(columns)` a row.
    """

    file: Path
    columns: list[str]
    lines: list[int]
    rows: list[list[str]]

    def find(self, *names: str) -> int | None:
        """Number of the first column that bears one of the names, tried in their order."""
        folded = [normalise_name(c) for c in self.columns]
        return next((folded.index(name) for name in names if name in folded), None)

    def column(self, number: int) -> list[str]:
        """Cells of one column."""
        return [row[number] for row in self.rows]


def load(
    root: Path,
    attributes: Sequence[str] | None = None,
    seed: int = 0,
    item_column: str | None = None,
) -> Dataset:
    """Read `root/labels.csv`.

    Args:
        root: folder with `labels.csv`; image paths are relative to it.
        attributes: the columns to use, in this order; None takes all that look like labels.
        seed: seed of the 8:1:1 cut (by item, else by path) of a file without a `split` column.
        item_column: the column that tells which images show one item, whatever it is called; it is
            no attribute. None: `item`, if there is one.

    Returns:
        Values sorted by name. A known cell says +1 for its values and -1 for the others of its
        attribute. Spellings that differ in case, blanks, dashes or underscores only are one value,
        items that differ in case only are one item.

    Raises:
        DataError: no file, no image column, a malformed row or a split called `all`.
        UsageError: `attributes` or `item_column` names a column that is not there.
    """
    table = read_table(root / "labels.csv")
    image = table.find(*IMAGE_COLUMNS)
    if image is None:
        raise DataError(
            f"{table.file} has no column called {', '.join(IMAGE_COLUMNS)}; its columns are "
            f"{', '.join(table.columns)}"
        )
    places = [f"{table.file}, line {line}" for line in table.lines]
    paths = [relative_path(p, w) for p, w in zip(table.column(image), places, strict=True)]
    item, split = table.find(normalise_name(item_column or "item")), table.find("split")
    if item_column is not None and item is None:
        raise UsageError(
            f"{table.file} has no column {item_column!r} that could name items; it has "
            f"{', '.join(table.columns)}"
        )
    items = None if item is None else numbered([n.casefold() for n in table.column(item)])
    taken = {c for c in (image, item, split) if c is not None}
    chosen, notes = choose_columns(table, taken, attributes)
    schema, labels = _labels(table, chosen)
    if split is None:
        splits = grouped_split(numbered(paths) if items is None else items, seed=seed)
        by = "image path" if items is None else "item"
        notes.append(f"no split column: cut 8:1:1 by {by} with seed {seed}")
    else:
        splits = _splits(table, split)
    categories = category_of(schema, labels, paths)
    others = (c for c in range(len(table.columns)) if c not in taken and c not in chosen)
    payload = {table.columns[c]: table.column(c) for c in others if table.columns[c]}
    return Dataset(
        name=root.resolve().name,
        root=root,
        schema=schema,
        paths=paths,
        labels=labels,
        category=categories.category,
        category_names=categories.names,
        splits=splits,
        items=items,
        payload=payload,
        notes=(*notes, *categories.notes),
    )


def read_table(file: Path) -> Table:
    """Read a CSV file with a header; blank lines are skipped.

    Raises:
        DataError: the file is absent, empty, not UTF-8 or has a row of another length.
    """
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            filled = (row for row in reader if any(cell.strip() for cell in row))
            header = [cell.strip() for cell in next(filled, [])]
            for row in filled:
                if len(row) != len(header):
                    raise DataError(
                        f"{file}, line {reader.line_num}: {len(row)} cells where the header has "
                        f"{len(header)}: {','.join(row)[:80]!r}; quote cells that hold a comma"
                    )
                lines.append(reader.line_num)
                rows.append([cell.strip() for cell in row])
    except FileNotFoundError:
        raise DataError(f"{file} is missing; {expected('catalogue')}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not a CSV file in UTF-8: {error}") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if not rows:
        raise DataError(f"{file} lists no images; {expected('catalogue')}")
    return Table(file, header, lines, rows)


def choose_columns(
    table: Table, taken: set[int], attributes: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    """Columns that become attributes, and remarks on those that do not.

    Args:
        table: the table.
        taken: columns that have another meaning.
        attributes: names of the columns to use, None for all that look like labels.

    Raises:
        UsageError: a name that no column bears.
        DataError: no column is left.
    """
    free = [c for c in range(len(table.columns)) if c not in taken]
    notes: list[str] = []
    if attributes is not None:
        chosen: list[int] = []
        for name in attributes:
            found = [c for c in free if normalise_name(table.columns[c]) == normalise_name(name)]
            if not found:
                columns = ", ".join(table.columns[c] for c in free)
                raise UsageError(f"{table.file} has no attribute column {name!r}; it has {columns}")
            chosen += [c for c in found[:1] if c not in chosen]
    else:
        reasons = {c: _not_an_attribute(table.columns[c], table.column(c)) for c in free}
        chosen = [c for c, reason in reasons.items() if reason is None]
        notes = [
            f"column {table.columns[c]!r} is no attribute: {r}" for c, r in reasons.items() if r
        ]
    if not chosen:
        raise DataError(f"{table.file} has no attribute column; {expected('catalogue')}")
    return chosen, notes


def values_of(cell: str) -> list[str]:
    """The values of a cell: `black|gray` has two; empty, `-` and `|` have none."""
    return [value.strip() for value in cell.split("|") if normalise_name(value)]


def _not_an_attribute(name: str, cells: list[str]) -> str | None:
    if not normalise_name(name):
        return "it has no name"
    if normalise_name(name) in TEXT_COLUMNS:
        return "text by its name"
    known = [cell for cell in cells if values_of(cell)]
    distinct = len({value for cell in known for value in values_of(cell)})
    if not known:
        return "every cell is empty"
    if distinct > MOST_VALUES and distinct > len(known) / 2:
        return f"{distinct} different values in {len(known)} rows look like text"
    return None


def _labels(table: Table, chosen: list[int]) -> tuple[Schema, NDArray[np.int8]]:
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
        found += [
            (row, number, index[normalise_name(value)])
            for row, cell in enumerate(cells)
            for value in cell
        ]
    schema = Schema(tuple(attributes))
    rows, numbers, indices = np.array(found, dtype=np.int64).reshape(-1, 3).T
    labels = states_from_statements(schema, rows, numbers, indices, len(table.rows))
    return with_multi(schema, labels), labels


def _splits(table: Table, column: int) -> NDArray[np.str_]:
    names = [SPLIT_NAMES.get(cell.casefold(), cell) for cell in table.column(column)]
    for name in RESERVED_SPLITS:
        if name in names:
            raise DataError(
                f"{table.file}, line {table.lines[names.index(name)]}: {name!r} is no name of a "
                "split, it has a meaning of its own; call the split otherwise"
            )
    return np.array(names, dtype=np.str_)
