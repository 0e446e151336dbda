"""FashionAI attributes: ASEN's files, or the raw form of the challenge.

Raw form: `Annotations/label.csv` with `path,attribute_labels,nnnnynnnn` a line, in the folder or
in folders one deeper (`fashionAI_attributes_train1/`, ...); the position of `y` is the value,
`m` (maybe) is taken as unknown. Each image is labelled in one attribute.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from training.datasets.asen_files import has_asen_files, load_asen, read_schema
from training.datasets.dataset import Dataset
from training.datasets.label_lines import Line, lines_of
from training.datasets.label_states import grouped_split, numbered
from training.datasets.locate import expected
from training.errors import DataError

ATTRIBUTES = (
    *("skirt_length", "sleeve_length", "coat_length", "pant_length"),
    *("collar_design", "lapel_design", "neckline_design", "neck_design"),
)
"""The eight attributes in the order of ASEN's files, so that both forms give one schema."""

STATES = {"y": 1, "n": -1, "m": 0}


def load_fashionai(root: Path) -> Dataset:
    """Read ASEN's files where the folder has them, else the raw form, cut 8:1:1 by path.

    DataError if files are missing or malformed.
    """
    if has_asen_files(root):
        return load_asen(root, "fashionai", "FashionAI")
    files = label_files(root)
    if not files:
        raise DataError(f"{root} holds no label file of FashionAI; {expected('fashionai')}")
    rows = [_parse(line, root) for file in files for line in lines_of(file)]
    counts: dict[str, int] = {}
    for _, attribute, letters, line in rows:
        # A test file without answers has one `?` or nothing: it says no number of values.
        if letters and counts.setdefault(attribute, len(letters)) != len(letters):
            raise line.error(f"{counts[attribute]} letters as above")
    order = [a for a in ATTRIBUTES if a in counts] + sorted(counts.keys() - set(ATTRIBUTES))
    schema = read_schema(root, {a: counts[a] for a in order})
    labels = np.zeros((len(rows), schema.size), dtype=np.int8)
    for number, (_, attribute, letters, _) in enumerate(rows):
        if letters:
            where = schema.slice_of(order.index(attribute))
            labels[number, where] = [STATES[letter] for letter in letters]
    paths = [path for path, *_ in rows]
    return Dataset(
        name="fashionai",
        root=root,
        schema=schema,
        paths=paths,
        labels=labels,
        category=np.full(len(rows), -1, dtype=np.int64),
        category_names=(),
        splits=grouped_split(numbered(paths)),
        notes=("raw form without splits: cut 8:1:1 by image path",),
    )


def label_files(root: Path) -> list[Path]:
    """Label files of the raw form, in the folder and one deeper."""
    own = [f for f in (root / "Annotations" / "label.csv", root / "label.csv") if f.is_file()]
    return [*own, *sorted(root.glob("*/Annotations/label.csv"))]


def _parse(line: Line, root: Path) -> tuple[str, str, str, Line]:
    """Path relative to the root, attribute, letters (none where they are not told) of a line."""
    malformed = line.error("'path,attribute_labels,letters n, m and one y'")
    try:
        cells = [cell.strip() for cell in next(csv.reader([line.text]))]
    except csv.Error:
        raise malformed from None
    if len(cells) != 3 or not cells[1]:
        raise malformed
    path, attribute, letters = cells
    letters = "" if letters == "?" else letters
    if set(letters) - STATES.keys() or letters.count("y") > 1:
        raise malformed
    folder = line.file.parent.parent if line.file.parent.name == "Annotations" else line.file.parent
    path = (folder.relative_to(root) / line.path(path)).as_posix()
    return path, attribute.removesuffix("_labels"), letters, line
