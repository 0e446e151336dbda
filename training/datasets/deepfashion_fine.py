"""`Anno_fine/`: DeepFashion's smaller release with 26 relabelled attributes of six types.

One file a split and kind, without count and header, line by line beside `<split>.txt` (the paths;
split is train, val or test): `<split>_attr.txt` 26 states 1 or 0, `<split>_cate.txt` the 1-based
category, `<split>_bbox.txt` x1 y1 x2 y2, `<split>_landmarks.txt` x and y of up to eight
landmarks, packed and filled up with zeros to 16 numbers, without visibility.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import Dataset
from training.datasets.deepfashion_lists import (
    PARTITIONS,
    SLOTS_OF_TYPE,
    Entry,
    in_order,
    read_category,
    read_coordinates,
    read_names,
    read_states,
    schema_of,
)
from training.datasets.label_lines import lines_of
from training.datasets.label_states import with_multi
from training.errors import DataError

FINE_TYPES = ("texture", "sleeve", "length", "neckline", "fabric", "fit")


def load_fine(folder: Path, images: Path) -> Dataset:
    """Read `Anno_fine/`; image paths are relative to `images`.

    In an attribute of which an image has a value its other values count as absent; one of which
    it has none is unknown. A split without boxes or landmarks has NaN. DataError if files are
    missing, malformed or differ in length from the images of their split.
    """
    paths: list[str] = []
    rows: dict[str, range] = {}
    for split in (s for s in PARTITIONS if (folder / f"{s}.txt").is_file()):
        start = len(paths)
        paths += [line.path(line.text.strip()) for line in lines_of(folder / f"{split}.txt")]
        rows[split] = range(start, len(paths))
    if not rows:
        raise DataError(
            f"{folder} has no train.txt, val.txt or test.txt; expected those and for each "
            "<split>_attr.txt, <split>_cate.txt (and <split>_bbox.txt, <split>_landmarks.txt), "
            "list_attr_cloth.txt and list_category_cloth.txt"
        )

    def entries(kind: str, required: bool = True) -> Iterator[Entry]:
        for split, own in rows.items():
            file = folder / f"{split}_{kind}.txt"
            if required or file.is_file():
                yield from in_order(file, own)

    def coordinates(kind: str, count: int) -> NDArray[np.float32] | None:
        if not any((folder / f"{split}_{kind}.txt").is_file() for split in rows):
            return None
        return read_coordinates(entries(kind, required=False), len(paths), count)

    names = read_names(folder / "list_attr_cloth.txt", len(FINE_TYPES))
    categories = read_names(folder / "list_category_cloth.txt", 3)
    schema = schema_of(names, FINE_TYPES, multi=False)
    labels = read_states(entries("attr"), names)
    for number in range(len(schema.attributes)):
        states = labels[:, schema.slice_of(number)]
        known = (states == 1).any(axis=1, keepdims=True)
        states[:] = np.where(known, np.where(states == 1, 1, -1), 0)
    category = read_category(entries("cate"), len(paths), len(categories.names))
    landmarks = coordinates("landmarks", 16)
    return Dataset(
        name="deepfashion",
        root=images,
        schema=with_multi(schema, labels),
        paths=paths,
        labels=labels,
        category=category,
        category_names=categories.names,
        splits=np.repeat([PARTITIONS[s] for s in rows], [len(r) for r in rows.values()]),
        boxes=coordinates("bbox", 4),
        landmarks=None if landmarks is None else _slotted(landmarks, categories.types[category]),
        notes=("Anno_fine: 26 relabelled attributes",),
    )


def _slotted(packed: NDArray[np.float32], kinds: NDArray[np.int64]) -> NDArray[np.float32]:
    """[N, 8, 3] from [N, 16]: the category's type says which landmarks are listed.

    Visibility is not published here: 0 (visible) where there are coordinates, 2 (cut off) at 0, 0.
    """
    out = np.full((len(packed), 8, 3), np.nan, dtype=np.float32)
    for kind, slots in SLOTS_OF_TYPE.items():
        rows = np.flatnonzero(kinds == kind)
        points = packed[rows].reshape(-1, 8, 2)[:, : len(slots)]
        cut_off = np.where((points == 0).all(axis=2, keepdims=True), 2, 0)
        seen = np.where(np.isnan(points[..., :1]), np.nan, cut_off)
        out[rows[:, None], list(slots)] = np.concatenate([seen, points], axis=2)
    return out
