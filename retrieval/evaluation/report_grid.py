"""Records of figures in three renderings: JSON, and cells of text as Markdown or in a terminal.

A field's metadata say what becomes of it: `shown` makes it a column of tables, `INLINE` puts the
figures of a record among those of the record that holds it, `UNWRITTEN` keeps it out of JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from rich import box
from rich.table import Table

from retrieval.console import plain
from retrieval.metrics import Interval

INLINE = {"inline": True}
UNWRITTEN = {"unwritten": True}

_FILES_ONLY = ("candidates", "without relevant")  # too much for the 80 columns of a terminal


def shown(heading: str, form: str = ",", unit: str = "") -> dict[str, str]:
    """Metadata of a field that tables show: its heading, the format of a cell, what follows it."""
    return {"heading": heading, "form": form, "unit": unit}


def to_json(value: Any) -> Any:
    """Records as dicts, intervals as [low, high], floats with four decimals: far below the width of
    any interval, and readable in a diff."""
    if isinstance(value, Interval):
        return to_json((value.low, value.high))
    if is_dataclass(value):
        out: dict[str, Any] = {}
        for field in fields(value):
            found = to_json(getattr(value, field.name))
            if "inline" in field.metadata:
                out |= found
            elif "unwritten" not in field.metadata:
                out[field.name] = found
        return out
    if isinstance(value, Mapping):
        return {name: to_json(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [to_json(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


@dataclass(frozen=True)
class Grid:
    """A table of cells; the first column is text, the others are figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    remark: str = ""

    @classmethod
    def of(cls, title: str, first: str, records: Mapping[str, Any], remark: str = "") -> Grid:
        """A row a record, all of one class, under its name; a column a figure that any has; `first`
        is the heading of the names."""
        columns = [
            field
            for field in fields(next(iter(records.values())))
            if "heading" in field.metadata
            and any(getattr(record, field.name) is not None for record in records.values())
        ]
        rows = [
            [name, *(_cell(getattr(record, f.name), **f.metadata) for f in columns)]
            for name, record in records.items()
        ]
        return cls(title, [first, *(f.metadata["heading"] for f in columns)], rows, remark)

    def turned(self) -> Grid:
        """The same with rows and columns exchanged."""
        header, *rows = zip(self.header, *self.rows, strict=True)
        return Grid(self.title, header, rows, self.remark)

    def markdown(self) -> list[str]:
        """Lines: title, table, remark."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        lines = [[cell.replace("|", "\\|") for cell in row] for row in (self.header, *self.rows)]
        lines.insert(1, rule)
        table = ["| " + " | ".join(row) + " |" for row in lines]
        return ["", f"## {self.title}", "", *table, *(["", self.remark] if self.remark else [])]

    def table(self) -> Table:
        """For a terminal of 80 columns: what a person can do without is left to the files."""
        # Escaped: a name of the dataset's may look like rich's markup.
        table = Table(
            title=plain(self.title),
            caption=self.remark or None,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
        )
        kept = [i for i, name in enumerate(self.header) if name not in _FILES_ONLY]
        for i in kept:
            heading = plain(self.header[i])
            table.add_column(heading, justify="right" if i else "left", no_wrap=i > 0)
        for row in self.rows:
            table.add_row(*(plain(row[i]) for i in kept))
        return table


def _cell(value: Any, heading: str, form: str, unit: str) -> str:
    if isinstance(value, Interval):
        return f"{value.low:{form}} to {value.high:{form}}"
    return "" if value is None else f"{value:{form}}{unit}"
