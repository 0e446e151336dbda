"""What every adapter gives, whatever its files look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.schema import Schema

SPLITS = ("train", "valid", "test")
SPLIT_NAMES = {name: name for name in SPLITS} | {
    **dict.fromkeys(("training", "tr"), "train"),
    **dict.fromkeys(("val", "validation", "validate", "validating", "dev", "develop"), "valid"),
    **dict.fromkeys(("testing", "tst", "eval", "evaluation", "holdout", "hold-out"), "test"),
}
"""What these names of splits mean, in any case, likeliest first; any other is its own split."""


@dataclass(frozen=True)
class ColumnRole:
    """What a column of a catalogue is taken for, `picture`, `item`, `split`, `attribute`,
    `payload`, `text` or `ignored`, and why."""

    name: str
    role: str
    reason: str

    @property
    def note(self) -> str:
        """The remark on a column that is no attribute."""
        return f"column {self.name!r} is no attribute: {self.reason}"


@dataclass(frozen=True)
class RetrievalList:
    """Statements that a row has a value of an attribute, all [M] int64: rows of the dataset,
    numbers of attributes, and values, 0-based *within the attribute*; -1: the attribute does not
    apply to the row."""

    rows: NDArray[np.int64]
    attributes: NDArray[np.int64]
    values: NDArray[np.int64]

    def renumbered(
        self, rows: NDArray[np.int64] | None = None, attributes: NDArray[np.int64] | None = None
    ) -> RetrievalList:
        """With the new number of each row or attribute; -1 drops what is stated of it."""
        new_rows = self.rows if rows is None else rows[self.rows]
        new = self.attributes if attributes is None else attributes[self.attributes]
        kept = (new_rows >= 0) & (new >= 0)
        return RetrievalList(new_rows[kept], new[kept], self.values[kept])


@dataclass(frozen=True)
class RetrievalProtocol:
    """A published query and candidate list of one split."""

    queries: RetrievalList
    candidates: RetrievalList

    def renumbered(self, **numbers: NDArray[np.int64]) -> RetrievalProtocol:
        """Both lists, see `RetrievalList.renumbered`."""
        lists = (one.renumbered(**numbers) for one in (self.queries, self.candidates))
        return RetrievalProtocol(*lists)


@dataclass(frozen=True)
class Dataset:
    """Images and what is known of them.

    Args:
        name: of the adapter or folder.
        paths: image paths relative to `root`, POSIX separators, N of them.
        labels: label states [N, K] int8 in {-1, 0, +1}.
        category: category of each image [N] int64, -1 unknown.
        category_names: names of the categories, C of them (empty: the dataset has none).
        splits: `train`, `valid`, `test`, a name of the user's or empty for each image, [N] unicode.
        items: number of the item that each image shows [N] int64, None if unknown. Where files
            state the splits an item may be in several of them (`straddling_notes`).
        boxes: x1 y1 x2 y2 in pixels [N, 4] float32, None if the dataset has none.
        landmarks: visibility (0 visible, 1 occluded, 2 cut off), x and y in pixels of the file
            [N, L, 3] float32, NaN where there is none; in pairs, the left one first. None if the
            dataset has none. `training/images/landmarks.py` brings them into a model's square.
        payload: columns that are no attributes (sku, price, title) by name, N cells each, as text.
        protocols: published query and candidate lists by split name.
        notes: remarks of the adapter for `retrieve inspect` (columns skipped, rows dropped).
        columns: of a catalogue, what each column was taken for.
    """

    name: str
    root: Path
    schema: Schema
    paths: Sequence[str]
    labels: NDArray[np.int8]
    category: NDArray[np.int64]
    category_names: tuple[str, ...]
    splits: NDArray[np.str_]
    items: NDArray[np.int64] | None = None
    boxes: NDArray[np.float32] | None = None
    landmarks: NDArray[np.float32] | None = None
    payload: dict[str, list[str]] = field(default_factory=dict)
    protocols: dict[str, RetrievalProtocol] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    columns: tuple[ColumnRole, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.paths)
        assert self.labels.shape == (n, self.schema.size), "labels must be [N, K]"
        assert self.labels.dtype == np.int8, "labels must be int8"
        assert self.category.shape == (n,), "category must be [N]"
        assert self.splits.shape == (n,), "splits must be [N]"
        assert all(len(cells) == n for cells in self.payload.values()), "a cell an image"

    def __len__(self) -> int:
        return len(self.paths)

    def split_called(self, name: str) -> str:
        """The split that a name means: the dataset's own, else what `SPLIT_NAMES` says of it."""
        return name if np.any(self.splits == name) else SPLIT_NAMES.get(name.casefold(), name)

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """Rows of one split, ascending, [M] int64; `all` gives every row."""
        if split == "all":
            return np.arange(len(self), dtype=np.int64)
        return np.flatnonzero(self.splits == split).astype(np.int64)

    def has_landmarks(self, split: str) -> bool:
        """Whether a landmark of any image of a split is known."""
        own = None if self.landmarks is None else self.landmarks[self.rows_of(split)]
        return own is not None and not bool(np.isnan(own).all())

    def subset(self, rows: NDArray[np.int64]) -> Dataset:
        """The dataset of some rows only, renumbered 0..M-1 in the order given.

        Published lists lose the entries whose row is not kept.
        """
        new = np.full(len(self), -1, dtype=np.int64)
        new[rows] = np.arange(len(rows))
        chosen = rows.tolist()
        arrays = ("labels", "category", "splits", "items", "boxes", "landmarks")
        changed = {n: a[rows] for n in arrays if (a := getattr(self, n)) is not None}
        return replace(
            self,
            paths=[self.paths[row] for row in chosen],
            payload={name: [cells[r] for r in chosen] for name, cells in self.payload.items()},
            protocols={split: p.renumbered(rows=new) for split, p in self.protocols.items()},
            **changed,
        )

    def select_attributes(self, names: Sequence[str]) -> Dataset:
        """The dataset with the named attributes only, in the order of the names.

        Published lists keep the statements about kept attributes, renumbered. Rows without any
        label left stay. The category is not touched. UsageError for an unknown attribute.
        """
        kept = list(dict.fromkeys(self.schema.attribute(name) for name in names))
        new = np.full(len(self.schema.attributes), -1, dtype=np.int64)
        new[kept] = np.arange(len(kept))
        return replace(
            self,
            schema=Schema(tuple(self.schema.attributes[a] for a in kept)),
            labels=np.hstack([self.labels[:, self.schema.slice_of(a)] for a in kept]),
            protocols={split: p.renumbered(attributes=new) for split, p in self.protocols.items()},
        )


def straddling_notes(dataset: Dataset) -> list[str]:
    """Remarks on paths listed more than once, and on paths and items in more than one split.

    An adapter that cuts a dataset keeps them together; the splits that files state may not.
    """
    twice = [path for path, count in Counter(dataset.paths).items() if count > 1]
    found = {
        "image paths listed more than once": twice,
        "image paths in more than one split": _straddling(dataset.paths, dataset.splits),
    }
    notes = [f"{what}: {len(p):,}, first {p[0]!r}" for what, p in found.items() if p]
    if dataset.items is not None:
        items = dataset.items.tolist()
        if straddling := _straddling(items, dataset.splits):
            first = dataset.paths[items.index(straddling[0])]
            notes.append(f"items in more than one split: {len(straddling):,}, first of {first!r}")
    return notes


def _straddling(keys: Sequence[Any], splits: NDArray[np.str_]) -> list[Any]:
    """Keys of rows in several splits, in the order of their first row; no split is none."""
    seen: dict[Any, set[str]] = {}
    for key, split in zip(keys, splits.tolist(), strict=True):
        if split:
            seen.setdefault(key, set()).add(split)
    return [key for key, own in seen.items() if len(own) > 1]
