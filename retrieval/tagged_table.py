"""A catalogue's table with tags: read as it is, filled where it says nothing, written in its own
form with the chance of every tag beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.tags import Predicted
from training.datasets.columns import Told, choose_image
from training.datasets.dataset import RetrievalList
from training.datasets.labels import states_of
from training.datasets.locate import located
from training.datasets.tables import (
    CsvText,
    Table,
    is_csv,
    open_csv,
    pictures_below,
    read_tables,
    table_files,
)
from training.errors import DataError, UsageError
from training.files import commit, temporary_file
from training.schema import NOT_APPLICABLE, Attribute, Schema, normalise_name


@dataclass(frozen=True)
class Listing:
    """The table of a folder and, of each row, the path of its picture there; empty: it has none."""

    root: Path
    table: Table
    pictures: Sequence[str]
    told: Told

    @classmethod
    def of(cls, root: Path, told: Told) -> Listing:
        """Read the table of a folder or, if there is none, list the pictures below it.

        Raises:
            UsageError: no folder, or what is told of its table does not fit.
            DataError: neither a table nor a picture, or a malformed table.
        """
        if not root.is_dir():
            raise UsageError(f"{root} is no folder; name that of a catalogue, or of pictures")
        if table_files(root):
            table = read_tables(root, told.separator, told.encoding)
        else:
            found = [path.relative_to(root).as_posix() for path in pictures_below(root)]
            if not found:
                raise DataError(f"{root} holds neither a table nor a picture")
            table = Table(root, ["image"], [found], range(len(found)))
        cells = table.cells[choose_image(table, root, told.image)]
        rows = [row for row, cell in enumerate(cells) if cell]
        paths, notes = located(root, [cells[row] for row in rows])
        table.notes += notes
        pictures = [""] * len(cells)
        for row, path in zip(rows, paths, strict=True):
            pictures[row] = path
        return cls(root, table, pictures, told)

    def cells(self, attribute: Attribute) -> Sequence[str]:
        """The cells of an attribute's column, one a row, empty where unknown."""
        column = self.table.find(attribute.name)
        return [""] * len(self.pictures) if column is None else self.table.cells[column]

    def spelled(self, attribute: Attribute) -> list[str]:
        """The attribute's values as the catalogue mostly spells them."""
        column = self.table.find(attribute.name)
        names: dict[str, str] = {}
        if column is not None:
            own = self.table.coded(column)
            counts = own.count(own.codes).tolist()
            for _, name in sorted(zip(counts, own.names, strict=True), key=lambda c: (-c[0], c[1])):
                names.setdefault(normalise_name(name), name)
        return [names.get(normalise_name(value), value) for value in attribute.values]

    def states(self, schema: Schema) -> NDArray[np.int8]:
        """Label states of the rows [N, K], in a model's numbers; what it does not know is 0."""
        statements = []
        for number, attribute in enumerate(schema.attributes):
            column = self.table.find(attribute.name)
            if column is not None:
                own = self.table.coded(column)
                rows, said = own.stated()
                place = {normalise_name(value): n for n, value in enumerate(attribute.values)}
                numbers = [*(place.get(normalise_name(name), -2) for name in own.names), -1]
                values = np.array(numbers, dtype=np.int64)[said]
                kept = values > -2
                whose = np.full_like(rows, number)[kept]
                statements.append(RetrievalList(rows[kept], whose, values[kept]))
        return states_of(schema, statements, len(self.pictures))

    def lacking(self, attributes: Sequence[Attribute]) -> dict[str, int]:
        """The pictures of rows in which a cell of one of the attributes is empty, and the first
        such row of each."""
        rows: dict[str, int] = {}
        columns = zip(self.pictures, *map(self.cells, attributes), strict=True)
        for row, (path, *cells) in enumerate(columns):
            if path and "" in cells:
                rows.setdefault(path, row)
        return rows


@dataclass(frozen=True)
class Tags:
    """What becomes of an attribute, a text a row, empty where there is none."""

    attribute: Attribute
    said: Sequence[str]  # what was predicted
    chances: Sequence[str]  # of that
    texts: Sequence[str]  # what is filled in
    sets: Sequence[str] | None = None  # what else may be; None: not asked for

    @classmethod
    def of(
        cls,
        listing: Listing,
        schema: Schema,
        attribute: Attribute,
        predicted: Predicted,
        pictures: NDArray[np.int64],
        confidence: float | None,
    ) -> Tags:
        """Fill in what a row does not say if its picture, by number in `predicted` (-1: none)
        [rows] int64, has a chance of at least `confidence`; None: if it is `sure`."""
        number, names = schema.attribute(attribute.name), listing.spelled(attribute)
        own, cells = schema.slice_of(number), listing.cells(attribute)

        def joined(values: NDArray[np.bool_], lacking: bool) -> str:
            has = [names[value] for value in np.flatnonzero(values).tolist()]
            return "|".join([*has, NOT_APPLICABLE] if lacking else has)

        said, chances, texts, sets = ([""] * len(cells) for _ in range(4))
        for row, (cell, picture) in enumerate(zip(cells, pictures.tolist(), strict=True)):
            if not cell and picture >= 0:
                values = predicted.values[picture, own]
                said[row] = joined(values, not values.any())
                chance = float(predicted.chances[picture, number])
                chances[row] = f"{chance:.3f}"
                sure = predicted.sure[picture, number]
                if sure if confidence is None else chance >= confidence:
                    texts[row] = said[row]
                if predicted.sets is not None:
                    lacking = predicted.sets[picture, schema.size + number]
                    sets[row] = joined(predicted.sets[picture, own], bool(lacking))
        return cls(attribute, said, chances, texts, None if predicted.sets is None else sets)

    @property
    def beside(self) -> dict[str, Sequence[str]]:
        """What stands beside it, by what is added to the column's name."""
        return {"_chance": self.chances} | ({} if self.sets is None else {"_set": self.sets})


@dataclass(frozen=True)
class _Column:
    """A column that is written: its heading, its place in a row as it was read, and of each row
    what replaces that, if it is not empty."""

    heading: str
    place: int | None = None
    filled: Sequence[str] | None = None

    def cell(self, row: Sequence[str], number: int) -> str:
        """Its cell of row `number` of the table."""
        old = "" if self.place is None else row[self.place]
        return (self.filled[number] if self.filled else "") or old


def _columns(header: Sequence[str], tags: Sequence[Tags]) -> list[_Column]:
    """The columns that are there, what stands beside it behind each that was filled unless there is
    such a column already, and those of attributes without a column at the end."""
    left = {normalise_name(tag.attribute.name): tag for tag in tags}
    told = {
        normalise_name(f"{name}{more}"): own
        for name, tag in left.items()
        for more, own in tag.beside.items()
    }
    folded = [normalise_name(name) for name in header]
    columns = []
    for place, name in enumerate(folded):
        tag = left.pop(name, None)  # the first of that name
        columns.append(_Column(header[place], place, tag.texts if tag else told.get(name)))
        for more, own in tag.beside.items() if tag else ():
            if normalise_name(f"{name}{more}") not in folded:
                columns.append(_Column(f"{header[place].strip()}{more}", None, own))
    for tag in left.values():
        columns.append(_Column(tag.attribute.name, None, tag.texts))
        for more, own in tag.beside.items():
            columns.append(_Column(f"{tag.attribute.name}{more}", None, own))
    return columns


def write_tagged(out: Path, listing: Listing, tags: Sequence[Tags]) -> None:
    """Write the table as CSV, whole or not at all: columns and rows in their order, the separator
    and lines above the header as they are; in UTF-8. Raises ResourceError."""
    table, told = listing.table, listing.told
    with temporary_file(out.parent) as temporary:
        if is_csv(table.file):
            with open_csv(table.file, told.separator, told.encoding) as text:
                header, rows = next(text.reader), _rows(text, table)
                _write(temporary, text, header, rows, tags)
        else:
            cells = map(list, zip(*table.cells, strict=True))
            _write(temporary, None, table.columns, enumerate(cells), tags)
        commit(temporary, out)


def _rows(text: CsvText, table: Table) -> Iterator[tuple[int | None, list[str]]]:
    """Rows as they stand in the file, and the number of each in the table; None: it is blank."""
    numbers = {line: number for number, line in enumerate(table.lines)}
    for row in text.reader:
        yield numbers.get(text.line), row


def _write(
    file: Path,
    text: CsvText | None,
    header: Sequence[str],
    rows: Iterator[tuple[int | None, list[str]]] | enumerate[list[str]],
    tags: Sequence[Tags],
) -> None:
    columns = _columns(header, tags)
    # With a mark where the catalogue was in another encoding: its reader is used to guessing.
    encoding = "utf-8" if text is None or text.encoding == "utf-8" else "utf-8-sig"
    with file.open("w", encoding=encoding, newline="", errors="surrogateescape") as handle:
        separator, end = (",", "\n") if text is None else (text.separator, text.line_end)
        handle.writelines(() if text is None else text.before)
        writer = csv.writer(handle, delimiter=separator, lineterminator=end)
        writer.writerow([column.heading for column in columns])
        for number, row in rows:
            written = row if number is None else [column.cell(row, number) for column in columns]
            writer.writerow(written)
