"""DeepFashion, Category and Attribute Prediction: 289,222 images, 1000 values, five attributes.

Three forms: the release with its lists (`Anno_coarse/` or `Anno/`), `Anno_fine/` alone
(`deepfashion_fine`), and ASEN's files, whose query and candidate lists are read beside the release
or stand alone. There the attribute of a query is type - 1 and its value the rank of the value's
global id (line of `list_attr_cloth.txt`, from 0) among the ids of its type, while
`label_<split>.txt` holds `index type id [type id ...]`. Checked on the published lists: each of
their 55,250 statements follows from the label files in this way.

Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations,
CVPR 2016.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from training.datasets.asen_files import AsenFiles, has_asen_files, read_meta
from training.datasets.dataset import Dataset, RetrievalList
from training.datasets.deepfashion_fine import load_fine
from training.datasets.deepfashion_lists import (
    PARTITIONS,
    by_path,
    new_paths,
    read_category,
    read_coordinates,
    read_landmarks,
    read_names,
    read_states,
    schema_of,
)
from training.datasets.locate import expected
from training.errors import DataError
from training.schema import Attribute, Schema

TYPES = ("texture", "fabric", "shape", "part", "style")
"""Names of the attribute types 1 to 5."""

_ANY_ID = 10**9


def load(root: Path) -> Dataset:
    """Read the release, or ASEN's files where there is no release, or else `Anno_fine/`.

    Beside the release ASEN's query and candidate lists are taken up. An image of ASEN's valid or
    test files is then in that split, whatever the release says, so that training does not see it.

    Args:
        root: folder that holds `Anno_coarse/` or `Anno/`, `Eval/` and the images, or ASEN's files,
            or `Anno_fine/`.

    Returns:
        Attributes texture, fabric, shape, part and style, multi-valued, values in file order;
        the category is not among them. Paths are relative to `Img/` or, where that has no `img/`,
        to `root`.

    Raises:
        DataError: missing or malformed files.
    """
    images = root / "Img" if (root / "Img" / "img").is_dir() else root
    folders = [root / "Anno_coarse", root / "Anno", root]
    folder = next((f for f in folders if (f / "list_attr_cloth.txt").is_file()), None)
    if folder is not None:
        dataset = _load_release(root, folder, images)
        return _with_asen_lists(dataset, root) if has_asen_files(root) else dataset
    if has_asen_files(root):
        return replace(_load_asen_alone(root), root=images)
    if (root / "Anno_fine" / "list_attr_cloth.txt").is_file():
        return load_fine(root / "Anno_fine", images)
    raise DataError(f"{root} holds no label files of DeepFashion; {expected('deepfashion')}")


def _load_release(root: Path, folder: Path, images: Path) -> Dataset:
    required = [
        *(folder / f"list_{kind}.txt" for kind in ("attr_img", "category_cloth", "category_img")),
        root / "Eval" / "list_eval_partition.txt",
    ]
    missing = [str(f) for f in required if not f.is_file()]
    if missing:
        raise DataError(f"missing: {', '.join(missing)}; {expected('deepfashion')}")
    values = read_names(folder / "list_attr_cloth.txt", len(TYPES))
    categories = read_names(folder / "list_category_cloth.txt", 3)
    row_of: dict[str, int] = {}
    labels = read_states(new_paths(folder / "list_attr_img.txt", row_of), values)
    n = len(row_of)
    splits = np.full(n, "", dtype="<U5")
    for row, line, fields in by_path(required[-1], row_of):
        name = " ".join(fields)
        if name not in PARTITIONS:
            raise line.error("train, val or test")
        splits[row] = PARTITIONS[name]
    in_category = by_path(folder / "list_category_img.txt", row_of)
    category = read_category(in_category, n, len(categories.names))
    boxes, landmarks = folder / "list_bbox.txt", folder / "list_landmarks.txt"
    notes = [f"no {f.name}" for f in (boxes, landmarks) if not f.is_file()]
    for what, count in (("category", (category < 0).sum()), ("split", (splits == "").sum())):
        if count:
            notes.append(f"{count} images without {what}")
    boxed = boxes.is_file()
    return Dataset(
        name="deepfashion",
        root=images,
        schema=schema_of(values, TYPES, multi=True),
        paths=list(row_of),
        labels=labels,
        category=category,
        category_names=categories.names,
        splits=splits,
        boxes=read_coordinates(by_path(boxes, row_of), n, 4) if boxed else None,
        landmarks=read_landmarks(landmarks, row_of) if landmarks.is_file() else None,
        notes=tuple(notes),
    )


def _with_asen_lists(dataset: Dataset, root: Path) -> Dataset:
    """The release with ASEN's lists and splits."""
    files = AsenFiles(root)
    row_of = {path: row for row, path in enumerate(dataset.paths)}
    unknown = [path for path in files.paths if path not in row_of]
    if unknown:
        raise DataError(
            f"ASEN's filenames in {root} name {len(unknown)} images that list_attr_img.txt does "
            f"not have, the first {unknown[0]!r}; remove the files of one of the two"
        )
    sizes = [len(attribute.values) for attribute in dataset.schema.attributes]
    if len(sizes) != len(TYPES):
        raise DataError(f"ASEN's lists in {root} number all five types, {len(sizes)} are here")
    rows = np.array([row_of[path] for path in files.paths], dtype=np.int64)
    splits = dataset.splits.copy()
    splits[rows] = files.splits
    note = f"{len(np.unique(rows))} images take their split from ASEN's files"
    protocols = files.protocols(dict(enumerate(sizes)))
    return replace(
        dataset,
        splits=splits,
        protocols={split: p.renumbered(rows=rows) for split, p in protocols.items()},
        notes=(*dataset.notes, note),
    )


def _load_asen_alone(root: Path) -> Dataset:
    """ASEN's files without the release: values are called by their number."""
    files = AsenFiles(root)
    labels = files.labels(dict.fromkeys(range(1, len(TYPES) + 1), _ANY_ID))
    if not labels:
        raise DataError(f"{root} has images but no label_*.txt; {expected('deepfashion')}")
    types, ids = (np.concatenate([getattr(t, n) for t in labels]) for n in ("attributes", "values"))
    known = [np.unique(ids[types == number]) for number in range(1, len(TYPES) + 1)]
    sizes = [len(own) for own in known]
    meta = read_meta(root, "DeepFashion")
    if meta is not None and list(meta.values()) != sizes:
        raise DataError(
            f"the label files of {root} name {sizes} values of the five types, meta.json says "
            f"{list(meta.values())}; the ids cannot be ranked without Anno/list_attr_cloth.txt"
        )
    if 0 in sizes:
        raise DataError(
            f"ASEN's lists in {root} number all five types, but {sizes} values are here"
        )
    schema = Schema(
        tuple(
            Attribute(name, tuple(map(str, range(size))), multi=True)
            for name, size in zip(TYPES, sizes, strict=True)
        )
    )
    values = np.empty_like(ids)
    for number, own in enumerate(known, start=1):
        values[types == number] = np.searchsorted(own, ids[types == number])
    ranked = RetrievalList(np.concatenate([t.rows for t in labels]), types - 1, values)
    protocols = files.protocols(dict(enumerate(sizes)))
    dataset = files.dataset("deepfashion", schema, [ranked], protocols)
    note = "ASEN's files alone, no Anno: no categories, no names"
    return replace(dataset, notes=(note, *dataset.notes))
