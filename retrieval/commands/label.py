"""`retrieve label`: values that the titles and descriptions of a catalogue tell, in empty cells."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import click
import numpy as np
from rich.table import Table as Shown

from retrieval.console import plain, print_json, print_table, say
from retrieval.options import (
    JSON,
    PATH,
    Encoding,
    ImageColumn,
    Separator,
    filled,
    split_names,
)
from retrieval.vocabulary import Vocabulary, key_of, read_vocabulary
from retrieval.words import Words
from training.datasets.columns import choose_image, choose_items, choose_split, not_an_attribute
from training.datasets.tables import Table, read_tables, table_files
from training.errors import UsageError
from training.files import write_file
from training.schema import Attribute, Schema, nearest, normalise_name

WORDS_SHOWN = 20
_TEXT = click.option(
    "--text", multiple=True, required=True, help="Columns of text to read, in this order: A,B."
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `retrieve label` is told."""

    catalogue: Annotated[Path, click.argument("catalogue", type=PATH)]
    text: Annotated[tuple[str, ...], _TEXT]
    out: Annotated[Path, "CSV file to write, such as CATALOGUE/labels.csv."]
    attributes: Annotated[
        tuple[str, ...], "Only these attributes, of the catalogue or the vocabulary: A,B."
    ] = ()
    vocabulary: Annotated[Path | None, "TOML file of more words."] = None
    image_column: ImageColumn = None
    separator: Separator = None
    encoding: Encoding = None
    as_json: Annotated[bool, JSON]


@dataclass(frozen=True)
class Filled:
    """Of one attribute the rows that had a value, and those that got one."""

    attribute: str
    known: int
    filled: int


@dataclass(frozen=True)
class Unused:
    """A word that names nothing, the rows that hold it and the first of their texts."""

    word: str
    rows: int
    text: str


@dataclass(frozen=True)
class Labelled:
    """All that `retrieve label` tells."""

    rows: int
    attributes: list[Filled]
    unused: list[Unused]


@click.command("label")
@filled(Options)
def command(options: Options) -> None:
    """Read the titles of CATALOGUE and fill in the empty cells of its attributes.

    \b
    retrieve label shop --text title,description --out shop/labels.csv

    Cells that hold a value stay as they are. An attribute that the catalogue lacks becomes a new
    column where a title tells one of its values. What a title does not name stays unknown.
    """
    root = options.catalogue
    table = read_tables(root, options.separator, options.encoding)
    if any(options.out.resolve() == file.resolve() for file in table_files(root)):
        raise UsageError(f"--out {options.out} is the catalogue's own table; name another file")
    image = choose_image(table, root, options.image_column)
    texts = [table.named("--text", name) for name in split_names("--text", options.text)]
    only = split_names("--attributes", options.attributes)
    split = choose_split(table, None)
    taken = {image, split, choose_items(table, None, (image, split)), *texts}
    free = [c for c, name in enumerate(table.columns) if c not in taken and name]
    found = label(table, texts, free, only, read_vocabulary(options.vocabulary))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=table.separator, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*table.cells, strict=True))
    write_file(options.out, stream.getvalue().encode())
    for note in table.notes:
        say(note)
    say(f"labels written to {options.out}")
    if options.as_json:
        print_json(asdict(found))
    else:
        _print(found)


def label(
    table: Table,
    texts: Sequence[int],
    free: Sequence[int],
    only: Sequence[str],
    vocabulary: Vocabulary,
) -> Labelled:
    """Fill empty cells of a table, changed in place, by what its texts say; of several texts the
    first that says it counts.

    Args:
        texts, free: columns of text, and those that may be attributes; new ones stand last.
        only: attributes to fill, by name; empty: all that a text tells.

    Raises UsageError: a name in `only` that neither the table nor the vocabulary has.
    """
    schema, columns = _schema(table, free, only, vocabulary)
    words = Words(schema, vocabulary)

    @cache
    def read(text: str, column: str) -> tuple[dict[int, list[str]], frozenset[str]]:
        found = words.understand(text, column)
        values: dict[int, list[str]] = {}
        for name in found.present:
            flat = schema.value(name)
            number = int(schema.attribute_of[flat])
            own = schema.attributes[number].values
            values.setdefault(number, []).append(own[flat - schema.offsets[number]])
        claims = words.lexicon.claims
        named = (w for w in found.unused if any(c.value >= 0 for c in claims.get(key_of(w), ())))
        return values, frozenset(found.unused) - set(named)

    told: list[dict[int, list[str]]] = []
    unused: Counter[str] = Counter()
    example: dict[str, str] = {}
    for cells in zip(*(table.cells[c] for c in texts), strict=True):
        told.append({})
        missed: set[str] = set()
        for column, text in zip(texts, cells, strict=True):
            values, left = read(text, table.columns[column])
            told[-1] = values | told[-1]  # the first text that says it
            missed |= left
            example |= dict.fromkeys(left - example.keys(), text)
        unused.update(sorted(missed))
    filled = []
    for number, attribute in enumerate(schema.attributes):
        at = columns[number]
        old = [""] * len(told) if at is None else table.cells[at]
        listed = any(cell.startswith("[") for cell in old)
        new = [
            cell or _cell(row[number], listed) if number in row else cell
            for cell, row in zip(old, told, strict=True)
        ]
        known = sum(map(bool, old))
        filled.append(Filled(attribute.name, known, sum(map(bool, new)) - known))
        if at is not None:
            table.cells[at] = new
        elif filled[-1].filled or only:
            table.columns.append(attribute.name)
            table.cells.append(new)
    most = [Unused(word, count, example[word]) for word, count in unused.most_common(WORDS_SHOWN)]
    return Labelled(len(told), [one for one in filled if one.known or one.filled], most)


def _cell(values: list[str], listed: bool) -> str:
    """Values as the catalogue joins them: `red|blue`, or `['red', 'blue']`."""
    return repr(values) if listed else "|".join(values)


def _schema(
    table: Table, free: Sequence[int], only: Sequence[str], vocabulary: Vocabulary
) -> tuple[Schema, list[int | None]]:
    """The attributes to fill and the column of each, None for a new one: those of the catalogue,
    whose values stay what they are, and of the vocabulary what it lacks or left empty."""
    asked = {normalise_name(name): name for name in only}
    keys = {key_of(table.columns[c]): c for c in free}
    chosen: list[Attribute] = []
    columns: list[int | None] = []
    for c in free:
        name, own = table.columns[c], table.coded(c)
        named = normalise_name(name) in asked and own.names
        if named or not_an_attribute(table, c, None) is None:
            several = bool((np.diff(own.starts) > 1).any())
            chosen.append(Attribute(name, tuple(sorted(own.spellings().values())), several))
            columns.append(c)
    there = {key_of(attribute.name) for attribute in chosen}
    for name, entry in vocabulary.entries.items():
        called = [key_of(n) for n in (name, *entry.called)]
        empty = [keys[k] for k in called if k in keys and not table.coded(keys[k]).names]
        if there.isdisjoint(called) and entry.terms and (empty or called[0] not in keys):
            own_name = table.columns[empty[0]] if empty else name
            chosen.append(Attribute(own_name, tuple(entry.terms)))
            columns.append(empty[0] if empty else None)
    names = [normalise_name(attribute.name) for attribute in chosen]
    for folded, name in asked.items():
        if folded not in names:
            raise UsageError(f"unknown attribute {name!r}; {nearest(name, names)}")
    kept = [n for n, name in enumerate(names) if not asked or name in asked]
    return Schema(tuple(chosen[n] for n in kept)), [columns[n] for n in kept]


def _print(found: Labelled) -> None:
    shown = Shown(title=f"labels of {found.rows:,} rows", title_justify="left")
    shown.add_column("attribute")
    for title in ("known before", "filled in", "still unknown"):
        shown.add_column(title, justify="right")
    for a in found.attributes:
        left = found.rows - a.known - a.filled
        shown.add_row(plain(a.attribute), *(f"{n:,}" for n in (a.known, a.filled, left)))
    print_table(shown)
    words = Shown(title="words that named nothing", title_justify="left")
    for title in ("word", "rows", "such as"):
        words.add_column(title)
    for one in found.unused:
        words.add_row(plain(one.word), f"{one.rows:,}", plain(one.text[:80]))
    if found.unused:
        print_table(words)
