"""What every adapter gives, whatever its files look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.schema import Schema

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class RetrievalList:
    """Rows that take part in attribute-specific retrieval, one attribute and value each.

    Args:
        rows: row of the dataset, [M] int64.
        attributes: number of the attribute that the row is queried or searched in, [M] int64.
        values: value of that attribute, 0-based *within the attribute*, [M] int64.
    """

    rows: NDArray[np.int64]
    attributes: NDArray[np.int64]
    values: NDArray[np.int64]


@dataclass(frozen=True)
class RetrievalProtocol:
    """A published query and candidate list of one split."""

    queries: RetrievalList
    candidates: RetrievalList


@dataclass(frozen=True)
class Dataset:
    """Images and what is known of them.

    Args:
        name: name of the adapter or folder.
        root: the folder that `paths` are relative to.
        schema: attributes and values.
        paths: image paths relative to `root`, POSIX separators, N of them.
        labels: label states [N, K] int8 in {-1, 0, +1}.
        category: category of each image [N] int64, -1 unknown.
        category_names: names of the categories, C of them (empty: the dataset has none).
        splits: `train`, `valid`, `test`, a name of the user's or empty for each image, [N] unicode.
        items: number of the item that each image shows [N] int64, None if unknown. Where files
            state the splits an item may be in several of them (`straddling`).
        boxes: x1 y1 x2 y2 in pixels [N, 4] float32, None if the dataset has none.
        landmarks: visibility x y [N, L, 3] float32, NaN where there is none; None if no file.
        payload: columns that are no attributes (sku, price, title) by name, N cells each, as text.
        protocols: published query and candidate lists by split name.
        notes: remarks of the adapter for `retrieve inspect` (columns skipped, rows dropped).
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

    def __post_init__(self) -> None:
        n = len(self.paths)
        assert self.labels.shape == (n, self.schema.size), "labels must be [N, K]"
        assert self.labels.dtype == np.int8, "labels must be int8"
        assert self.category.shape == (n,), "category must be [N]"
        assert self.splits.shape == (n,), "splits must be [N]"
        assert all(len(cells) == n for cells in self.payload.values()), "a cell an image"

    def __len__(self) -> int:
        return len(self.paths)

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """Rows of one split, ascending, [M] int64; `all` gives every row."""
        if split == "all":
            return np.arange(len(self), dtype=np.int64)
        return np.flatnonzero(self.splits == split).astype(np.int64)

    def subset(self, rows: NDArray[np.int64]) -> Dataset:
        """The dataset of some rows only, renumbered 0..M-1 in the order given.

        Published lists lose the entries whose row is not kept.
        """
        place = np.full(len(self), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))

        def kept(entries: RetrievalList) -> RetrievalList:
            new = place[entries.rows]
            inside = new >= 0
            return RetrievalList(new[inside], entries.attributes[inside], entries.values[inside])

        return replace(
            self,
            paths=[self.paths[row] for row in rows.tolist()],
            labels=self.labels[rows],
            category=self.category[rows],
            splits=self.splits[rows],
            items=None if self.items is None else self.items[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            landmarks=None if self.landmarks is None else self.landmarks[rows],
            payload={
                name: [cells[row] for row in rows.tolist()] for name, cells in self.payload.items()
            },
            protocols={
                name: RetrievalProtocol(kept(p.queries), kept(p.candidates))
                for name, p in self.protocols.items()
            },
        )


def states_from_values(
    schema: Schema, attributes: NDArray[np.int64], values: NDArray[np.int64], rows: int
) -> NDArray[np.int8]:
    """Label states of single-valued attributes: +1 for the value, -1 for its siblings.

    Args:
        schema: attributes and values.
        attributes: attribute number of each column of `values`, [M].
        values: value within the attribute [rows, M] int64, -1 unknown.
        rows: N.

    Returns:
        [N, K] int8.
    """
    states = np.zeros((rows, schema.size), dtype=np.int8)
    for column, attribute in enumerate(attributes):
        where = schema.slice_of(int(attribute))
        known = np.flatnonzero(values[:, column] >= 0)
        states[known, where] = -1
        states[known, where.start + values[known, column]] = 1
    return states
