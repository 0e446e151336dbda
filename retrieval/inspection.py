"""What a dataset holds: counts by split, attribute and value, published lists, unusable images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import SPLITS, Dataset, straddling_notes
from training.errors import DataError


@dataclass(frozen=True)
class ValueCount:
    """One value and the number of images that have it, by split."""

    name: str
    images: dict[str, int]


@dataclass(frozen=True)
class AttributeCount:
    """One attribute.

    Args:
        name: its name.
        multi: whether an image can have several of its values.
        labelled: images that have at least one value of it, by split.
        values: its values in the schema's order.
    """

    name: str
    multi: bool
    labelled: dict[str, int]
    values: list[ValueCount]


@dataclass(frozen=True)
class ProtocolCount:
    """Sizes of a published query and candidate list."""

    queries: int
    candidates: int


@dataclass(frozen=True)
class BrokenImage:
    """An image that cannot be read, and why; the reason does not repeat the path."""

    path: str
    reason: str


@dataclass(frozen=True)
class Inspection:
    """All that `retrieve inspect` tells.

    Args:
        dataset: name of the dataset.
        root: the folder that paths are relative to.
        images: images by split: train, valid, test, others by name, `unassigned`
            (in no split), `all`.
        values: K, number of values of all attributes.
        attributes: counts of each attribute.
        categories: number of categories, 0 if the dataset has none.
        items: number of different items, None if unknown.
        boxes: whether it has boxes.
        landmarks: whether it has landmarks.
        payload: columns that are no attributes; an index keeps and filters by them.
        protocols: published lists by split.
        notes: remarks of the adapter, and on what several splits share.
        missing: paths of images that are not there.
        broken: images that cannot be read; None if they were not opened.
    """

    dataset: str
    root: str
    images: dict[str, int]
    values: int
    attributes: list[AttributeCount]
    categories: int
    items: int | None
    boxes: bool
    landmarks: bool
    payload: list[str]
    protocols: dict[str, ProtocolCount]
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    broken: list[BrokenImage] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with the fields' names as keys."""
        return asdict(self)


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Count what the dataset holds and look whether its images are there; opens none of them."""
    return Inspection(
        dataset=dataset.name,
        root=str(dataset.root),
        images=_by_split(dataset, np.ones((len(dataset), 1), dtype=bool))[0],
        values=dataset.schema.size,
        attributes=count_attributes(dataset),
        categories=len(dataset.category_names),
        items=None if dataset.items is None else len(np.unique(dataset.items)),
        boxes=dataset.boxes is not None,
        landmarks=dataset.landmarks is not None,
        payload=list(dataset.payload),
        protocols={
            split: ProtocolCount(len(p.queries.rows), len(p.candidates.rows))
            for split, p in dataset.protocols.items()
        },
        notes=[*dataset.notes, *straddling_notes(dataset)],
        missing=missing_images(dataset),
    )


def count_attributes(dataset: Dataset) -> list[AttributeCount]:
    """Images that have each value, and any value of each attribute, by split."""
    counts: list[AttributeCount] = []
    for number, attribute in enumerate(dataset.schema.attributes):
        present = dataset.labels[:, dataset.schema.slice_of(number)] == 1
        values = _by_split(dataset, present)
        counts.append(
            AttributeCount(
                name=attribute.name,
                multi=attribute.multi,
                labelled=_by_split(dataset, present.any(axis=1, keepdims=True))[0],
                values=[ValueCount(n, c) for n, c in zip(attribute.values, values, strict=True)],
            )
        )
    return counts


def missing_images(dataset: Dataset) -> list[str]:
    """Paths that name no file, each once, in the dataset's order."""
    # os.path.isfile is False for a name that the file system cannot have; Path.is_file raises.
    return [p for p in dict.fromkeys(dataset.paths) if not os.path.isfile(dataset.root / p)]


def broken_images(
    dataset: Dataset, skip: set[str], advance: Callable[[], None] | None = None
) -> list[BrokenImage]:
    """Decode every image and tell which cannot be.

    Args:
        dataset: the dataset.
        skip: paths that are not opened, since they are known to be missing.
        advance: called after each image.
    """
    # Pillow is needed here only; counting works without loading it.
    from training.image_file import shown_path
    from training.images import open_rgb

    broken: list[BrokenImage] = []
    for path in dict.fromkeys(dataset.paths):
        if path not in skip:
            try:
                open_rgb(dataset.root / path)
            except DataError as error:
                named = f"{shown_path(dataset.root / path)}: "
                broken.append(BrokenImage(path, str(error).removeprefix(named)))
            except MemoryError:
                broken.append(BrokenImage(path, "out of memory while decoding"))
        if advance is not None:
            advance()
    return broken


def _by_split(dataset: Dataset, present: NDArray[np.bool_]) -> list[dict[str, int]]:
    """Column sums of `present` [N, M] by split, M dicts."""
    others = sorted({str(split) for split in dataset.splits} - {"", *SPLITS})
    splits = {name: name for name in (*SPLITS, *others)} | {"unassigned": ""}
    sums = [present[dataset.splits == split].sum(axis=0) for split in splits.values()]
    table = np.stack([*sums, present.sum(axis=0)], axis=1)
    return [dict(zip((*splits, "all"), row, strict=True)) for row in table.tolist()]
