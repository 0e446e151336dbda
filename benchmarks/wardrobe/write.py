"""Wardrobes to disk, drawn by several processes at once, in three layouts of label files."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np

from benchmarks.wardrobe.garment import ATTRIBUTES, VALUES
from benchmarks.wardrobe.render import (
    Located,
    Spec,
    item_of,
    locate,
    regions,
    render_image,
    sample_spec,
    split_of,
)
from training.datasets.dataset import SPLITS
from training.errors import ResourceError, UsageError
from training.schema import NOT_APPLICABLE

JPEG_QUALITY = 92

Progress = Callable[[int], None]
"""Called in the parent with the number of pictures finished so far."""


@dataclass(frozen=True)
class PictureJob:
    """One picture to draw, save and perhaps locate; masks are `.npz`, a bool array [size, size] an
    attribute."""

    spec: Spec
    size: int
    path: Path
    masks: Path | None = None
    located: bool = False


def save_picture(job: PictureJob) -> Located | None:
    """Draw and save one picture; its box and landmarks where the job asks for them."""
    spec = job.spec
    render_image(spec, job.size).save(job.path, "JPEG", quality=JPEG_QUALITY)
    if job.masks is not None:
        np.savez_compressed(job.masks, allow_pickle=False, **regions(spec, job.size))
    return locate(spec, job.size) if job.located else None


def save_pictures(
    jobs: Sequence[PictureJob],
    workers: int = 1,
    progress: Progress | None = None,
    labels: Sequence[Path] = (),
) -> list[Located | None]:
    """What `save_picture` gives for each job, in order, whatever the number of processes.

    `labels` are files that label pictures of an earlier wardrobe in their place. They are removed
    first, so that after an interruption none tells of pictures that are no more.

    Raises:
        UsageError: if `workers` is under 1.
        ResourceError: if a file cannot be written or a worker dies.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}; use 1 or more")
    try:
        for file in labels:
            file.unlink(missing_ok=True)
        for folder in {p.parent for job in jobs for p in (job.path, job.masks) if p is not None}:
            folder.mkdir(parents=True, exist_ok=True)
        if workers == 1:
            return _collect(map(save_picture, jobs), progress)
        # Spawn: a fork of a process that runs threads of torch or faiss may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                with _without_interrupts():
                    drawn = pool.map(save_picture, jobs, chunksize=16)
                return _collect(drawn, progress)
            finally:  # stopped, it does not draw the rest first
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool as error:
        raise ResourceError(
            f"one of {workers} drawing processes died, perhaps for want of memory; "
            "run again with fewer workers"
        ) from error
    except OSError as error:
        text = f"cannot write the pictures: {error}; free or choose another"
        raise ResourceError(text) from error


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes in the block that SIGINT never reaches, not even while they import.

    They inherit that this thread does not take it; one that comes meanwhile is taken afterwards.
    """
    resource_tracker.ensure_running()  # started in the block, it would take the signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _collect(results: Iterator[Located | None], progress: Progress | None) -> list[Located | None]:
    done: list[Located | None] = []
    for result in results:
        done.append(result)
        if progress is not None:
            progress(len(done))
    return done


@dataclass(frozen=True)
class Planned:
    """One picture to be: the garment's number, which of its pictures it is (from 0), its split."""

    item: int
    view: int
    split: str
    spec: Spec

    @property
    def labels(self) -> dict[str, str]:
        """Attribute -> value name, empty where unknown, in the order of `ATTRIBUTES`."""
        return self.spec.garment.labels()


@dataclass(frozen=True)
class Written:
    """What a writer left on disk: numbers of pictures, of garments, of pictures in each split."""

    images: int
    items: int
    splits: dict[str, int]


def plan(count: int, seed: int) -> list[Planned]:
    """The first `count` pictures of wardrobe `seed`; UsageError for a number out of range."""
    if count < 1:
        raise UsageError(f"count is {count}; ask for at least one picture")
    if seed < 0:
        raise UsageError(f"seed is {seed}; use 0 or more")
    planned = []
    for index in range(count):
        item, view = item_of(index)
        planned.append(Planned(item, view, split_of(seed, item), sample_spec(seed, index)))
    return planned


def _written(planned: list[Planned]) -> Written:
    splits = Counter(p.split for p in planned)
    return Written(len(planned), len({p.item for p in planned}), {s: splits[s] for s in SPLITS})


def write_lines(file: Path, lines: list[str]) -> None:
    """Write a text file, UTF-8, one line an entry; ResourceError if it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}")  # under its own name a file is whole
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
        partial.replace(file)
    except OSError as error:
        raise ResourceError(
            f"cannot write {file}: {error.strerror}; free or choose another"
        ) from error


def write_catalogue(
    folder: Path,
    count: int,
    size: int = 224,
    seed: int = 0,
    workers: int = 1,
    masks: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Draw the first `count` pictures of wardrobe `seed`, `size` pixels a side, into `folder`.

    `labels.csv` is written last, so a folder that has one is whole. `masks` writes
    `masks/<stem>.npz` too.

    Raises:
        UsageError: if a number is out of range.
        ResourceError: if something cannot be written.
    """
    planned = plan(count, seed)
    jobs, lines = [], [",".join(("image", "split", "item", *ATTRIBUTES))]
    for number, p in enumerate(planned):
        path, file = f"images/{number:06d}.jpg", folder / "masks" / f"{number:06d}.npz"
        jobs.append(PictureJob(p.spec, size, folder / path, file if masks else None))
        cells = (value or NOT_APPLICABLE for value in p.labels.values())  # no sleeve, no shape
        lines.append(",".join((path, p.split, str(p.item), *cells)))
    save_pictures(jobs, workers, progress, [folder / "labels.csv"])
    write_lines(folder / "labels.csv", lines)
    return _written(planned)


DARN_NAMES = (
    *("clothes category", "clothes button", "clothes color", "clothes length", "clothes pattern"),
    *("clothes shape", "collar shape", "sleeve length", "sleeve shape"),
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
    """As `write_catalogue`, but `pic/`, list files, `meta.json` and `names.json`; `count` is at
    least `LEAST`."""
    if count < LEAST:
        raise UsageError(f"count is {count}; the DARN layout needs at least {LEAST} pictures")
    planned = plan(count, seed)
    jobs = [PictureJob(p.spec, size, folder / _path(p)) for p in planned]
    save_pictures(jobs, workers, progress, [folder / name for name in LABEL_FILES])
    train = [p for p in planned if p.split == "train"]
    write_lines(folder / "filenames_train.txt", [_path(p) for p in train])
    pairs = [" ".join(f"{a} {v}" for a, v in _pairs(p)) for p in train]
    write_lines(folder / "label_train.txt", [f"{i} {own}" for i, own in enumerate(pairs)])
    for split in ("valid", "test"):
        _write_lists(folder, split, [p for p in planned if p.split == split])
    names = dict(zip(DARN_NAMES, VALUES.values(), strict=True))
    counts = {name: len(values) for name, values in names.items()}
    meta = {"DARN": {"ATTRIBUTES": list(DARN_NAMES), "ATTRIBUTES_NUM": counts}}
    write_lines(folder / "names.json", [json.dumps(names, indent=2)])
    write_lines(folder / "meta.json", [json.dumps(meta, indent=2)])
    return _written(planned)


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

_STYLES = ("casual", "smart", "feminine", "urban", "cosy", "outdoor", "classic", "sporty")
STYLES = dict(zip(VALUES["category"], _STYLES, strict=True))
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
    """As `write_catalogue`, but `Img/img/`, `Anno/` and `Eval/`."""
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
    kinds = _table(list(CLOTHES_TYPES.items()))
    _write(anno / "list_category_cloth.txt", "category_name  category_type", kinds)
    marks = (
        "clothes_type  landmark_visibility_1  landmark_location_x_1  landmark_location_y_1  "
        "landmark_visibility_2  ..."
    )
    both = list(zip(planned, located, strict=True))
    for file, header, fields in (
        (anno / "list_attr_img.txt", "attribute_labels", map(_states, planned)),
        (anno / "list_category_img.txt", "category_label", map(_category, planned)),
        (
            anno / "list_bbox.txt",
            "x_1  y_1  x_2  y_2",
            (" ".join(map(str, x.box)) for x in located),
        ),
        (anno / "list_landmarks.txt", marks, (_landmarks(*one) for one in both)),
        (partition_file, "evaluation_status", (_PARTITION[p.split] for p in planned)),
    ):
        lines = [f"{path:<48} {rest}" for path, rest in zip(paths, fields, strict=True)]
        _write(file, f"image_name  {header}", lines)
    return _written(planned)


def _write(file: Path, header: str, lines: list[str]) -> None:
    write_lines(file, [str(len(lines)), header, *lines])


def _table(names: list[tuple[str, int]]) -> list[str]:
    return [f"{name:<30} {kind}" for name, kind in names]


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
