"""`Anno_fine/`: DeepFashion's smaller release with 26 relabelled attributes of six types.

One file a split and kind, without count and header, line by line beside `<split>.txt` (the paths;
split is train, val or test): `<split>_attr.txt` 26 states 1 or 0, `<split>_cate.txt` the 1-based
category, `<split>_bbox.txt` x1 y1 x2 y2, `<split>_landmarks.txt` x and y of up to eight
landmarks, packed and filled up with zeros to 16 numbers, without visibility.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.attribute_states import AttributeStates, read_attribute_states
from training.datasets.dataset import Dataset
from training.datasets.deepfashion_landmarks import SLOTS_OF_TYPE
from training.datasets.deepfashion_lists import (
    PARTITIONS,
    columns_of,
    numbers_of,
    read_names,
    schema_of,
)
from training.datasets.label_lines import bad_line, lines_of, whole_number
from training.datasets.label_states import with_multi
from training.errors import DataError
from training.relative_path import relative_path

FINE_TYPES = ("texture", "sleeve", "length", "neckline", "fabric", "fit")


def load_fine(root: Path, images: Path) -> Dataset:
    """Read `root/Anno_fine/`.

    In an attribute of which an image has a value its other values count as absent; one of which
    it has none is unknown.

    Args:
        root: folder of the dataset.
        images: folder that the image paths are relative to.

    Raises:
        DataError: missing or malformed files, or files of a split that differ in length.
    """
    folder = root / "Anno_fine"
    splits = [s for s in PARTITIONS if (folder / f"{s}.txt").is_file()]
    if not splits:
        raise DataError(
            f"{folder} has no train.txt, val.txt or test.txt; expected those and for each "
            "<split>_attr.txt, <split>_cate.txt (and <split>_bbox.txt, <split>_landmarks.txt), "
            "list_attr_cloth.txt and list_category_cloth.txt"
        )
    names = read_names(folder / "list_attr_cloth.txt", len(FINE_TYPES))
    categories = read_names(folder / "list_category_cloth.txt", 3)
    schema = schema_of(names, FINE_TYPES, multi=False)
    parts: list[AttributeStates] = []
    category: list[int] = []
    for split in splits:
        paths = _paths(folder / f"{split}.txt")
        file = folder / f"{split}_attr.txt"
        parts.append(read_attribute_states(file, columns_of(names), paths))
        category += _categories(folder / f"{split}_cate.txt", len(paths), len(categories.names))
    labels = np.concatenate([p.states for p in parts])
    for number in range(len(schema.attributes)):
        states = labels[:, schema.slice_of(number)]
        known = (states == 1).any(axis=1, keepdims=True)
        states[:] = np.where(known, np.where(states == 1, 1, -1), 0)
    sizes = [len(p.paths) for p in parts]
    kinds = categories.types[np.array(category, dtype=np.int64)]
    return Dataset(
        name="deepfashion",
        root=images,
        schema=with_multi(schema, labels),
        paths=[path for part in parts for path in part.paths],
        labels=labels,
        category=np.array(category, dtype=np.int64),
        category_names=categories.names,
        splits=np.repeat(np.array([PARTITIONS[s] for s in splits], dtype="<U5"), sizes),
        boxes=_tables(folder, splits, sizes, "bbox", 4),
        landmarks=_slotted(_tables(folder, splits, sizes, "landmarks", 16), kinds),
        notes=("Anno_fine: 26 relabelled attributes",),
    )


def _paths(file: Path) -> list[str]:
    return [relative_path(text.strip(), f"{file}, line {line}") for line, text in lines_of(file)]


def _categories(file: Path, count: int, names: int) -> list[int]:
    out: list[int] = []
    for line, text in lines_of(file):
        number = whole_number(text)
        if number is None or not 1 <= number <= names:
            raise bad_line(file, line, text, f"a category from 1 to {names}")
        out.append(number - 1)
    _same_length(file, len(out), count)
    return out


def _tables(
    folder: Path, splits: list[str], sizes: list[int], kind: str, columns: int
) -> NDArray[np.float32] | None:
    """Rows of all splits [N, columns], NaN for a split without the file; None if none has it."""
    files = [folder / f"{split}_{kind}.txt" for split in splits]
    if not any(file.is_file() for file in files):
        return None
    parts: list[NDArray[np.float32]] = []
    for file, size in zip(files, sizes, strict=True):
        part = np.full((size, columns), np.nan, dtype=np.float32)
        if file.is_file():
            rows: list[list[float]] = []
            for line, text in lines_of(file):
                fields = text.split()
                if len(fields) != columns:
                    raise bad_line(file, line, text, f"{columns} numbers")
                rows.append(numbers_of(file, line, text, fields))
            _same_length(file, len(rows), size)
            part[:] = np.array(rows, dtype=np.float32).reshape(-1, columns)
        parts.append(part)
    return np.concatenate(parts)


def _slotted(
    packed: NDArray[np.float32] | None, kinds: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    """[N, 8, 3] from [N, 16]: the category's type says which landmarks are listed.

    Visibility is not published here: 0 (visible) where there are coordinates, 2 (cut off) at 0, 0.
    """
    if packed is None:
        return None
    out = np.full((len(packed), 8, 3), np.nan, dtype=np.float32)
    for kind, slots in SLOTS_OF_TYPE.items():
        rows = np.flatnonzero(kinds == kind)
        points = packed[rows].reshape(-1, 8, 2)[:, : len(slots)]
        cut_off = np.where((points == 0).all(axis=2, keepdims=True), 2, 0)
        seen = np.where(np.isnan(points[..., :1]), np.nan, cut_off)
        out[rows[:, None], list(slots)] = np.concatenate([seen, points], axis=2)
    return out


def _same_length(file: Path, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(f"{file} has {found} lines, the list of its images has {expected}")
