"""ASEN's query and candidate lists for DeepFashion, beside the release or without it.

The attribute of a query is type - 1 and its value the rank of the value's global id (line of
`list_attr_cloth.txt`, from 0) among the ids of its type; `label_<split>.txt` holds `index type id
[type id ...]`. Checked on the published lists: each of their 55,250 statements follows from the
label files in this way.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.asen_dataset import absent_splits
from training.datasets.asen_files import (
    Triples,
    protocols_of,
    read_labels,
    read_lists,
    read_meta,
    read_rows,
)
from training.datasets.dataset import Dataset
from training.datasets.deepfashion_lists import TYPES
from training.datasets.label_states import states_from_statements
from training.datasets.locate import expected
from training.errors import DataError
from training.schema import Attribute, Schema


def with_asen_lists(dataset: Dataset, root: Path) -> Dataset:
    """The release with ASEN's lists and splits.

    Args:
        dataset: the release.
        root: folder of ASEN's files.

    Raises:
        DataError: malformed lists, or an image that the release does not have.
    """
    listed = read_rows(root)
    row_of = {path: row for row, path in enumerate(dataset.paths)}
    unknown = [path for path in listed.paths if path not in row_of]
    if unknown:
        raise DataError(
            f"ASEN's filenames in {root} name {len(unknown)} images that list_attr_img.txt does "
            f"not have, the first {unknown[0]!r}; remove the files of one of the two"
        )
    rows = np.array([row_of[path] for path in listed.paths], dtype=np.int64)
    lists = {
        split: (_at(query, rows), _at(candidate, rows))
        for split, (query, candidate) in read_lists(root, listed).items()
    }
    _check(dataset.schema, [t for pair in lists.values() for t in pair])
    splits = dataset.splits.copy()
    splits[rows] = listed.splits
    note = f"{len(np.unique(rows))} images take their split from ASEN's files"
    return replace(
        dataset, splits=splits, protocols=protocols_of(lists), notes=(*dataset.notes, note)
    )


def load_asen_alone(root: Path, images: Path) -> Dataset:
    """ASEN's files without the release: values are called by their number.

    Of the types of which a row has a value, its other values count as absent.

    Args:
        root: folder of ASEN's files.
        images: folder that the image paths are relative to.

    Raises:
        DataError: missing or malformed files.
    """
    rows = read_rows(root)
    labels = read_labels(root, rows)
    if not labels:
        raise DataError(f"{root} has images but no label_*.txt; {expected('deepfashion')}")
    ids = _ids_of_types(labels)
    meta = read_meta(root, "DeepFashion")
    if meta is not None and tuple(meta.values()) != tuple(len(i) for i in ids):
        raise DataError(
            f"the label files of {root} name {[len(i) for i in ids]} values of the five types, "
            f"meta.json says {list(meta.values())}; the ids cannot be ranked without "
            "Anno/list_attr_cloth.txt"
        )
    schema = Schema(
        tuple(
            Attribute(name, tuple(str(v) for v in range(len(i))), multi=True)
            for name, i in zip(TYPES, ids, strict=True)
            if len(i)
        )
    )
    lists = read_lists(root, rows)
    ranked = [_ranked(triples, ids) for triples in labels]
    statements = [*ranked, *(t for pair in lists.values() for t in pair)]
    _check(schema, statements)
    states = states_from_statements(
        schema,
        np.concatenate([t.rows for t in statements]),
        np.concatenate([t.attributes for t in statements]),
        np.concatenate([t.values for t in statements]),
        len(rows.paths),
    )
    return Dataset(
        name="deepfashion",
        root=images,
        schema=schema,
        paths=rows.paths,
        labels=states,
        category=np.full(len(rows.paths), -1, dtype=np.int64),
        category_names=(),
        splits=rows.splits,
        protocols=protocols_of(lists),
        notes=("ASEN's files alone, no Anno: no categories, no names", *absent_splits(root)),
    )


def _ids_of_types(labels: list[Triples]) -> list[NDArray[np.int64]]:
    """Global ids of each type in ascending order, five arrays."""
    for triples in labels:
        # Types count from 1; ids have no limit until all of them are known.
        wrong = np.flatnonzero((triples.attributes < 1) | (triples.attributes > len(TYPES)))
        if len(wrong):
            raise DataError(
                f"{triples.path}, line {triples.lines[wrong[0]]}: type "
                f"{triples.attributes[wrong[0]]} is not one of 1 to {len(TYPES)}"
            )
    types = np.concatenate([t.attributes for t in labels])
    ids = np.concatenate([t.values for t in labels])
    return [np.unique(ids[types == number]) for number in range(1, len(TYPES) + 1)]


def _ranked(triples: Triples, ids: list[NDArray[np.int64]]) -> Triples:
    """Types and global ids as attributes and ranks."""
    values = triples.values.copy()
    for number, known in enumerate(ids, start=1):
        mine = triples.attributes == number
        values[mine] = np.searchsorted(known, values[mine])
    return replace(triples, attributes=triples.attributes - 1, values=values)


def _at(triples: Triples, rows: NDArray[np.int64]) -> Triples:
    return replace(triples, rows=rows[triples.rows])


def _check(schema: Schema, statements: list[Triples]) -> None:
    if len(schema.attributes) != len(TYPES):
        raise DataError(
            "ASEN's lists number all five types, but only "
            f"{', '.join(a.name for a in schema.attributes)} have values here"
        )
    for triples in statements:
        triples.check([len(a.values) for a in schema.attributes])
