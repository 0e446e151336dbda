"""The wardrobe in the layout in which DARN circulates with ASEN (see `datasets.asen_files`).

The folder of a picture maps one to one to its category, and the first two numbers of its name to
its item, as in DARN: paths must not be shown to a model. Differing from DARN, an image is listed
once for *every* attribute that it is labelled in, so that small wardrobes give enough queries.
"""

from __future__ import annotations

import json
from pathlib import Path

from training.errors import UsageError
from training.wardrobe.picture import PictureJob, Progress, save_pictures
from training.wardrobe.plan import Planned, Written, plan, write_lines, written
from training.wardrobe.vocabulary import ATTRIBUTES, VALUES

DARN_NAMES = (
    "clothes category",
    "clothes button",
    "clothes color",
    "clothes length",
    "clothes pattern",
    "clothes shape",
    "collar shape",
    "sleeve length",
    "sleeve shape",
)
"""DARN's names of `ATTRIBUTES`, in the same order."""

LABEL_FILES = (
    *("meta.json", "names.json", "filenames_train.txt", "label_train.txt"),
    *(f"{kind}_{s}.txt" for s in ("valid", "test") for kind in ("filenames", "query", "candidate")),
)
"""All files but the pictures; `meta.json` is written last, so a folder that has one is whole."""

LEAST = 50
"""Fewer pictures may leave a split without a query or without a candidate."""

_QUERY_EVERY = 5  # one query to four candidates
_FIRST_FOLDER = 51606000


def write_darn(
    folder: Path,
    count: int,
    size: int = 224,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Written:
    """Draw a wardrobe into `folder` as `pic/`, list files, `meta.json` and `names.json`.

    Args:
        folder: created if absent.
        count: number of pictures, at least `LEAST`.
        size: their side in pixels.
        seed: of the wardrobe.
        workers: processes that draw.
        progress: called with the number of pictures drawn.

    Raises:
        UsageError: if a number is out of range.
        ResourceError: if something cannot be written.
    """
    if count < LEAST:
        raise UsageError(f"count is {count}; the DARN layout needs at least {LEAST} pictures")
    planned = plan(count, seed)
    jobs = [PictureJob(p.spec, size, folder / _path(p)) for p in planned]
    save_pictures(jobs, workers, progress, [folder / name for name in LABEL_FILES])
    train = [p for p in planned if p.split == "train"]
    write_lines(folder / "filenames_train.txt", [_path(p) for p in train])
    write_lines(folder / "label_train.txt", [_all_pairs(i, p) for i, p in enumerate(train)])
    for split in ("valid", "test"):
        _write_lists(folder, split, [p for p in planned if p.split == split])
    names = dict(zip(DARN_NAMES, VALUES.values(), strict=True))
    meta = {
        "DARN": {
            "ATTRIBUTES": list(DARN_NAMES),
            "ATTRIBUTES_NUM": {name: len(values) for name, values in names.items()},
        }
    }
    write_lines(folder / "names.json", [json.dumps(names, indent=2)])
    write_lines(folder / "meta.json", [json.dumps(meta, indent=2)])
    return written(folder, "darn", planned)


def _path(picture: Planned) -> str:
    category = VALUES["category"].index(picture.labels["category"])
    item = f"{picture.item // 100:04d}_{picture.item % 100:02d}"
    return f"pic/{_FIRST_FOLDER + category}/{item}_{picture.view + 1}.jpg"


def _pairs(picture: Planned) -> list[tuple[int, int]]:
    """Attribute and value numbers of what a picture is labelled with."""
    return [
        (number, VALUES[attribute].index(picture.labels[attribute]))
        for number, attribute in enumerate(ATTRIBUTES)
        if picture.labels[attribute]
    ]


def _all_pairs(index: int, picture: Planned) -> str:
    return " ".join([str(index), *(f"{a} {v}" for a, v in _pairs(picture))])


def _write_lists(folder: Path, split: str, pictures: list[Planned]) -> None:
    """File names with the candidates first, as in DARN, and the two lists."""
    queries = pictures[::_QUERY_EVERY]
    candidates = [p for i, p in enumerate(pictures) if i % _QUERY_EVERY]
    ordered = candidates + queries
    write_lines(folder / f"filenames_{split}.txt", [_path(p) for p in ordered])
    rows = [[f"{i} {a} {v}" for a, v in _pairs(p)] for i, p in enumerate(ordered)]
    first = len(candidates)
    write_lines(folder / f"candidate_{split}.txt", [line for row in rows[:first] for line in row])
    write_lines(folder / f"query_{split}.txt", [line for row in rows[first:] for line in row])
