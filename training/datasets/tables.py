"""Tables as people export them: CSV of any separator and encoding, JSON lines, Parquet, or folders
named after classes; in, columns of text in order; out, what had to be guessed.

The csv module, not polars or pandas: 300,000 rows take it a second, and it adds nothing to install.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import SPLIT_NAMES
from training.datasets.labels import expected
from training.errors import DataError, ResourceError, UsageError
from training.schema import NOT_APPLICABLE, normalise_name

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Of two that part the header into as many cells the first is meant."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
_UNKNOWN = (
    *("nan", "n/a", "na", "#n/a", "#na", "<na>", "n.a.", "n.a", "n/k", "null", "nil", "(null)"),
    *("unknown", "undefined", "unspecified", "not specified", "not available", "nat", "k.a."),
    *("?", "??", "-", "--", "---", "#value!", "#ref!", "#n/v", "\\n"),
)
UNKNOWN = frozenset(
    {"None", "NaN", "NaT"}
    | {form(word) for word in _UNKNOWN for form in (str, str.upper, str.capitalize, str.title)}
)
"""Cells that say nothing. `none` is a value (of a collar); `None` is what Python writes."""

# Not `n/a`, by which exports as often mean "not available".
_LACKING = frozenset(normalise_name(form) for form in (NOT_APPLICABLE, "notapplicable"))
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_BLOCK = 4096  # rows; a column of which one block holds few texts keeps one copy of each


def values_of(cell: str) -> list[str]:
    """The values of a cell: `black|gray` and `['black', 'gray']` have two; empty, `-` and `not
    applicable` none."""
    return [value for value in _parts(cell) if normalise_name(value) not in _LACKING]


def says_lacking(cell: str) -> bool:
    """Whether a cell says that its attribute does not apply, and nothing else."""
    parts = _parts(cell)
    return bool(parts) and all(normalise_name(part) in _LACKING for part in parts)


def _parts(cell: str) -> list[str]:
    values = cell.split("|") if "|" in cell else [cell]
    if cell.startswith("[") and (quoted := _QUOTED.findall(cell)):
        values = [single or double for single, double in quoted]
    return [
        value
        for value in map(str.strip, values)
        if value and value not in UNKNOWN and normalise_name(value)
    ]


@dataclass(frozen=True)
class Coded:
    """The values of a column's N cells, of which many are equal, T texts and K values."""

    codes: NDArray[np.int64]  # [N], text of each cell
    starts: NDArray[np.int64]  # [T + 1], where the values of each text begin, and the end
    values: NDArray[np.int64]  # numbers of the values of each text, one text after another
    names: list[str]  # of the values as they are spelled, K
    lacking: NDArray[np.bool_]  # [T], whether a text says that the attribute does not apply

    @classmethod
    def of(cls, cells: Sequence[str]) -> Coded:
        """Code the cells of a column."""
        texts = {text: number for number, text in enumerate(dict.fromkeys(cells))}
        numbers: dict[str, int] = {}
        starts, values = array("q", [0]), array("q")
        for text in texts:
            values.extend([numbers.setdefault(v, len(numbers)) for v in values_of(text)])
            starts.append(len(values))
        codes = np.fromiter(map(texts.__getitem__, cells), np.int64, len(cells))
        lacking = np.fromiter(map(says_lacking, texts), bool, len(texts))
        return cls(codes, np.array(starts), np.array(values, np.int64), list(numbers), lacking)

    def stated(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and value of each statement that a cell has a value, by row; then the rows of cells
        that say that the attribute does not apply, with -1."""
        lengths = np.diff(self.starts)[self.codes]
        ends = np.cumsum(lengths)
        rows = np.repeat(np.arange(len(self.codes)), lengths)
        within = np.arange(len(rows)) - np.repeat(ends - lengths, lengths)
        said = self.values[np.repeat(self.starts[self.codes], lengths) + within]
        lacking = np.flatnonzero(self.lacking[self.codes])
        return np.append(rows, lacking), np.append(said, np.full_like(lacking, -1))

    def count(self, texts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How often each value is stated by the given texts, [K] int64."""
        times = np.bincount(texts, minlength=len(self.starts) - 1)
        weights = np.repeat(times, np.diff(self.starts))
        counted = np.bincount(self.values, weights, minlength=len(self.names))
        return counted.astype(np.int64)

    def spellings(self) -> dict[str, str]:
        """The spelling of each value, by its folded name: of its variants the most frequent, the
        first by name among equals."""
        counts = self.count(self.codes).tolist()
        out: dict[str, str] = {}
        for name, _ in sorted(zip(self.names, counts, strict=True), key=lambda s: (-s[1], s[0])):
            out.setdefault(normalise_name(name), name)
        return out


@dataclass
class Table:
    """A table as read: names of its columns, the cells of each, stripped, empty where unknown, and
    the line on which each row ends."""

    file: Path
    columns: list[str]
    cells: list[list[str]]
    lines: Sequence[int]
    notes: list[str] = field(default_factory=list)
    separator: str = ","
    _coded: dict[int, Coded] = field(default_factory=dict)

    def coded(self, column: int) -> Coded:
        """The values of a column; from the first call on its cells stay."""
        if column not in self._coded:
            self._coded[column] = Coded.of(self.cells[column])
        return self._coded[column]

    def find(self, *names: str) -> int | None:
        """Number of the first column that bears one of the names, tried in their order."""
        folded = [normalise_name(c) for c in self.columns]
        return next((folded.index(n) for n in map(normalise_name, names) if n in folded), None)

    def named(self, option: str, name: str) -> int:
        """Number of the column that an option names; UsageError if there is none."""
        number = self.find(name)
        if number is None:
            raise UsageError(
                f"{self.file} has no column {name!r} for {option}; it has {', '.join(self.columns)}"
            )
        return number

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, ascending."""
        self.cells = [[cells[row] for row in rows] for cells in self.cells]
        self.lines = [self.lines[row] for row in rows]


def table_files(folder: Path) -> list[Path]:
    """The tables of a folder: `labels.*` or `metadata.*`; or one a split, `train.csv`; or the only
    one there is. Without any, `metadata.*` of its folders, or of those in `data/`.

    DataError if there are several and none of them is so called.
    """
    files = tables_in(folder)
    for stem in ("labels", "metadata"):
        if named := [f for f in files if f.stem.casefold() == stem]:
            return sorted(named, key=lambda f: list(_READERS).index(f.suffix.casefold()))[:1]
    files = [f for f in files if f.suffix.casefold() not in (".txt", ".json")]
    if len(files) > 1 and not all(f.stem.casefold() in SPLIT_NAMES for f in files):
        raise DataError(
            f"{folder} holds {len(files)} tables ({', '.join(f.name for f in files[:5])}); call "
            f"the one that is meant labels{files[0].suffix}"
        )
    inner = [] if files else [*_names(folder), *(f"data/{n}" for n in _names(folder / "data"))]
    below = [f for sub in inner for f in tables_in(folder / sub)]
    return files or [f for f in below if f.stem.casefold() == "metadata"]


def tables_in(folder: Path) -> list[Path]:
    """Files right in a folder that are tables by their names, sorted; none if it is no folder."""
    ends = tuple(_READERS)
    files = (folder / name for name in _names(folder) if name.casefold().endswith(ends))
    return [file for file in files if file.is_file()]


def class_pictures(folder: Path) -> list[Path]:
    """Pictures in folders named after classes, below `folder` or a folder of each split, sorted;
    none if there are fewer than two classes."""
    found = [path for path in pictures_below(folder) if path.parent != folder]
    classes = {path.parent.name.casefold() for path in found}
    return found if len(classes) > 1 and not classes <= SPLIT_NAMES.keys() else []


def pictures_below(folder: Path) -> list[Path]:
    """Pictures by their names in a folder and below, hidden folders left out, sorted."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place) / n for n in names if n.casefold().endswith(PICTURES)]
    return sorted(found)


def is_csv(file: Path) -> bool:
    """Whether it is a single table of delimited text."""
    return file.is_file() and _READERS.get(file.suffix.casefold()) is _read_csv


def read_tables(root: Path, separator: str | None = None, encoding: str | None = None) -> Table:
    """Read the tables of a folder as one; those in its folders name pictures beside themselves.

    Raises:
        DataError: none, or one that is empty, undecodable, or has a row of another length.
        UsageError: an unknown encoding, or a separator of several characters.
    """
    files = table_files(root)
    if not files:
        pictures = class_pictures(root)
        if not pictures:
            raise DataError(f"{root / 'labels.csv'} is missing; {expected('catalogue')}")
        cells = [[p.relative_to(root).as_posix() for p in pictures]]
        cells.append([p.parent.name for p in pictures])
        note = "no table: each folder is a category"
        return Table(root, ["image", "category"], cells, range(len(pictures)), [note])
    parts = [_read(file, separator, encoding) for file in files]
    table = parts[0] if len(files) == 1 else _joined(root, parts)
    if not table.lines:
        raise DataError(f"{files[0]} lists no images; {expected('catalogue')}")
    _tell_apart(table)
    _blank_unknown(table)
    return table


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def _read(file: Path, separator: str | None, encoding: str | None) -> Table:
    try:
        return _READERS[file.suffix.casefold()](file, separator, encoding)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{file} is not text: {error}; name its --encoding") from error


def _joined(root: Path, parts: list[Table]) -> Table:
    """Tables below each other; where a part has no split column, its name or folder tells."""
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    names += [] if "split" in map(str.casefold, names) else ["split"]
    out = Table(root, names, [[] for _ in names], [n for p in parts for n in p.lines])
    for part in parts:
        out.notes += [note for note in part.notes if note not in out.notes]
        beside = part.file.parent.relative_to(root).as_posix()
        own = dict(zip(part.columns, part.cells, strict=True))
        told = part.file.stem if part.file.stem.casefold() != "metadata" else part.file.parent.name
        own.setdefault("split", [told if told.casefold() in SPLIT_NAMES else ""] * len(part.lines))
        if beside != ".":
            own = {
                name: [f"{beside}/{c}" for c in cells]
                if cells and cells[0].casefold().endswith(PICTURES)
                else cells
                for name, cells in own.items()
            }
        for name, cells in zip(names, out.cells, strict=True):
            cells += own.get(name, [""] * len(part.lines))
    out.notes.append(f"{len(parts)} tables read as one, {parts[0].file.name} and others")
    return out


def _tell_apart(table: Table) -> None:
    """Of columns of one name drop equal ones, and number the others."""
    first: dict[str, int] = {}
    drop = []
    for number, name in enumerate(table.columns):
        before = first.setdefault(normalise_name(name), number)
        if before == number or not name:
            continue
        if table.cells[before] == table.cells[number]:
            drop.append(number)
        else:
            table.columns[number] = f"{name} (column {number + 1})"
            table.notes.append(
                f"two columns are called {name!r}: the second is {table.columns[number]!r}"
            )
    for number in reversed(drop):
        table.notes.append(f"column {table.columns[number]!r} stands twice: one is dropped")
        del table.columns[number], table.cells[number]


def _blank_unknown(table: Table) -> None:
    found: Counter[str] = Counter()
    for cells in table.cells:
        if not UNKNOWN.isdisjoint(cells):
            found.update(cell for cell in cells if cell in UNKNOWN)
            cells[:] = ["" if cell in UNKNOWN else cell for cell in cells]
    if found:
        said = ", ".join(f"{word!r} {count:,}" for word, count in found.most_common(8))
        table.notes.append(f"cells taken for unknown: {said}")


def _encoding_of(file: Path) -> str:
    """Of a text file: by its mark, by its zero bytes, UTF-8 if it is, else Windows-1252."""
    with file.open("rb") as stream:
        head = stream.read(1024)
        for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16")):
            if head.startswith(mark):
                return name
        if head.startswith(b"\xfe\xff"):
            return "utf-16"
        if head.count(0) > len(head) / 4:
            return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(head)
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


@dataclass(frozen=True)
class CsvText:
    """An open CSV: its rows as they are, the header first, and what was found out about it."""

    reader: Any  # of the csv module; its `line_num` counts from the header
    separator: str
    encoding: str
    before: list[str]  # lines above the header, such as `sep=;`
    line_end: str

    @property
    def line(self) -> int:
        """The line of the file on which the last row that was read ends."""
        return int(self.reader.line_num) + len(self.before)


@contextmanager
def open_csv(file: Path, separator: str | None, encoding: str | None) -> Iterator[CsvText]:
    """Open a CSV file; what is None is guessed. Raises UsageError as `read_tables`."""
    decoded = encoding or _encoding_of(file)
    try:
        stream = file.open(encoding=decoded, newline="")
    except LookupError:
        raise UsageError(f"--encoding {encoding!r} is unknown; give e.g. utf-8 or cp1252") from None
    limit = csv.field_size_limit(1 << 30)  # of all the process; a column to skip may hold a page
    try:
        with stream:
            before: list[str] = []
            declared, first = None, ""
            for first in stream:
                if found := re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE):
                    declared = found[1]
                elif first.strip(' \t\r\n",;|'):
                    break
                before.append(first)
            told = {"tab": "\t", "\\t": "\t"}.get(separator or "", separator)
            used = told or declared or _separator_of(first)
            if len(used) != 1:
                raise UsageError(f"--separator {separator!r} is not one character")
            reader = csv.reader(itertools.chain([first], stream), delimiter=used)
            end = "\r\n" if first.endswith("\r\n") else "\n"
            yield CsvText(reader, used, decoded, before, end)
    finally:
        csv.field_size_limit(limit)


def _read_csv(file: Path, separator: str | None, encoding: str | None) -> Table:
    with open_csv(file, separator, encoding) as text:
        columns = [cell.strip() for cell in next(text.reader)]
        table = _columns_of(file, columns, text.reader, len(text.before))
    table.separator = used = text.separator
    guesses = [] if used == "," or separator else [f"cells parted by {SEPARATORS.get(used, used)}"]
    if not encoding and not text.encoding.startswith("utf-8"):
        shown = {"cp1252": "Windows-1252"}.get(text.encoding, text.encoding.upper())
        guesses.append(f"text in {shown}")
    if guesses:
        table.notes.append(
            f"{file.name}: {', '.join(guesses)} (guessed; set with --separator, --encoding)"
        )
    return table


def _separator_of(header: str) -> str:
    parts = {s: len(next(csv.reader([header], delimiter=s))) for s in SEPARATORS}
    if max(parts[s] for s in ",;\t") > 1:
        del parts["|"]
    return max(parts, key=lambda s: parts[s])


def _columns_of(file: Path, columns: list[str], reader: Any, skipped: int) -> Table:
    """Rows of a csv reader turned into columns, a block at a time; `skipped` lines came before."""
    width, lines = len(columns), array("q")
    cells: list[list[str]] = [[] for _ in columns]
    seen: list[dict[str, str] | None] = [{} for _ in columns]
    line = reader.line_num + skipped
    while block := list(itertools.islice(reader, _BLOCK)):
        end = reader.line_num + skipped
        if end - line == len(block) and set(map(len, block)) == {width}:
            lines.extend(range(line + 1, end + 1))
        else:
            block = list(_whole_rows(file, block, line, width, lines))
        line = end
        for number, column in enumerate(zip(*block, strict=True)):
            stripped = list(map(str.strip, column))
            once = seen[number]
            if once is not None:
                stripped = list(map(once.setdefault, stripped, stripped))
                if len(once) > _BLOCK / 2:
                    seen[number] = None
            cells[number] += stripped
    return Table(file, columns, cells, lines)


def _whole_rows(
    file: Path, block: list[list[str]], line: int, width: int, lines: array[int]
) -> Iterator[list[str]]:
    """Rows that are not blank, cut to `width`, where each ends put to `lines`."""
    for row in block:
        # A `\r` ends a line too, also alone.
        line += 1 + sum(c.count("\n") + c.count("\r") - c.count("\r\n") for c in row)
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < width or any(cell.strip() for cell in row[width:]):
            raise DataError(
                f"{file}, line {line}: {len(row)} cells where the header has {width}: "
                f"{','.join(row)[:80]!r}; quote cells that hold the separator"
            )
        lines.append(line)
        yield row[:width]


def _read_json(file: Path, separator: str | None, encoding: str | None) -> Table:
    """Objects, one a line or in one list; keys of any of them are columns."""
    text = file.read_bytes().decode(encoding or _encoding_of(file))
    parts: Iterable[tuple[int, Any]]
    number = 0
    try:
        if text.lstrip().startswith("["):
            parts = list(enumerate(msgspec.json.decode(text), 1))
        else:
            parts = []
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    parts.append((number, msgspec.json.decode(line)))
    except msgspec.DecodeError as error:
        raise DataError(f"{file}, line {number or 1}: not JSON: {error}") from error
    lines, cells = array("q"), dict[str, list[str]]()
    for number, record in parts:
        if not isinstance(record, dict):
            raise DataError(
                f"{file}, line {number}: expected an object, found {str(record)[:80]!r}"
            )
        for name in record.keys() - cells.keys():
            cells[name] = [""] * len(lines)
        for name, column in cells.items():
            column.append(_text(record.get(name)))
        lines.append(number)
    names = list(dict.fromkeys(k for _, r in parts for k in r))
    return Table(file, [n.strip() for n in names], [cells[n] for n in names], lines)


def _read_parquet(file: Path, separator: str | None, encoding: str | None) -> Table:
    try:
        import polars
    except ImportError:
        raise ResourceError(
            f"{file}: Parquet is read by polars; install the [parquet] extra, or save it as CSV"
        ) from None
    try:
        found = polars.read_parquet(file)
    except polars.exceptions.PolarsError as error:
        raise DataError(f"{file} is not a Parquet file: {error}") from error
    cells = [[_text(cell) for cell in found[name].to_list()] for name in found.columns]
    return Table(file, [n.strip() for n in found.columns], cells, range(1, len(found) + 1))


def _text(value: Any) -> str:
    """A cell of a typed table as text: several values by `|`, a picture by its path."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return "|".join(map(_text, value))
    if isinstance(value, dict):
        path = value.get("path") or value.get("file_name")
        return str(path or msgspec.json.encode({k: str(v) for k, v in value.items()}).decode())
    return str(value).strip()


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".parquet": _read_parquet,
    ".json": _read_json,
    ".txt": _read_csv,
}
"""By the end of a file's name; of two tables of one name the first of these is read."""
