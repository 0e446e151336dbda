"""The gallery file: what the dataset says of every indexed image.

It is written at the end of every build from the dataset and the shards. Labels, items and payload
that were corrected reach the index through it without encoding an image again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from indexer.store.files import check_content, commit_file, map_arrays, open_file, write_arrays
from indexer.store.manifest import FileEntry
from training.datasets.dataset import SPLITS, Dataset
from training.errors import CorruptStoreError
from training.files import temporary_file
from training.schema import Schema, normalise_name

_MOST_TEXTS = 60  # different cells of a column that are listed to be chosen from
_SPLIT_NAMES = np.array(["", *SPLITS])
_STATES = ((np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3).astype(np.int8) - np.int8(1)
"""The four label states of every byte, [256, 4]."""


@dataclass(frozen=True)
class PathList(Sequence[str]):
    """M texts; any name survives, also one that is not UTF-8 (Python's surrogate escapes)."""

    blob: NDArray[np.uint8]  # [total], bytes of all texts, one after another
    offsets: NDArray[np.int64]  # [M + 1], where each starts, and the end

    @classmethod
    def of(cls, texts: Iterable[str]) -> PathList:
        """Pack texts."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(e) for e in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start, stop = self.offsets[position], self.offsets[position + 1]
        return self.blob[start:stop].tobytes().decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Column:
    """One column of the payload, by its name in the catalogue; an empty cell: nothing is known."""

    name: str
    cells: PathList

    def __len__(self) -> int:
        return len(self.cells)

    def text(self, row: int) -> str:
        """A cell as the catalogue has it."""
        return self.cells[row]

    @property
    def numeric(self) -> bool:
        """Whether every cell that is not empty is a finite decimal number, and one is there."""
        return self._parsed is not None

    def numbers(self) -> NDArray[np.float64]:
        """The cells as numbers [M] float64, NaN where empty; ValueError if not `numeric`."""
        if self._parsed is None:
            raise ValueError(f"column {self.name!r} holds cells that are no numbers")
        return self._parsed

    def equal(self, text: str) -> NDArray[np.bool_]:
        """Which cells are a text [M] bool; in a numeric column, the same number (`5` is `5.0`).

        An empty text finds empty cells.
        """
        number = parse_number(text)
        if self.numeric and number is not None:
            found: NDArray[np.bool_] = self.numbers() == number
            return found
        wanted = np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)
        starts, lengths = self.cells.offsets[:-1], np.diff(self.cells.offsets)
        same: NDArray[np.bool_] = lengths == len(wanted)
        rows = np.flatnonzero(same)
        for place, byte in enumerate(wanted):
            rows = rows[self.cells.blob[starts[rows] + place] == byte]
        same[:] = False
        same[rows] = True
        return same

    def told(self) -> dict[str, Any]:
        """What it holds, for a person: the range of its numbers, or its texts where they are
        few, the most frequent first."""
        if self.numeric:
            numbers = self.numbers()
            least, most = float(np.nanmin(numbers)), float(np.nanmax(numbers))
            return {"numeric": True, "least": least, "most": most, "texts": []}
        found: Counter[str] = Counter()
        for row in range(len(self)):
            found[self.text(row)] += 1
            if len(found) > _MOST_TEXTS + 1:
                found.clear()
                break
        texts = [{"text": text, "images": n} for text, n in found.most_common() if text]
        return {"numeric": False, "least": None, "most": None, "texts": texts}

    @cached_property
    def _parsed(self) -> NDArray[np.float64] | None:
        out = np.full(len(self), math.nan)
        for row in np.flatnonzero(np.diff(self.cells.offsets)).tolist():
            number = parse_number(self.cells[row])
            if number is None:
                return None
            out[row] = number
        return out if np.isfinite(out).any() else None


def parse_number(text: str) -> float | None:
    """A finite decimal number, `12`, `-1.5` or `1e3`; None for anything else."""
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def pack_payload(columns: Mapping[str, Sequence[str]]) -> dict[str, NDArray[Any]]:
    """Columns as arrays by the names that `unpack_payload` knows; none gives none."""
    if not columns:
        return {}
    parts = {"payload_names": PathList.of(columns)}
    parts |= {f"payload_{n}": PathList.of(cells) for n, cells in enumerate(columns.values())}
    out: dict[str, NDArray[Any]] = {}
    for name, part in parts.items():
        out |= {name: part.blob, f"{name}_offsets": part.offsets}
    return out


def unpack_payload(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Column]:
    """The columns of `pack_payload`, by name; raises KeyError if an array is missing."""
    if "payload_names" not in arrays:
        return {}
    names = PathList(arrays["payload_names"], arrays["payload_names_offsets"])
    return {
        name: Column(name, PathList(arrays[f"payload_{n}"], arrays[f"payload_{n}_offsets"]))
        for n, name in enumerate(names)
    }


def align_labels(
    labels: NDArray[np.int8], source: Schema, target: Schema
) -> tuple[NDArray[np.int8], int]:
    """Label states [N, K of `source`] int8 renumbered by the names of attributes and values; and
    how many of the target's values `source` has. Those it lacks are unknown (0), but absent (-1)
    where another value of their attribute is stated, or that it does not apply."""
    columns = {name: column for column, name in enumerate(_names(source))}
    pairs = [(i, columns[name]) for i, name in enumerate(_names(target)) if name in columns]
    out = np.zeros((len(labels), target.size), dtype=np.int8)
    own = [normalise_name(attribute.name) for attribute in source.attributes]
    lacking = np.zeros((len(labels), len(target.attributes)), dtype=bool)
    for number, attribute in enumerate(target.attributes):
        if (name := normalise_name(attribute.name)) in own:
            origin = own.index(name)
            states = labels[:, source.slice_of(origin)]
            out[source.attributes[origin].labelled(states), target.slice_of(number)] = -1
            lacking[:, number] = source.attributes[origin].inapplicable(states)
    for to, origin in pairs:
        out[:, to] = labels[:, origin]
    # Of an optional attribute "absent throughout" would say more than "a value not known here".
    misread = target.inapplicable(out) & ~lacking
    return np.where(misread[:, target.attribute_of], 0, out).astype(np.int8), len(pairs)


def _names(schema: Schema) -> list[tuple[str, str]]:
    return [
        (normalise_name(attribute.name), normalise_name(value))
        for attribute in schema.attributes
        for value in attribute.values
    ]


class Labels:
    """Label states of M images, value by value, two bits each: a filter reads its values alone.

    `packed` holds four states a byte [K, M / 4 rounded up] uint8, read-only; `rows` is M.
    """

    def __init__(self, packed: NDArray[np.uint8], rows: int) -> None:
        self.packed, self._rows = packed, rows

    @classmethod
    def of(cls, states: NDArray[np.int8]) -> Labels:
        """Pack label states [M, K] int8 in {-1, 0, +1}."""
        rows, size = states.shape
        codes = np.zeros((size, -(-rows // 4) * 4), dtype=np.uint8)
        codes[:, :rows] = (states + 1).T
        four = codes.reshape(size, -1, 4)
        packed = four[..., 0] | four[..., 1] << 2 | four[..., 2] << 4 | four[..., 3] << 6
        return cls(packed, rows)

    def of_values(self, values: Sequence[int]) -> NDArray[np.int8]:
        """States of some values, by flat index, of all images [M, n] int8, in new memory."""
        out = np.empty((len(values), self._rows), dtype=np.int8)
        for own, value in zip(out, values, strict=True):
            own[:] = _STATES[self.packed[value]].reshape(-1)[: self._rows]
        return out.T

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """States of some images, of all values: [n, K] int8."""
        codes = self.packed[:, rows // 4] >> (2 * (rows % 4)).astype(np.uint8)
        states: NDArray[np.int8] = (codes & 3).astype(np.int8).T - np.int8(1)
        return states


@dataclass(frozen=True)
class Gallery:
    """M indexed images, read-only, in place."""

    rows: NDArray[np.int64]  # [M], of each in the dataset
    labels: Labels
    split_codes: NDArray[np.uint8]  # [M], place of each one's split in `SPLITS`, from 1; 0: none
    items: NDArray[np.int64] | None  # [M], number of the item that each shows; see `Known`
    paths: PathList  # relative to the dataset's root
    payload: dict[str, Column]  # by name

    @property
    def splits(self) -> NDArray[np.str_]:
        """`train`, `valid`, `test` or empty, [M] unicode, in new memory."""
        names: NDArray[np.str_] = _SPLIT_NAMES[self.split_codes]
        return names


@dataclass(frozen=True)
class Known:
    """What is known of N images, of which some are in the shards."""

    labels: NDArray[np.int8]  # label states [N, K]
    splits: NDArray[np.str_]  # [N], `train`, `valid`, `test` or empty
    numbers: NDArray[np.int64]  # [N], row of each in the dataset
    items: NDArray[np.int64] | None = None  # [N], numbers of items, -1 unknown; None: all unknown
    payload: Mapping[str, Sequence[str]] = field(default_factory=dict)  # columns of N cells

    @classmethod
    def of(cls, dataset: Dataset, schema: Schema, say: Callable[[str], None]) -> Known:
        """What a dataset says, labels numbered by a model's schema; `say` is told what is not."""
        labels, matched = align_labels(dataset.labels, dataset.schema, schema)
        if unknown := dataset.schema.unknown_to(schema):
            more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
            say(f"left out, the model does not know: {', '.join(unknown[:20])}{more}")
        if matched < schema.size:
            say(
                f"the dataset knows {matched} of the model's {schema.size} values; "
                "labels of the others are unknown"
            )
        rows = np.arange(len(dataset))
        return cls(labels, dataset.splits, rows, dataset.items, dataset.payload)

    @classmethod
    def again(cls, gallery: Gallery) -> Known:
        """What a gallery file says."""
        payload = {name: column.cells for name, column in gallery.payload.items()}
        labels = gallery.labels.of_rows(np.arange(len(gallery.rows)))
        return cls(labels, gallery.splits, gallery.rows, gallery.items, payload)


def write_gallery(
    folder: Path, paths: Iterable[str], rows: NDArray[np.int64], known: Known
) -> FileEntry:
    """Write and commit the gallery file of M images, by the row of `known` [M] int64 that says what
    is known of each; raises ResourceError."""
    packed, own = PathList.of(paths), rows.tolist()
    codes = (known.splits[rows][:, None] == _SPLIT_NAMES).argmax(axis=1).astype(np.uint8)
    arrays: dict[str, NDArray[Any]] = {
        "rows": known.numbers[rows],
        "labels": Labels.of(known.labels[rows]).packed,
        "splits": codes,
        "paths": packed.blob,
        "path_offsets": packed.offsets,
    }
    if known.items is not None:
        arrays["items"] = known.items[rows]
    arrays |= pack_payload({n: [cells[row] for row in own] for n, cells in known.payload.items()})
    with temporary_file(folder) as temporary:
        places = write_arrays(temporary, arrays)
        return commit_file(temporary, folder, "gallery", ".h5", places)


def open_gallery(folder: Path, entry: FileEntry, verify: bool = True) -> Gallery:
    """Open the gallery file, its content checked with `verify`; raises CorruptStoreError if it is
    missing or damaged."""
    name = str(folder / entry.name)
    with open_file(folder, entry) as handle:
        if verify:
            check_content(folder, entry, handle, quickly=True)
        arrays = map_arrays(handle, name, entry.arrays)
    try:
        return Gallery(
            arrays["rows"],
            Labels(arrays["labels"], len(arrays["rows"])),
            arrays["splits"],
            arrays.get("items"),
            PathList(arrays["paths"], arrays["path_offsets"]),
            unpack_payload(arrays),
        )
    except KeyError as error:
        raise CorruptStoreError(f"{name} is not a gallery file: {error}; build again") from error
