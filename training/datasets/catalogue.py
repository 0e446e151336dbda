"""Anybody's own images: a folder with a table, a `labels.csv` at best, or with a folder a class.

One column of image paths, optionally `split` (of any names) and `item`, every further column an
attribute. Cells of several values are separated by `|`; an empty cell is unknown, `not applicable`
says that the garment has no value. Columns that are plainly text or numbers (a name, a price) are
no attributes, which is mentioned, but payload: an index keeps them. What is not told is guessed,
and what was guessed is said: see `columns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.columns import (
    Told,
    attribute_columns,
    choose_image,
    choose_items,
    choose_split,
    plain_numbers,
)
from training.datasets.dataset import SPLIT_NAMES, SPLITS, ColumnRole, Dataset, RetrievalList
from training.datasets.labels import dataset_of, grouped_split, numbered
from training.datasets.locate import folder_name, located
from training.datasets.tables import Table, read_tables, values_of
from training.errors import DataError
from training.files import leaves_root, relative_path
from training.schema import Attribute, Schema, normalise_name

RESERVED_SPLITS = ("all", "unassigned")


def load(
    root: Path,
    attributes: Sequence[str] | None = None,
    item_column: str | None = None,
    told: Told | None = None,
    schema: Sequence[str] | None = None,
) -> Dataset:
    """Read the table of a folder; without splits rows are cut 8:1:1 by item, else by path.

    Values are sorted by name. A known cell says +1 for its values and -1 for the others of its
    attribute; `not applicable` says -1 for all of them, and makes the attribute optional. Spellings
    that differ in case, width, blanks, dashes or underscores only are one value, items that differ
    in case only are one item. Rows without a picture are skipped. Rows of one picture become one:
    where they contradict each other it has no split, no item, and nothing is known of an attribute
    of one value; of payload the first row's stays.

    Args:
        attributes: the columns to use, in this order; None takes all that look like labels.
        item_column: the column that tells which images show one item; it is no attribute. None:
            `item`, or one that is called alike.
        told: what else is told of the table.
        schema: attributes that a model knows: columns so called are attributes, others are payload.

    Raises:
        DataError: no table, no image column, a malformed row or a split called `all`.
        UsageError: an argument names a column that is not there.
    """
    told = told or Told()
    table = read_tables(root, told.separator, told.encoding)
    image = choose_image(table, root, told.image)
    _drop_empty(table, image)
    contradicted = _merge(table, image, root)
    paths = table.cells[image]
    split = choose_split(table, told.split)
    own = choose_items(table, item_column, (image, split))
    for column in (c for c in (split, own) if c in contradicted):
        _blank(table, column, contradicted[column])
    items = None if own is None else numbered([n.casefold() for n in table.cells[own]])
    free = [c for c in range(len(table.columns)) if c not in (image, own, split)]
    chosen, roles = attribute_columns(table, free, attributes, told, schema, items)
    found, stated = _labels(table, chosen, contradicted)
    how = ""
    if split is not None:
        splits = _splits(table, split)
    elif (by_folder := _folder_splits(paths)) is not None:
        splits, how = by_folder, "splits are those of the folders"
    else:
        splits = grouped_split(numbered(paths) if items is None else items)
        how = f"no split column: cut 8:1:1 by {'image path' if items is None else 'item'}"
    payload = {}
    for column in (c for c in free if c not in chosen and table.columns[c]):
        cells, name = table.cells[column], table.columns[column]
        plain = plain_numbers(cells, table.separator)
        if plain is not None:
            table.notes.append(f"column {name!r} holds numbers, kept as Python writes them")
        payload[name] = cells if plain is None else plain
    dataset = dataset_of(folder_name(root), root, found, paths, [stated], splits)
    given = {told.image, told.split, item_column}
    special = {image: "picture", split: "split", own: "item"}
    columns = [
        roles.get(c)
        or ColumnRole(name, special[c], "told" if name in given else "guessed by name and form")
        for c, name in enumerate(table.columns)
    ]
    notes = [role.note for c, role in roles.items() if c not in chosen and attributes is None]
    notes += [*table.notes, *_untrained(dataset, stated), *([how] if how else [])]
    notes += dataset.notes
    return replace(
        dataset, items=items, payload=payload, columns=tuple(columns), notes=tuple(notes)
    )


def _drop_empty(table: Table, image: int) -> None:
    """Drop rows without a picture, and say so of those that hold anything else."""
    cells = table.cells[image]
    gone = [row for row, cell in enumerate(cells) if not cell]
    if not gone:
        return
    lines = [table.lines[row] for row in gone if any(cells[row] for cells in table.cells)]
    table.keep([row for row, cell in enumerate(cells) if cell])
    if lines:
        table.notes.append(
            f"rows without a picture, skipped: {len(lines):,}, first line {lines[0]}"
        )
    if not table.lines:
        raise DataError(f"{table.file} lists no images: no row names a picture")


def _merge(table: Table, image: int, root: Path) -> dict[int, list[int]]:
    """Make paths those of files, and rows of one picture one row, the first; its empty cells are
    filled from the others. Column -> rows, as numbered then, whose cells contradicted each other.
    """
    paths, notes = located(root, table.cells[image])
    for row in (row for row, path in enumerate(paths) if leaves_root(path)):
        relative_path(paths[row], f"{table.file}, line {table.lines[row]}")  # raises
    table.cells[image] = paths
    table.notes += notes
    if len(set(paths)) == len(paths):
        return {}
    own: dict[str, int] = {}
    groups: dict[int, list[int]] = {}
    for row, path in enumerate(paths):
        if (first := own.setdefault(path, row)) != row:
            groups.setdefault(first, [first]).append(row)
    found: dict[int, list[int]] = {}
    renumbered = {row: new for new, row in enumerate(own.values())}
    for number, cells in enumerate(table.cells):
        several = any(len(values_of(cell)) > 1 for cell in set(cells))
        for first, rows in groups.items():
            said: dict[str, str] = {}
            for cell in (cells[row] for row in rows if cells[row]):
                said.setdefault(normalise_name(cell), cell)
            cells[first] = next(iter(said.values()), "")
            if len(said) > 1 and number != image:
                found.setdefault(number, []).append(renumbered[first])
                if several:
                    cells[first] = "|".join(v for cell in said.values() for v in values_of(cell))
    count = sum(len(rows) - 1 for rows in groups.values())
    table.keep(list(own.values()))
    twice = table.cells[image][renumbered[next(iter(groups))]]
    table.notes.append(f"rows of a picture that an earlier row names: {count:,}, first {twice!r}")
    return found


def _blank(table: Table, column: int, rows: Sequence[int]) -> None:
    """Make cells unknown that contradict each other, and say so."""
    cells = table.cells[column] = table.cells[column].copy()
    for row in rows:
        cells[row] = ""
    table.notes.append(
        f"{table.columns[column]!r}: pictures whose rows contradict each other, unknown: "
        f"{len(rows):,}, first on line {table.lines[rows[0]]}"
    )


def _untrained(dataset: Dataset, stated: RetrievalList) -> list[str]:
    """A remark on values that only pictures outside `train` have, if there is a `train`."""
    schema, train = dataset.schema, dataset.splits == "train"
    known = np.array(schema.offsets)[stated.attributes] + stated.values
    seen = np.bincount(known[train[stated.rows] & (stated.values >= 0)], minlength=schema.size)
    unseen = np.flatnonzero(seen == 0).tolist()
    if not train.any() or not unseen:
        return []
    names = [schema.value_names[value] for value in unseen]
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return [f"values without a picture in train, which no training can teach: {shown}"]


def _labels(
    table: Table, chosen: Sequence[int], contradicted: dict[int, list[int]]
) -> tuple[Schema, RetrievalList]:
    """Schema and statements of the chosen columns; rows that `contradicted` lists by column are
    unknown where it holds one value a row, which is noted."""
    attributes: list[Attribute] = []
    found: list[NDArray[np.int64]] = []
    for number, column in enumerate(chosen):
        own = table.coded(column)
        rows, spelled = own.stated()
        if column in contradicted and np.diff(own.starts).max() < 2:
            _blank(table, column, contradicted[column])
            stays = ~np.isin(rows, contradicted[column])
            rows, spelled = rows[stays], spelled[stays]
        values = sorted(own.spellings().values())
        if not values:
            raise DataError(f"{table.file}: column {table.columns[column]!r} has no values")
        attributes.append(Attribute(table.columns[column], tuple(values)))
        index = {normalise_name(value): place for place, value in enumerate(values)}
        places = np.array([*(index[normalise_name(name)] for name in own.names), -1])
        found.append(np.stack([rows, np.full_like(rows, number), places[spelled]]))
    return Schema(tuple(attributes)), RetrievalList(*np.concatenate(found, axis=1))


def _splits(table: Table, column: int) -> NDArray[np.str_]:
    """Splits by name: the likeliest of several names of one is it, the others are their own."""
    cells = table.cells[column]
    names: dict[str, str] = {}
    places = list(SPLIT_NAMES)
    for cell in sorted(set(cells), key=lambda c: (c.casefold() not in SPLIT_NAMES, c)):
        names[cell] = SPLIT_NAMES.get(cell.casefold(), cell)
    for split in SPLITS:
        own = {cell.casefold() for cell, name in names.items() if name == split}
        if len(own) > 1:
            likeliest = min(own, key=places.index)
            names |= {c: c for c, n in names.items() if n == split and c.casefold() != likeliest}
    for name in set(RESERVED_SPLITS) & set(names.values()):
        raise DataError(
            f"{table.file}, line {table.lines[cells.index(name)]}: {name!r} is no name of a split, "
            "it has a meaning of its own; call the split otherwise"
        )
    usual = {"val", "validation", *SPLITS}
    changed = [f"{c!r} is {n}" for c, n in names.items() if c != n and c.casefold() not in usual]
    if changed:
        table.notes.append(f"splits by other names: {', '.join(changed)}")
    return np.array([names[cell] for cell in cells], dtype=np.str_)


def _folder_splits(paths: Sequence[str]) -> NDArray[np.str_] | None:
    """Splits by the folder in which each path begins, or the next; None if one does not begin in a
    split's folder, or all in the same."""
    for depth, top in enumerate(paths[0].casefold().split("/")[:-1][:2]):
        if top not in SPLIT_NAMES:
            continue
        tops = [path.casefold().split("/", depth + 1)[:-1][depth:] for path in paths]
        if len({t[0] for t in tops if t}) > 1 and all(t and t[0] in SPLIT_NAMES for t in tops):
            return np.array([SPLIT_NAMES[t[0]] for t in tops], dtype=np.str_)
    return None
