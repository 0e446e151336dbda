"""What each column of a catalogue is: guessed by name, form and values per item, or told."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import SPLIT_NAMES, ColumnRole
from training.datasets.labels import expected
from training.datasets.tables import PICTURES, Table, values_of
from training.errors import DataError, UsageError
from training.schema import normalise_name

IMAGE_COLUMNS = (
    *("image", "path", "file", "filename", "file-name", "image-path", "filepath", "file-path"),
    *("image-file", "image-name", "img", "img-path", "picture", "photo"),
)
ITEM_COLUMNS = (
    *("item", "item-id", "product", "product-id", "article", "article-id", "style-id"),
    *("style-no", "sku", "parent-id", "group-id"),
)
SPLIT_COLUMNS = ("split", "splits", "subset", "partition", "set", "dataset-split")
TEXT_COLUMNS = (
    *("name", "title", "description", "caption", "text", "note", "notes", "comment", "comments"),
    *("id", "sku", "uid", "ean", "gtin", "barcode", "product-id", "item-id", "product-name"),
    *("url", "link", "image-url", "price", "date", "timestamp", "product-title", "style-no"),
)
"""Columns that are no attributes unless they are asked for by name."""

MOST_VALUES = 50
"""A column of more distinct values, few items each, is text, not labels."""

TOO_MANY_VALUES = 500
KIND, KIND_OF_WORDS = 20, 8
"""More rows of each of few values are kinds of garments, not pictures of one item."""

_CURRENCY = "(?:[€$£¥]|EUR|USD|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|CAD|AUD)?"
_NUMBER = re.compile(rf"({_CURRENCY}) ?([-+]?\d[\d.,' ]*(?:[eE][-+]?\d+)?) ?({_CURRENCY})")
_YEAR = "(?:19|20)[0-9]{2}"
_DATE = re.compile(
    rf"{_YEAR}([-/.][0-9]{{1,2}}){{0,2}}([T ][0-9:.]+(Z|[-+][0-9:]+)?)?"
    rf"|[0-9]{{1,2}}[-/. ]([0-9]{{1,2}}|[A-Za-z]{{3,9}})[-/. ](?:{_YEAR}|[0-9]{{2}})( [0-9:]+)?"
)


@dataclass(frozen=True)
class Told:
    """What a user says of a table; None and empty is guessed.

    `image` and `split` are columns, `payload` and `text` those that are no attributes; a separator
    is one character or `tab`, an encoding one of Python's.
    """

    image: str | None = None
    split: str | None = None
    payload: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    separator: str | None = None
    encoding: str | None = None

    @property
    def columns(self) -> tuple[str | None, ...]:
        """Those that are named, None where it is left to be guessed."""
        return self.image, self.split, *self.payload, *self.text


def choose_image(table: Table, root: Path, told: str | None) -> int:
    """The column of pictures: told; else of those so called or full of names of pictures the one
    whose files are there, then by form, then by name. DataError if there is none."""
    if told is not None:
        return table.named("--image-column", told)
    folded = [normalise_name(c) for c in table.columns]
    ranks = []
    for number, name in enumerate(folded):
        some = [c for c in _sample(table.cells[number]) if "://" not in c][:50]
        form = sum(c.casefold().endswith(PICTURES) for c in some) > len(some) / 2
        if form or name in IMAGE_COLUMNS:
            there = sum((root / c).is_file() for c in some[:20] if "\0" not in c and len(c) < 255)
            place = IMAGE_COLUMNS.index(name) if name in IMAGE_COLUMNS else len(IMAGE_COLUMNS)
            ranks.append((not there, not form, place, number))
    if not ranks:
        raise DataError(
            f"{table.file} has no column called {', '.join(IMAGE_COLUMNS[:6])}, nor one that names "
            f"pictures; its columns are {', '.join(table.columns)}; say which with --image-column"
        )
    ranks.sort()
    chosen = ranks[0][-1]
    if len(ranks) > 1 or folded[chosen] not in IMAGE_COLUMNS:
        others = ", ".join(repr(table.columns[r[-1]]) for r in ranks[1:])
        table.notes.append(
            f"pictures are those of column {table.columns[chosen]!r}"
            + (f", not of {others}" if others else "")
            + " (guessed; set with --image-column)"
        )
    return chosen


def choose_split(table: Table, told: str | None) -> int | None:
    """The column of splits: told, or called so; one not called `split` has to name known ones."""
    if told is not None:
        return table.named("--split-column", told)
    for name in SPLIT_COLUMNS:
        number = table.find(name)
        if number is not None:
            own = {cell.casefold() for cell in table.cells[number]} - {""}
            if name == "split" or (len(own) <= 10 and len(own & SPLIT_NAMES.keys()) > 1):
                return number
    return None


def choose_items(table: Table, told: str | None, taken: Sequence[int | None]) -> int | None:
    """The column that tells which pictures show one item: told, `item`, or one called alike whose
    values have a few rows each; what holds kinds of garments is none, and said."""
    if told is not None:
        return table.named("--item-column", told)
    for name in ITEM_COLUMNS:
        number = table.find(name)
        if number is None or number in taken:
            continue
        known = [cell.casefold() for cell in table.cells[number] if cell]
        own = set(known)
        some = list(itertools.islice(own, 1000))
        words = sum(any(c.isdigit() for c in v) for v in some) < len(some) / 2
        few = 0 < len(own) <= 2 * MOST_VALUES
        if few and len(known) / len(own) > (KIND_OF_WORDS if words else KIND):
            if name == "item":
                table.notes.append(
                    f"column {table.columns[number]!r} holds {len(own)} kinds of garments in "
                    f"{len(known):,} rows, not items; `--item-column {table.columns[number]}` "
                    "takes them for items"
                )
        elif name == "item" or len(own) < len(known) * 0.95:
            if name != "item":
                table.notes.append(
                    f"pictures of one item are those of one {table.columns[number]!r} "
                    "(guessed; set with --item-column)"
                )
            return number
    return None


def attribute_columns(
    table: Table,
    free: Sequence[int],
    attributes: Sequence[str] | None,
    told: Told,
    schema: Sequence[str] | None,
    items: NDArray[np.int64] | None,
) -> tuple[list[int], dict[int, ColumnRole]]:
    """Which columns of `free` become attributes, in order, and why each of `free` does or not.

    Those that `attributes` names, else those that a model's `schema` knows, else all that look like
    labels, where a column of one value is one only if there is no other; `items` is the item of
    each row [N], None if unknown. UsageError for a name that no column bears, DataError if there
    are none.
    """
    names = {c: table.columns[c] for c in free}
    number_of = {normalise_name(names[c]): c for c in reversed(free)}
    why: dict[int, str] = {}  # it is no attribute
    chosen: list[int] = []
    alone: list[int] = []  # of one value
    if attributes is not None:
        for name in attributes:
            if normalise_name(name) not in number_of:
                raise UsageError(
                    f"{table.file} has no attribute column {name!r}; it has "
                    f"{', '.join(names.values())}"
                )
        chosen = list(dict.fromkeys(number_of[normalise_name(name)] for name in attributes))
        because, why = "as told", {c: "not among --attributes" for c in free if c not in chosen}
    else:
        known = [
            c
            for name in schema or ()
            if (c := number_of.get(normalise_name(name))) is not None and table.coded(c).names
        ]
        for c in (c for c in free if c not in known):
            if reason := not_an_attribute(table, c, items):
                why[c] = reason
            elif (
                len(set(map(normalise_name, table.coded(c).names))) == 1
                and not table.coded(c).lacking.any()
            ):
                why[c] = f"every picture has {table.coded(c).names[0]!r}, or nothing"
                alone.append(c)
            elif known:
                why[c] = "the model does not know it"
            else:
                chosen.append(c)
        because = "the model knows it" if known else "looks like labels"
        chosen = known or chosen
    kept = {table.named("--payload", n): "payload" for n in told.payload}
    kept |= {table.named("--text", n): "text" for n in told.text}
    why |= {c: f"told by --{role}" for c, role in kept.items() if c in names}
    chosen = [c for c in chosen if c not in kept]
    if not chosen:
        chosen, because = [c for c in alone if c not in kept], "of one value, but there is no other"
    if not chosen:
        raise DataError(f"{table.file} has no attribute column; {expected('catalogue')}")
    roles = {
        c: ColumnRole(names[c], "attribute", because)
        if c in chosen
        else ColumnRole(names[c], kept.get(c, "payload" if names[c] else "ignored"), why[c])
        for c in free
    }
    return chosen, roles


def not_an_attribute(table: Table, column: int, items: NDArray[np.int64] | None) -> str | None:
    """Why a column is no attribute, None if it is one; `items` is the item of each row [N]."""
    name, cells = table.columns[column], table.cells[column]
    if not normalise_name(name):
        return "it has no name"
    if normalise_name(name) in TEXT_COLUMNS:
        return "text by its name"
    some = _sample(cells)
    if not some:
        return "every cell is empty"
    if form := _form(some):
        return form
    values = [value for cell in some for value in values_of(cell)]
    if len(values) > TOO_MANY_VALUES and len(set(values)) > 0.9 * len(values):
        return f"hardly a value twice in {len(cells):,} rows"
    own = table.coded(column)
    texts = own.codes
    if items is not None:  # an item's pictures say the same: they count once
        many = int(items.max()) + 1
        pairs = np.sort(own.codes * many + items)
        texts = pairs[np.diff(pairs, prepend=-1) > 0] // many
    counts = dict.fromkeys(map(normalise_name, own.names), 0)
    for value, count in zip(own.names, own.count(texts).tolist(), strict=True):
        counts[normalise_name(value)] += count
    distinct, known = len(counts), sum(counts.values())
    if not distinct:
        return "every cell is empty"
    whose = "rows" if items is None else "items"
    if distinct > TOO_MANY_VALUES:
        return f"{distinct:,} different values are more than a model tells apart"
    coded = sum(any(c.isdigit() for c in value) for value in counts) > distinct / 2
    numbers = all(value.isdigit() for value in counts)
    if numbers and distinct > MOST_VALUES:
        return f"{distinct:,} different numbers"
    wordy = sum(value.count("-") for value in counts) > 2 * distinct
    few = 10 if coded or wordy else 3
    if distinct > MOST_VALUES and distinct * (few if items is None else 3) > known:
        return f"{distinct:,} different values in {known:,} {whose} look like text"
    if coded and distinct > 10 and distinct * 1.5 > known:
        return f"{distinct:,} different values in {known:,} {whose} look like codes"
    return None


def plain_numbers(cells: list[str], separator: str) -> list[str] | None:
    """Cells as Python writes numbers, if all of them are numbers and one of them has a decimal
    comma, marks between thousands or a currency; else None.

    `1,299` alone is a decimal comma only where commas do not part cells, by `separator`.
    """
    if not all(_NUMBER.fullmatch(cell) for cell in _sample(cells)):
        return None
    found = {cell: _NUMBER.fullmatch(cell) for cell in set(cells) - {""}}
    if not all(found.values()):
        return None
    matches = [m for m in found.values() if m is not None]
    if len({m[1] or m[3] for m in matches}) > 1:
        return None  # of several currencies
    bodies = [m[2].strip() for m in matches]
    decimals = {mark for body in bodies if (mark := _decimal_mark(body))}
    if len(decimals) > 1:
        return None
    unsure = "," if separator != "," and any("," in body for body in bodies) else "."
    mark = decimals.pop() if decimals else unsure
    others = str.maketrans("", "", ".,' ".replace(mark, ""))
    plain = {cell: m[2].translate(others).replace(mark, ".") for cell, m in found.items() if m}
    if all(plain[cell] == cell for cell in plain):
        return None
    return [plain.get(cell, "") for cell in cells]


def _decimal_mark(body: str) -> str:
    """The mark before the decimals, empty where it may as well part thousands, or is none."""
    marks = [c for c in body if c in ".,"]
    if not marks:
        return ""
    if len(set(marks)) == 2 or not re.fullmatch(r"[-+]?\d{1,3}([.,' ]\d{3})+", body):
        return marks[-1] if marks.count(marks[-1]) == 1 else ""
    return ""


def _sample(cells: Sequence[str]) -> list[str]:
    """At most some two thousand cells that are known, evenly spread."""
    step = max(1, len(cells) // 2000)
    return [c for c in cells[::step] if c] or [c for c in cells if c][:2000]


def _form(some: Sequence[str]) -> str | None:
    """What cells are by their form, if that is not labels."""
    most = 0.95 * len(some)
    if sum("://" in c for c in some) > most:
        return "web addresses"
    if sum(c.casefold().endswith(PICTURES) for c in some) > most:
        return "pictures"
    if sum(bool(_DATE.fullmatch(c)) for c in some) > most:
        return "dates"
    numbers = [m[2] for c in some if (m := _NUMBER.fullmatch(c))]
    if len(numbers) > most and any("." in n or "," in n for n in numbers):
        return "numbers"
    words = sum(len(c.split()) for c in some if "|" not in c) / len(some)
    if (words >= 5 and len(set(some)) > len(some) / 4) or sum(map(len, some)) > 80 * len(some):
        return "sentences"
    return None
