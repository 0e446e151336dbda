"""A `Dataset` from ASEN's files alone: what the DARN and FashionAI adapters share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.datasets.asen_files import (
    has_asen_files,
    protocols_of,
    read_labels,
    read_lists,
    read_meta,
    read_rows,
    read_schema,
)
from training.datasets.category import category_of
from training.datasets.dataset import SPLITS, Dataset
from training.datasets.label_states import states_from_statements, with_multi
from training.datasets.locate import expected
from training.errors import DataError


def load_asen(root: Path, name: str, key: str) -> Dataset:
    """Read the splits that the folder holds, their labels and published lists.

    Args:
        root: folder with the label files; image paths are relative to it.
        name: the adapter's name.
        key: the dataset's name in `meta.json`.

    Returns:
        Rows in the order train, valid, test. Labels are all that `label_<split>.txt` and the
        query and candidate lists state: +1 for a stated value, -1 for its siblings.

    Raises:
        DataError: missing or malformed files.
    """
    if not has_asen_files(root):
        raise DataError(f"{root} lists no images (filenames_*.txt); {expected(name)}")
    meta = read_meta(root, key)
    if meta is None:
        raise DataError(f"meta.json is missing in {root} and in its parent; {expected(name)}")
    schema = read_schema(root, meta)
    rows = read_rows(root)
    lists = read_lists(root, rows)
    statements = [*read_labels(root, rows), *(t for pair in lists.values() for t in pair)]
    if not statements:
        raise DataError(f"{root} has images but no label files; {expected(name)}")
    for triples in statements:
        triples.check(tuple(meta.values()))
    labels = states_from_statements(
        schema,
        np.concatenate([t.rows for t in statements]),
        np.concatenate([t.attributes for t in statements]),
        np.concatenate([t.values for t in statements]),
        len(rows.paths),
    )
    categories = category_of(schema, labels, rows.paths)
    return Dataset(
        name=name,
        root=root,
        schema=with_multi(schema, labels),
        paths=rows.paths,
        labels=labels,
        category=categories.category,
        category_names=categories.names,
        splits=rows.splits,
        protocols=protocols_of(lists),
        notes=(*absent_splits(root), *categories.notes),
    )


def absent_splits(root: Path) -> tuple[str, ...]:
    """Remarks on splits whose image list is not in the folder, though their labels may be."""
    notes: list[str] = []
    for split in SPLITS:
        if (root / f"filenames_{split}.txt").is_file():
            continue
        labels = (root / f"label_{split}.txt").is_file()
        orphan = f"; label_{split}.txt is there but cannot be used without it" if labels else ""
        notes.append(f"no filenames_{split}.txt: split {split!r} is left out{orphan}")
    return tuple(notes)
