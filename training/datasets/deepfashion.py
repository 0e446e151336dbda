"""DeepFashion, Category and Attribute Prediction: 289,222 images, 1000 values, five attributes.

Three forms: the release with its lists (`Anno_coarse/` or `Anno/`), `Anno_fine/` on demand or alone
(`deepfashion_fine`), and ASEN's query and candidate lists, which are read beside the release or
stand alone (`deepfashion_asen`).

Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations,
CVPR 2016.
"""

from __future__ import annotations

from pathlib import Path

from training.datasets.asen_files import has_asen_files
from training.datasets.attribute_states import read_attribute_states
from training.datasets.dataset import Dataset
from training.datasets.deepfashion_asen import load_asen_alone, with_asen_lists
from training.datasets.deepfashion_fine import load_fine
from training.datasets.deepfashion_landmarks import read_landmarks
from training.datasets.deepfashion_lists import (
    TYPES,
    columns_of,
    read_boxes,
    read_category,
    read_names,
    read_partition,
    schema_of,
)
from training.datasets.locate import expected
from training.errors import DataError

REQUIRED = (
    "list_attr_cloth.txt",
    "list_attr_img.txt",
    "list_category_cloth.txt",
    "list_category_img.txt",
)


def load(root: Path, fine: bool = False, published_lists: bool = True) -> Dataset:
    """Read the release, or ASEN's files where there is no release, or else `Anno_fine/`.

    Args:
        root: folder that holds `Anno_coarse/` or `Anno/`, `Eval/` and the images, or ASEN's files,
            or `Anno_fine/`.
        fine: read `Anno_fine/` in any case.
        published_lists: take up ASEN's query and candidate lists if they are there. An image of
            ASEN's valid or test files is then in that split, whatever the release says, so that
            training does not see it.

    Returns:
        Attributes texture, fabric, shape, part and style, multi-valued, values in file order;
        the category is not among them. Paths are relative to `Img/` or, where that has no `img/`,
        to `root`.

    Raises:
        DataError: missing or malformed files.
    """
    images = root / "Img" if (root / "Img" / "img").is_dir() else root
    if fine:
        return load_fine(root, images)
    folders = [root / "Anno_coarse", root / "Anno", root]
    folder = next((f for f in folders if (f / "list_attr_cloth.txt").is_file()), None)
    if folder is None:
        if has_asen_files(root):
            return load_asen_alone(root, images)
        if (root / "Anno_fine" / "list_attr_cloth.txt").is_file():
            return load_fine(root, images)
        raise DataError(f"{root} holds no label files of DeepFashion; {expected('deepfashion')}")
    dataset = _load_release(root, folder, images)
    if published_lists and has_asen_files(root):
        return with_asen_lists(dataset, root)
    return dataset


def _load_release(root: Path, folder: Path, images: Path) -> Dataset:
    partition = root / "Eval" / "list_eval_partition.txt"
    missing = [f for f in (*(folder / n for n in REQUIRED), partition) if not f.is_file()]
    if missing:
        listed = ", ".join(str(f) for f in missing)
        raise DataError(f"missing: {listed}; {expected('deepfashion')}")
    values = read_names(folder / "list_attr_cloth.txt", len(TYPES))
    categories = read_names(folder / "list_category_cloth.txt", 3)
    read = read_attribute_states(folder / "list_attr_img.txt", columns_of(values))
    row_of = {path: row for row, path in enumerate(read.paths)}
    if len(row_of) != len(read.paths):
        raise DataError(f"{folder / 'list_attr_img.txt'} lists an image twice; remove one of them")
    boxes, landmarks = folder / "list_bbox.txt", folder / "list_landmarks.txt"
    notes = [f"no {f.name}" for f in (boxes, landmarks) if not f.is_file()]
    category = read_category(folder / "list_category_img.txt", row_of, len(categories.names))
    splits = read_partition(partition, row_of)
    for what, count in (("category", (category < 0).sum()), ("split", (splits == "").sum())):
        if count:
            notes.append(f"{count} images without {what}")
    return Dataset(
        name="deepfashion",
        root=images,
        schema=schema_of(values, TYPES, multi=True),
        paths=read.paths,
        labels=read.states,
        category=category,
        category_names=categories.names,
        splits=splits,
        boxes=read_boxes(boxes, row_of) if boxes.is_file() else None,
        landmarks=read_landmarks(landmarks, row_of) if landmarks.is_file() else None,
        notes=tuple(notes),
    )
