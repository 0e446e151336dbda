"""The wardrobe in the layout of DeepFashion's Category and Attribute Prediction Benchmark.

Its five types take up our attributes so: texture is pattern; fabric is colour; shape is length and
shape; part is collar shape, sleeve length, sleeve shape and button; style follows from category.
"""

from __future__ import annotations

from pathlib import Path

from training.wardrobe.landmarks import Located
from training.wardrobe.picture import PictureJob, Progress, save_pictures
from training.wardrobe.plan import Planned, Written, plan, write_lines, written
from training.wardrobe.vocabulary import VALUES

TYPES: dict[int, tuple[str, ...]] = {
    1: ("pattern",),
    2: ("colour",),
    3: ("length", "shape"),
    4: ("collar-shape", "sleeve-length", "sleeve-shape", "button"),
}
"""DeepFashion's attribute type -> our attributes; type 5 is `STYLES`."""

ANNO_FILES = (
    *("list_attr_cloth.txt", "list_category_cloth.txt", "list_attr_img.txt"),
    *("list_category_img.txt", "list_bbox.txt", "list_landmarks.txt"),
)
"""Files in `Anno/`. `Eval/list_eval_partition.txt` is written last: a folder with it is whole."""

STYLES = {
    "t-shirt": "casual",
    "shirt": "smart",
    "dress": "feminine",
    "jacket": "urban",
    "sweater": "cosy",
    "vest": "outdoor",
    "coat": "classic",
    "hoodie": "sporty",
}
"""Category -> style, of type 5."""

UPPER, FULL = 1, 3
CLOTHES_TYPES = {c: FULL if c in ("dress", "coat") else UPPER for c in VALUES["category"]}

_LANDMARKS = {UPPER: (0, 1, 2, 3, 6, 7), FULL: (0, 1, 2, 3, 4, 5, 6, 7)}
_PARTITION = {"train": "train", "valid": "val", "test": "test"}


def write_deepfashion(
    folder: Path,
    count: int,
    size: int = 224,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Written:
    """Draw a wardrobe into `folder` as `Img/img/`, `Anno/` and `Eval/`.

    Args:
        folder: created if absent.
        count: number of pictures.
        size: their side in pixels.
        seed: of the wardrobe.
        workers: processes that draw.
        progress: called with the number of pictures drawn.

    Raises:
        UsageError: if a number is out of range.
        ResourceError: if something cannot be written.
    """
    planned = plan(count, seed)
    paths = [f"img/Wardrobe_Item_{p.item:06d}/img_{p.view + 1:08d}.jpg" for p in planned]
    jobs = [
        PictureJob(p.spec, size, folder / "Img" / path, located=True)
        for p, path in zip(planned, paths, strict=True)
    ]
    anno, partition_file = folder / "Anno", folder / "Eval" / "list_eval_partition.txt"
    labels = [partition_file, *(anno / name for name in ANNO_FILES)]
    located = [one for one in save_pictures(jobs, workers, progress, labels) if one is not None]
    names = [(value, kind) for kind, own in TYPES.items() for a in own for value in VALUES[a]]
    names += [(style, 5) for style in STYLES.values()]
    _write(anno / "list_attr_cloth.txt", "attribute_name  attribute_type", _table(names))
    _write(
        anno / "list_category_cloth.txt",
        "category_name  category_type",
        _table(list(CLOTHES_TYPES.items())),
    )
    lists: dict[str, tuple[str, list[str]]] = {
        "list_attr_img.txt": ("image_name  attribute_labels", [_states(p) for p in planned]),
        "list_category_img.txt": ("image_name  category_label", [_category(p) for p in planned]),
        "list_bbox.txt": (
            "image_name  x_1  y_1  x_2  y_2",
            [" ".join(map(str, one.box)) for one in located],
        ),
        "list_landmarks.txt": (
            "image_name  clothes_type  landmark_visibility_1  landmark_location_x_1  "
            "landmark_location_y_1  landmark_visibility_2  ...",
            [_landmarks(p, one) for p, one in zip(planned, located, strict=True)],
        ),
    }
    for name, (header, fields) in lists.items():
        _write(anno / name, header, _rows(paths, fields))
    partition = [_PARTITION[p.split] for p in planned]
    header = "image_name  evaluation_status"
    _write(partition_file, header, _rows(paths, partition))
    return written(folder, "deepfashion", planned)


def _write(file: Path, header: str, lines: list[str]) -> None:
    write_lines(file, [str(len(lines)), header, *lines])


def _table(names: list[tuple[str, int]]) -> list[str]:
    return [f"{name:<30} {kind}" for name, kind in names]


def _rows(paths: list[str], fields: list[str]) -> list[str]:
    return [f"{path:<48} {rest}" for path, rest in zip(paths, fields, strict=True)]


def _states(picture: Planned) -> str:
    """1 for the picture's values, -1 for their siblings, 0 where the attribute is unknown."""
    states: list[int] = []
    for own in TYPES.values():
        for attribute in own:
            has = picture.labels[attribute]
            states += [0 if not has else 1 if v == has else -1 for v in VALUES[attribute]]
    states += [1 if c == picture.labels["category"] else -1 for c in STYLES]
    return " ".join(f"{s:2d}" for s in states)


def _category(picture: Planned) -> str:
    return str(VALUES["category"].index(picture.labels["category"]) + 1)


def _landmarks(picture: Planned, located: Located) -> str:
    kind = CLOTHES_TYPES[picture.labels["category"]]
    marks = [located.landmarks[i] for i in _LANDMARKS[kind]]
    return " ".join([str(kind), *(f"{v} {x} {y}" for v, x, y in marks)])
