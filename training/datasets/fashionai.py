"""FashionAI attributes: ASEN's files, or the raw form of the challenge.

Raw form: `Annotations/label.csv` with `path,attribute_labels,nnnnynnnn` a line, in the folder or
in folders one deeper (`fashionAI_attributes_train1/`, ...); the position of `y` is the value,
`m` (maybe) is taken as unknown. Each image is labelled in one attribute.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.datasets.asen_dataset import load_asen
from training.datasets.asen_files import has_asen_files, read_schema
from training.datasets.dataset import Dataset
from training.datasets.grouped_split import grouped_split, numbered
from training.datasets.label_lines import bad_line, lines_of
from training.datasets.locate import expected
from training.errors import DataError
from training.relative_path import relative_path

ATTRIBUTES = (
    "skirt_length",
    "sleeve_length",
    "coat_length",
    "pant_length",
    "collar_design",
    "lapel_design",
    "neckline_design",
    "neck_design",
)
"""The eight attributes in the order of ASEN's files, so that both forms give one schema."""

STATES = {"y": 1, "n": -1, "m": 0}


@dataclass(frozen=True)
class _Row:
    path: str
    attribute: str
    letters: str
    where: tuple[Path, int, str]


def load(root: Path, seed: int = 0) -> Dataset:
    """Read ASEN's files where the folder has them, else the raw form.

    Args:
        root: folder of the dataset.
        seed: seed of the 8:1:1 cut (by path) of the raw form, which has no splits.

    Raises:
        DataError: missing or malformed files.
    """
    if has_asen_files(root):
        return load_asen(root, "fashionai", "FashionAI")
    files = label_files(root)
    if not files:
        raise DataError(f"{root} holds no label file of FashionAI; {expected('fashionai')}")
    return _load_raw(root, files, seed)


def label_files(root: Path) -> list[Path]:
    """The raw form's label files in a folder, in the order of their names."""
    return [
        *(f for f in (root / "Annotations" / "label.csv", root / "label.csv") if f.is_file()),
        *sorted(root.glob("*/Annotations/label.csv")),
    ]


def _load_raw(root: Path, files: list[Path], seed: int) -> Dataset:
    rows = [row for file in files for row in _rows_of(root, file)]
    counts: dict[str, int] = {}
    for row in rows:
        # A test file without answers has one `?` or nothing: it says no number of values.
        if row.letters and counts.setdefault(row.attribute, len(row.letters)) != len(row.letters):
            raise bad_line(*row.where, f"{counts[row.attribute]} letters as above")
    order = [a for a in ATTRIBUTES if a in counts] + sorted(counts.keys() - set(ATTRIBUTES))
    schema = read_schema(root, {a: counts[a] for a in order})
    labels = np.zeros((len(rows), schema.size), dtype=np.int8)
    for number, row in enumerate(rows):
        if row.letters:
            where = schema.slice_of(order.index(row.attribute))
            labels[number, where] = [STATES[letter] for letter in row.letters]
    paths = [row.path for row in rows]
    return Dataset(
        name="fashionai",
        root=root,
        schema=schema,
        paths=paths,
        labels=labels,
        category=np.full(len(rows), -1, dtype=np.int64),
        category_names=(),
        splits=grouped_split(numbered(paths), seed=seed),
        notes=(f"raw form without splits: cut 8:1:1 by image path with seed {seed}",),
    )


def _rows_of(root: Path, file: Path) -> list[_Row]:
    folder = file.parent.parent if file.parent.name == "Annotations" else file.parent
    prefix = folder.relative_to(root).as_posix()
    rows: list[_Row] = []
    for number, line in lines_of(file):
        form = "'path,attribute_labels,letters n, m and one y'"
        try:
            cells = next(csv.reader([line]))
        except csv.Error:
            raise bad_line(file, number, line, form) from None
        if len(cells) != 3 or not cells[1].strip():
            raise bad_line(file, number, line, form)
        path, attribute, letters = (cell.strip() for cell in cells)
        letters = "" if letters == "?" else letters
        if set(letters) - STATES.keys() or letters.count("y") > 1:
            raise bad_line(file, number, line, form)
        path = relative_path(path, f"{file}, line {number}")
        path = path if prefix == "." else f"{prefix}/{path}"
        attribute = attribute.removesuffix("_labels")
        rows.append(_Row(path, attribute, letters, (file, number, line)))
    return rows
